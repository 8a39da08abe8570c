//! The command line, as runc's callers know it.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// An OCI container runtime.
#[derive(Debug, Parser)]
#[command(
    about = "Open Container Initiative runtime",
    disable_version_flag = true,
    disable_help_subcommand = false,
    subcommand_required = false,
    infer_long_args = false
)]
pub struct Cli {
    /// Options that come before the command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct GlobalOptions {
    /// Enable debug logging
    #[arg(long)]
    pub debug: bool,
    /// Set the log file to write logs to (default: standard error)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Set the log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: String,
    /// Root directory for storage of container state (default: /run/hull, or $XDG_RUNTIME_DIR/hull for a user)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Path of the criu binary (default: searched for in PATH)
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
    /// Enable systemd cgroup support; cgroupsPath then is slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroup: cgroupfs, systemd, or disabled for none (crun's option)
    #[arg(long, value_name = "MANAGER", default_value = "")]
    pub cgroup_manager: String,
    /// Ignore cgroup permission errors: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: String,
    /// Print the version
    #[arg(long, short = 'v')]
    pub version: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container
    Create(CreateOptions),
    /// Start the program of a created container
    Start(ContainerOnly),
    /// Create and start a container
    Run(RunOptions),
    /// Print the state of a container
    State(ContainerOnly),
    /// Send a signal (default: SIGTERM) to a container's init process
    Kill(KillOptions),
    /// Delete the resources held by a container
    Delete(DeleteOptions),
    /// Execute a new process inside a container
    Exec(Box<ExecOptions>),
    /// List containers
    List(ListOptions),
    /// Display the processes running inside a container
    Ps(PsOptions),
    /// Suspend all processes inside a container
    Pause(ContainerOnly),
    /// Resume all processes that have been paused
    Resume(ContainerOnly),
    /// Update the resource limits of a container
    Update(Box<UpdateOptions>),
    /// Display events of a container, such as out-of-memory notifications and statistics
    Events(EventsOptions),
    /// Save the processes of a running container as images
    Checkpoint(Box<CheckpointOptions>),
    /// Make a container from the images of a checkpoint
    Restore(Box<RestoreOptions>),
    /// Write a specification file
    Spec(SpecOptions),
    /// Show the enabled features
    Features,
    /// Check a bundle's configuration and say what would be refused, and why
    Check(BundleOptions),
    /// Print what create would carry out, as JSON
    Plan(BundleOptions),
}

