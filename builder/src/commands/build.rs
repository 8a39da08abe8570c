//! `hull-build build`: the flags of Docker's `build`, and those of this builder.

use std::path::PathBuf;

use super::Outcome;
use super::registry_options::RegistryArguments;
use crate::progress::Style;

/// What `build` takes.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// The Dockerfile (default: PATH/Dockerfile; - reads standard input)
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// Name of the image; may be repeated
    #[arg(short, long)]
    pub(crate) tag: Vec<String>,
    /// Stage to build
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// NAME=VALUE, or NAME to take it from the environment
    #[arg(long)]
    pub(crate) build_arg: Vec<String>,
    /// File of NAME=VALUE lines
    #[arg(long)]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// NAME=PATH, URL, docker-image://IMAGE or oci-layout://PATH[:TAG]
    #[arg(long)]
    pub(crate) build_context: Vec<String>,
    /// KEY=VALUE
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// KEY=VALUE of the manifest, or index:, manifest:, manifest-descriptor: before it
    #[arg(long)]
    pub(crate) annotation: Vec<String>,
    /// Platform to build for: only this machine's
    #[arg(long, value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// type=oci|docker|tar|local|image|registry|cacheonly,dest=PATH, or a PATH
    #[arg(short, long)]
    pub(crate) output: Vec<String>,
    /// Do every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Do the steps of this stage again
    #[arg(long)]
    pub(crate) no_cache_filter: Vec<String>,
    /// Write the image id to a file
    #[arg(long)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a JSON file
    #[arg(long)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// auto, plain, tty, rawjson or quiet
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Style,
    /// Print only the image id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Say why each step was done again, what the ignore file dropped, and what each layer weighs
    #[arg(long)]
    pub(crate) explain: bool,
    /// Build twice and compare
    #[arg(long)]
    pub(crate) verify_reproducible: bool,
    /// Keep the files' own times instead of the build's one time
    #[arg(long)]
    pub(crate) keep_times: bool,
    /// Seconds since 1970 that everything new is dated (default: SOURCE_DATE_EPOCH, else 1980)
    #[arg(long, alias = "timestamp")]
    pub(crate) source_date_epoch: Option<u64>,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// build, check, outline or targets
    #[arg(long)]
    pub(crate) call: Option<String>,
    /// id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    /// Fail if a secret's value is in a new layer, the configuration or the output, encoded or not
    #[arg(long)]
    pub(crate) audit_secrets: bool,
    /// default or NAME=SOCKET
    #[arg(long)]
    pub(crate) ssh: Vec<String>,
    /// default, none or host
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// network.host or security.insecure
    #[arg(long)]
    pub(crate) allow: Vec<String>,
    /// NAME:ADDRESS for RUN
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// SOURCE:DESTINATION[:ro|rw] of the host, seen by every RUN, never in a layer
    #[arg(short, long)]
    pub(crate) volume: Vec<String>,
    /// NAME[=VALUE] for every RUN, never in the image or the cache key
    #[arg(long)]
    pub(crate) run_env: Vec<String>,
    /// The OCI runtime that carries RUN out
    #[arg(long, env = "HULL_BUILD_RUNTIME", default_value = "hull")]
    pub(crate) runtime: String,
    /// Steps at once
    #[arg(long, default_value_t = 16)]
    pub(crate) jobs: usize,
    /// gzip, zstd or uncompressed layers
    #[arg(long, default_value = "gzip")]
    pub(crate) compression: String,
    /// Level of the compression
    #[arg(long)]
    pub(crate) compression_level: Option<i32>,
    /// The ignore file
    #[arg(long)]
    pub(crate) ignorefile: Option<PathBuf>,
    /// Take this variable out of the image
    #[arg(long)]
    pub(crate) unsetenv: Vec<String>,
    /// Take this label out of the image
    #[arg(long)]
    pub(crate) unsetlabel: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
    #[command(flatten)]
    pub(crate) accepted: AcceptedArguments,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
    /// The context: a directory, a URL of an archive or a git repository, or - for a tar archive on standard input
    pub(crate) context: Option<PathBuf>,
}

/// Limits of every RUN.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct LimitArguments {
    /// Bytes of memory, like 512m
    #[arg(short, long)]
    pub(crate) memory: Option<String>,
    /// Bytes of memory and swap, or -1
    #[arg(long)]
    pub(crate) memory_swap: Option<String>,
    /// Relative weight
    #[arg(short = 'c', long)]
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds a period
    #[arg(long)]
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    /// Processors, like 0-2
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// NAME=SOFT[:HARD]
    #[arg(long)]
    pub(crate) ulimit: Vec<String>,
    /// Bytes of /dev/shm
    #[arg(long)]
    pub(crate) shm_size: Option<String>,
    /// The cgroup that RUN's cgroups are made below
    #[arg(long)]
    pub(crate) cgroup_parent: Option<String>,
    /// Give this capability to every RUN
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
}

/// Flags of other builders that mean nothing here, or what is done anyway.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct AcceptedArguments {
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<String>,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    load: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    layers: Option<String>,
    #[arg(long, hide = true)]
    rewrite_timestamp: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_unused_stages: Option<String>,
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    #[arg(long, hide = true)]
    policy: Vec<String>,
    /// Not done yet: said in one line
    #[arg(long, hide = true)]
    pub(crate) cache_from: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) cache_to: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) attest: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) squash: bool,
    #[arg(long, hide = true)]
    pub(crate) squash_all: bool,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    /// Push the image under its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Ask the registry for images that the store has; or always, newer, missing, never
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) format: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    crate::build::build(arguments)
}
