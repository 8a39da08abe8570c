//! The seccomp filter: compiled before the clone, loaded as late as possible, its listener handed on.

use crate::error::{Code, Context, Error, Result};
use crate::link::{Link, ToParent};
use crate::peer;
use hull_plan::Plan;
use hull_seccomp::{Arch, Listener, evaluate};
use hull_sys::seccomp::{SeccompInstruction, load_filter};
use oci_spec::runtime::LinuxSeccomp;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A compiled filter, and what it lets the runtime do after it is loaded.
#[derive(Debug)]
pub struct Seal {
    program: Vec<SeccompInstruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Where the listener goes.
    pub listener: Option<Listener>,
    /// The child may say [`ToParent::Sealed`] after the filter is loaded.
    pub may_report: bool,
    /// The child may wait at the socket form of the gate.
    pub may_use_gate: bool,
    /// What the profile asks for and this build does not know.
    pub warnings: Vec<String>,
}

const GATE_CALLS: [&str; 4] = ["accept4", "recvmsg", "sendmsg", "close"];

impl Seal {
    /// Compiles the profile of `plan`. Without a program there is nothing to be sealed, but a profile that is wrong is
    /// refused all the same.
    pub fn compile(plan: &Plan) -> Result<Option<Self>> {
        Ok(Self::of_profile(plan.seccomp.as_ref())?.filter(|_| plan.process.is_some()))
    }

    /// Compiles `profile`, where there is one.
    pub fn of_profile(profile: Option<&LinuxSeccomp>) -> Result<Option<Self>> {
        let Some(profile) = profile else { return Ok(None) };
        let architecture = Arch::NATIVE;
        let filter = hull_seccomp::compile(profile, architecture)
            .map_err(|refusal| Error::new(Code::ConfigInvalid, refusal.reason).field(refusal.field))?;
        let allows = |name: &str| {
            hull_seccomp::number_of(architecture, name).is_some_and(|number| {
                is_harmless(evaluate(&filter.program, architecture.audit(), number, &[0; 6]))
            })
        };
        let may_report = allows("sendmsg");
        let may_use_gate = GATE_CALLS.iter().all(|name| allows(name));
        if filter.listener.is_some() && !may_report {
            return Err(Error::new(
                Code::ConfigInvalid,
                "seccomp notify unsupported: the profile denies sendmsg, which hands over the listener",
            )
            .field("/linux/seccomp/syscalls"));
        }
        let program = filter
            .program
            .iter()
            .map(|one| SeccompInstruction {
                code: one.code,
                jump_true: one.jt,
                jump_false: one.jf,
                operand: one.k,
            })
            .collect();
        Ok(Some(Self {
            program,
            flags: filter.flags,
            listener: filter.listener,
            may_report,
            may_use_gate,
            warnings: filter.warnings,
        }))
    }

    /// Child: loads the filter and reports.
    pub fn load(&self, link: &Link) -> Result<()> {
        let listener = load_filter(&self.program, self.flags)
            .context(|| "error loading seccomp filter into kernel")
            .map_err(|error| error.field("/linux/seccomp"))?;
        match listener {
            Some(fd) => link.tell(&ToParent::SeccompFd(fd)),
            None if self.may_report => link.tell(&ToParent::Sealed),
            None => Ok(()),
        }
    }
}

/// ALLOW and LOG let the call through.
fn is_harmless(action: u32) -> bool {
    const ALLOW: u32 = 0x7fff_0000;
    const LOG: u32 = 0x7ffc_0000;
    matches!(action & 0xffff_0000, ALLOW | LOG)
}

/// Sends the listener with the process state to the agent (config-linux.md "containerProcessState"): one message on a
/// fresh connection, the descriptor with it.
pub fn hand_over(listener: &Listener, fd: &OwnedFd, state: &serde_json::Value, pid: i32) -> Result<()> {
    let document = serde_json::json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": listener.metadata.clone().unwrap_or_default(),
        "state": state,
    });
    let what = format!(
        "failed to connect with seccomp agent specified in the seccomp profile: dial unix {}",
        listener.path
    );
    let field = |error: Error| error.field("/linux/seccomp/listenerPath");
    let connection = peer::connect(Path::new(&listener.path), &what).map_err(field)?;
    let bytes = document.to_string().into_bytes();
    peer::send(connection.as_fd(), &bytes, &[fd.as_fd()], "send the seccomp listener").map_err(field)
}
