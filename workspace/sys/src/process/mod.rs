//! Processes: making them, naming them by pidfd, waiting for them, and what a process may say about itself.

mod attributes;
mod exec;
mod pid;
mod pidfd;
mod spawn;
mod title;
mod vfork;
mod wait;

pub use attributes::{
    effective_pid, is_dumpable, parent_pid, set_child_subreaper, set_dumpable, set_keep_capabilities,
    set_no_new_privileges, set_parent_death_signal, set_personality, setsid, thread_id, umask,
};
pub use exec::{CStrings, execve, execveat};
pub use pid::{Pid, kill, kill_group};
pub use pidfd::{pidfd_getfd, pidfd_open, pidfd_pid, pidfd_send_signal};
pub use spawn::{Child, CloneRequest, exit_now, spawn};
pub use title::Title;
pub use vfork::spawn_program;
pub use wait::{WaitStatus, is_child, try_wait, wait, wait_any_child, wait_until};
