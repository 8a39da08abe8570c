//! What the standard streams of the runtime are, which become those of the container's program.

use hull_plan::Plan;
use hull_sys::CWD;
use hull_sys::fs::readlinkat;

/// Their names as the kernel gives them, such as `pipe:[123]`; none when the program has a terminal of its own.
pub fn names(plan: &Plan) -> Vec<String> {
    if plan.process.as_ref().is_none_or(|process| process.terminal) {
        return Vec::new();
    }
    let name = |number| {
        let link = readlinkat(CWD, format!("/proc/self/fd/{number}").as_str());
        // Without procfs nothing can be checkpointed either.
        link.ok().and_then(|link| link.into_string().ok()).unwrap_or_default()
    };
    (0..=2).map(name).collect()
}