/// A container id and nothing else.
#[derive(Debug, Args)]
pub struct ContainerOnly {
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `--bundle` alone.
#[derive(Debug, Args)]
pub struct BundleOptions {
    /// Path of the bundle directory (default: the working directory)
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

/// What create and run share.
#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Path of the bundle directory (default: the working directory)
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Path of a unix socket that receives the master end of the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Path of a unix socket that receives a pidfd of the container's process
    #[arg(long, value_name = "PATH")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root(2) to enter the root
    #[arg(long)]
    pub no_pivot: bool,
    /// Do not make a new session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N additional descriptors to the program (from 3 up)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Container id; for run also the path of a bundle
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// As for create.
    #[command(flatten)]
    pub create: CreateOptions,
    /// Detach from the container's process
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Do not delete the container after it exited
    #[arg(long)]
    pub keep: bool,
    /// Disable the use of the subreaper that reaps reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct KillOptions {
    /// Send the signal to all processes inside the container
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Name or number of the signal
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct DeleteOptions {
    /// Kill the container first if it still runs
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct ExecOptions {
    /// Path of a unix socket that receives the master end of the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Path of a unix socket that receives a pidfd of the process
    #[arg(long, value_name = "PATH")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory inside the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set an environment variable, NAME=VALUE
    #[arg(long, short = 'e', value_name = "ENV")]
    pub env: Vec<String>,
    /// Allocate a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// User as UID[:GID]
    #[arg(long, short = 'u', value_name = "USER")]
    pub user: Option<String>,
    /// Additional group ids
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<String>,
    /// Path of a process.json
    #[arg(long, short = 'p', value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Detach from the process
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability to the bounding set of the process
    #[arg(long, short = 'c', value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N additional descriptors to the process (from 3 up)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Run in a sub-cgroup: [CONTROLLER,...:]PATH
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// Disable the use of the subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    pub format: String,
    /// Only the ids
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct PsOptions {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    pub format: String,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Options for ps(1) (default: -ef)
    #[arg(value_name = "PS-OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsOptions {
    /// Interval of the statistics, such as 5s or 100ms
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: String,
    /// Print the statistics once and end
    #[arg(long)]
    pub stats: bool,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `spec`.
#[derive(Debug, Args)]
pub struct SpecOptions {
    /// Path of the bundle directory
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
}

/// `update`. Numbers are texts here: each has rules of its own.
#[derive(Debug, Args)]
pub struct UpdateOptions {
    /// File with the resources as JSON, or - for standard input
    #[arg(long, short = 'r', value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// CPU CFS period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// CPU CFS quota in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU CFS burst in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,
    /// CPU shares, relative to other containers
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// CPU realtime period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,
    /// CPU realtime runtime in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs that may be used
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1 makes the container use idle CPU time only
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub cpu_idle: Option<i64>,
    /// Memory limit in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory reservation (soft limit) in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together in bytes; -1 is unlimited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Obsolete
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub kernel_memory: Option<String>,
    /// Obsolete
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Most processes; 0 or -1 is unlimited
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT/CAT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT/MBA schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointOptions {
    /// Directory for CRIU's image files (default: checkpoint, below the working directory)
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for CRIU's log and statistics (default: that of the images)
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Directory of an earlier dump's image files, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    pub leave_running: bool,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Leave out TCP connections that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Allow files that have been unlinked to be linked again
    #[arg(long)]
    pub link_remap: bool,
    /// Allow unix sockets that are connected to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow processes of a session of the outside
    #[arg(long)]
    pub shell_job: bool,
    /// Leave the memory here, to be fetched by the restored processes when they need it (userfaultfd)
    #[arg(long)]
    pub lazy_pages: bool,
    /// Descriptor that a zero byte is written to when the memory can be fetched
    #[arg(long, value_name = "FD", allow_hyphen_values = true)]
    pub status_fd: Option<i32>,
    /// ADDRESS:PORT of a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Keep locks of files
    #[arg(long)]
    pub file_locks: bool,
    /// Save the memory alone, and leave the container running
    #[arg(long)]
    pub pre_dump: bool,
    /// How control groups are saved: soft, full, strict or ignore (default: soft)
    #[arg(long, value_name = "MODE", default_value = "")]
    pub manage_cgroups_mode: String,
    /// Make a namespace again, but not what is in it: network
    #[arg(long, value_name = "KIND")]
    pub empty_ns: Vec<String>,
    /// Take pages that this dump has out of the earlier ones
    #[arg(long)]
    pub auto_dedup: bool,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// Path of a unix socket that receives the master end of the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Directory of CRIU's image files (default: checkpoint, below the working directory)
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for CRIU's log and statistics (default: that of the images)
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow unix sockets that are connected to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow processes of a session of the outside
    #[arg(long)]
    pub shell_job: bool,
    /// Keep locks of files
    #[arg(long)]
    pub file_locks: bool,
    /// How control groups are restored: soft, full, strict or ignore (default: soft)
    #[arg(long, value_name = "MODE", default_value = "")]
    pub manage_cgroups_mode: String,
    /// Path of the bundle directory (default: the working directory)
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Detach from the container's process
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Disable the use of the subreaper that reaps reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
    /// Without effect: CRIU switches the root
    #[arg(long)]
    pub no_pivot: bool,
    /// Make a namespace again, but not what is in it: network
    #[arg(long, value_name = "KIND")]
    pub empty_ns: Vec<String>,
    /// Take pages out of the images once they are restored
    #[arg(long)]
    pub auto_dedup: bool,
    /// Fetch the memory when it is needed (userfaultfd)
    #[arg(long)]
    pub lazy_pages: bool,
    /// Label of the restored processes, TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// Label of the restored mounts
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// Container id
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}
