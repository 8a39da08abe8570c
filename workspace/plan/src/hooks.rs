//! Hooks (config.md, POSIX-platform hooks).

use crate::plan::{Hook, HookPlan};
use crate::refusal::Refusal;
use alloc::format;
use alloc::vec::Vec;
use oci_spec::runtime::{Hook as Configured, Hooks};

/// Plans the hooks of `spec` alone, for the commands that come after create.
pub fn plan_hooks(spec: &oci_spec::runtime::Spec) -> Result<HookPlan, Refusal> {
    plan(spec.hooks().as_ref())
}

pub(crate) fn plan(hooks: Option<&Hooks>) -> Result<HookPlan, Refusal> {
    let Some(hooks) = hooks else { return Ok(HookPlan::default()) };
    #[allow(deprecated, reason = "the specification still wants them run")]
    let prestart = hooks.prestart();
    Ok(HookPlan {
        prestart: of_kind(prestart.as_deref(), "prestart")?,
        create_runtime: of_kind(hooks.create_runtime().as_deref(), "createRuntime")?,
        create_container: of_kind(hooks.create_container().as_deref(), "createContainer")?,
        start_container: of_kind(hooks.start_container().as_deref(), "startContainer")?,
        poststart: of_kind(hooks.poststart().as_deref(), "poststart")?,
        poststop: of_kind(hooks.poststop().as_deref(), "poststop")?,
    })
}

fn of_kind(hooks: Option<&[Configured]>, kind: &str) -> Result<Vec<Hook>, Refusal> {
    hooks
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, hook)| one(hook, &format!("/hooks/{kind}/{index}")))
        .collect()
}

fn one(hook: &Configured, field: &str) -> Result<Hook, Refusal> {
    let path = hook.path().to_str().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Refusal::new(format!("{field}/path"), format!("path {path:?} is not absolute")));
    }
    let seconds = |timeout: i64| {
        u32::try_from(timeout).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
            Refusal::new(format!("{field}/timeout"), format!("{timeout} is not a number of seconds above 0"))
        })
    };
    Ok(Hook {
        field: field.into(),
        path: path.into(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout_seconds: hook.timeout().map(seconds).transpose()?,
    })
}
