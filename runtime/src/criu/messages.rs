//! The messages of CRIU's RPC that are used here, with the field numbers of its published `rpc.proto`.

/// `criu_req_type`: a dump, the end of the processes unless they are left running.
pub const DUMP: i32 = 1;
/// `criu_req_type`: processes made from images.
pub const RESTORE: i32 = 2;
/// `criu_req_type`: the memory alone, while the processes run.
pub const PRE_DUMP: i32 = 4;
/// `criu_req_type`: an event on the way, which CRIU waits to have answered.
pub const NOTIFY: i32 = 6;
/// `criu_req_type`: what this build can do on this kernel.
pub const FEATURE_CHECK: i32 = 9;
/// `criu_req_type`: CRIU's version.
pub const VERSION: i32 = 10;

/// A question, or the answer to a notification (`criu_req`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// `criu_req_type`.
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    /// How to dump or restore.
    #[prost(message, optional, tag = "2")]
    pub options: Option<Options>,
    /// The notification was dealt with.
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    /// What is asked for with [`FEATURE_CHECK`].
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

/// An answer, or a notification (`criu_resp`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// `criu_req_type`.
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    /// It worked.
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    /// What was restored.
    #[prost(message, optional, tag = "4")]
    pub restored: Option<Restored>,
    /// What happens right now.
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notification>,
    /// An errno, where CRIU knows one.
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    /// The answer to [`FEATURE_CHECK`].
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    /// The first error that was logged.
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
    /// The answer to [`VERSION`].
    #[prost(message, optional, tag = "10")]
    pub version: Option<Version>,
}

/// `criu_restore_resp`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restored {
    /// The first process, in CRIU's pid namespace.
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notification {
    /// The name of the event.
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    /// The first process, in the events of a restore that have one.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

impl Notification {
    /// The event's name; empty for one without.
    pub fn name(&self) -> &str {
        self.script.as_deref().unwrap_or_default()
    }
}

/// `criu_features`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Features {
    /// The kernel tells which pages were written to.
    #[prost(bool, optional, tag = "1")]
    pub memory_tracking: Option<bool>,
    /// Pages may come later (userfaultfd).
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// `criu_version`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Version {
    /// 4 of 4.2.1.
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    /// 2 of 4.2.1.
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
    /// 1 of 4.2.1.
    #[prost(int32, optional, tag = "4")]
    pub sublevel: Option<i32>,
}

/// `criu_opts`, what is used of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Options {
    /// A descriptor of ours: CRIU opens it by way of procfs.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    /// The first process of what is dumped.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    /// The processes go on after a dump.
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    /// Sockets may be connected to the outside.
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    /// TCP connections are kept.
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    /// Devices may be reached by another path.
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    /// The processes belong to a session of the outside.
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    /// Locks of files are kept.
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    /// 4 tells everything.
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    /// A name in the work directory.
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    /// Where memory goes instead of into files.
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    /// Events are told.
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    /// The root file system, a mount of its own.
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    /// Images of the dump before, relative to these.
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    /// Which pages are written to is watched.
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    /// Pages that a later dump has are taken out of the earlier one.
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    /// A descriptor of ours, for logs and statistics.
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    /// Files without a name may be given one.
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    /// Where control groups are found again.
    #[prost(message, repeated, tag = "25")]
    pub cg_root: Vec<CgroupRoot>,
    /// The first process becomes a child of ours.
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    /// Files that CRIU holds already.
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    /// `criu_cg_mode`.
    #[prost(int32, optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    /// Mounts, namespaces and files that are not the container's own.
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// `CLONE_NEW*` of namespaces that are made without their contents.
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    /// Namespaces that are joined.
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    /// The control group that stops the processes.
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    /// Connections that are being made are left out.
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    /// Memory is handed out when it is asked for.
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    /// Terminals whose master is outside are told of.
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    /// A configuration file that has the last word.
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    /// `TYPE:NAME` of the label that processes get.
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    /// The label that mounts get.
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PageServer {
    /// Host name or address.
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    /// TCP port.
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// `cgroup_root`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CgroupRoot {
    /// One controller, or a named hierarchy; empty for version 2.
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    /// A path in its hierarchy.
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// `inherit_fd`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InheritFd {
    /// What the images call it.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// Number in the CRIU process.
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinNamespace {
    /// `ipc`, `uts` and so on.
    #[prost(string, required, tag = "1")]
    pub kind: String,
    /// Path of the namespace.
    #[prost(string, required, tag = "2")]
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// Key and length of the wire form (protobuf encoding, "Message Structure"), by hand.
    #[test]
    fn a_request_has_the_bytes_of_the_published_field_numbers() {
        let options = Options {
            images_dir_fd: 5,
            leave_running: Some(true),
            external: vec!["x".into()],
            ..Options::default()
        };
        let request = Request { kind: DUMP, options: Some(options), ..Request::default() };
        let expected: &[u8] = &[0x08, 1, 0x12, 8, 0x08, 5, 0x18, 1, 0xaa, 0x02, 1, b'x'];
        assert_eq!(request.encode_to_vec(), expected);
    }

    /// Labels mean nothing on most hosts, so that a wrong number would not be seen there.
    #[test]
    fn labels_have_the_bytes_of_the_published_field_numbers() {
        let options = Options {
            lsm_profile: Some("p".into()),
            lsm_mount_context: Some("m".into()),
            ..Options::default()
        };
        let expected: &[u8] = &[0x08, 0, 0xaa, 0x03, 1, b'p', 0xfa, 0x03, 1, b'm'];
        assert_eq!(options.encode_to_vec(), expected);
    }

    #[test]
    fn a_notification_is_read_and_unknown_fields_are_skipped() {
        // type NOTIFY, success, notify { script "ab", pid 7 }, and a field 90 of some later version.
        let bytes = [0x08, 6, 0x10, 1, 0x2a, 6, 0x0a, 2, b'a', b'b', 0x10, 7, 0xd0, 0x05, 1];
        let response = Response::decode(&bytes[..]).expect("decodes");
        assert!(response.success);
        let notify = response.notify.expect("a notification");
        assert_eq!((response.kind, notify.script.as_deref(), notify.pid), (NOTIFY, Some("ab"), Some(7)));
    }
}
