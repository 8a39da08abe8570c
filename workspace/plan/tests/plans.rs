//! What configurations become.

mod common;

use common::{changed, config, facts, plan, plan_for, with, with_user_namespace};
use hull_plan::{
    Attributes, CapabilityPlan, DeviceKind, EntryScript, HostFacts, IdMap, IdMaps, MountPlan, MountSource,
    NamespaceKind, NamespaceSet, Plan, Propagation, PropagationPlan, SchedulerPlan, default_spec, load,
};
use serde_json::{Value, json};

/// The golden file shows every decision about the default configuration; `BLESS=1` writes it anew.
#[test]
fn the_default_configuration_has_this_plan() {
    let spec = load(default_spec(None, false).as_bytes()).expect("it is valid").spec;
    let text = Plan::build(&spec, &facts()).expect("it can be carried out").to_json() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/default-plan.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &text).expect("the golden file can be written");
    }
    assert_eq!(std::fs::read_to_string(path).expect("it is there"), text);
}

#[test]
fn the_summary_says_what_the_container_is() {
    let spec = load(default_spec(Some((1000, 1000)), false).as_bytes()).expect("it is valid").spec;
    let facts = HostFacts { rootless: true, uid: 1000, gid: 1000, ..facts() };
    let summary = Plan::build(&spec, &facts).expect("it can be carried out").summary();
    let expected = "root       /bundle/rootfs (read-only)\n\
        namespaces new user, new pid, new mnt, new ipc, new uts\n\
        ids        uid 0=1000+1, gid 0=1000+1\n\
        mount      /proc: new proc []\n\
        mount      /dev: new tmpfs [nosuid,strictatime,mode=755,size=65536k]\n\
        mount      /dev/pts: new devpts [nosuid,noexec,newinstance,ptmxmode=0666,mode=0620]\n\
        mount      /dev/shm: new tmpfs [nosuid,noexec,nodev,mode=1777,size=65536k]\n\
        mount      /dev/mqueue: new mqueue [nosuid,noexec,nodev]\n\
        mount      /sys: /sys bound with what lies on it [rbind,nosuid,noexec,nodev,ro]\n\
        mount      /sys/fs/cgroup: own control groups [nosuid,noexec,nodev,relatime,ro]\n\
        paths      10 masked, 5 read-only; 6 devices; 0 kernel parameters; 0 hooks\n\
        process    [\"sh\"] as 0:0 in /, capabilities CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE\n\
        seccomp    not filtered";
    assert_eq!(summary, expected);
}

fn set(kinds: &[NamespaceKind]) -> NamespaceSet {
    kinds.iter().fold(NamespaceSet::default(), |set, kind| set.with(*kind))
}

#[test]
fn namespaces_are_joined_user_first_and_pid_last() {
    let namespaces = json!([
        {"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/a"},
        {"type": "uts", "path": ""}, {"type": "user", "path": "/proc/1/ns/user"}
    ]);
    let entry =
        plan(&with(changed("/linux/namespaces", namespaces), "/hostname", Value::Null)).unwrap().entry;
    assert_eq!(entry.create, set(&[NamespaceKind::Mount, NamespaceKind::Uts]));
    let joined: Vec<_> = entry.join.iter().map(|join| (join.kind, &*join.path, &*join.field)).collect();
    assert_eq!(
        joined,
        [
            (NamespaceKind::User, "/proc/1/ns/user", "/linux/namespaces/4"),
            (NamespaceKind::Network, "/run/netns/a", "/linux/namespaces/2"),
            (NamespaceKind::Pid, "/proc/1/ns/pid", "/linux/namespaces/0"),
        ]
    );
    assert!(entry.has_own(NamespaceKind::Pid) && !entry.has_own(NamespaceKind::Ipc));
}

#[test]
fn no_linux_section_shares_every_namespace() {
    let config = with(changed("/linux", Value::Null), "/hostname", Value::Null);
    assert_eq!(plan(&config).unwrap().entry, EntryScript::default());
}

#[test]
fn mappings_beside_a_joined_user_namespace_are_ignored_with_a_warning() {
    let config = with(with_user_namespace(config()), "/linux/namespaces/5/path", json!("/proc/1/ns/user"));
    let plan = plan(&config).unwrap();
    assert_eq!(plan.entry.id_maps, None);
    assert_eq!(plan.warnings[0].field, "/linux/uidMappings");
}

#[test]
fn id_mappings_and_time_offsets_are_kept_exactly() {
    let config = with(with_user_namespace(config()), "/linux/namespaces/-", json!({"type": "time"}));
    let offsets = json!({"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 9}});
    let entry = plan(&with(config, "/linux/timeOffsets", offsets)).unwrap().entry;
    let map = vec![IdMap { inside: 0, outside: 100_000, size: 65536 }];
    assert_eq!(entry.id_maps, Some(IdMaps { uid: map.clone(), gid: map }));
    let offsets: Vec<_> = entry
        .time_offsets
        .iter()
        .map(|offset| (&*offset.clock, offset.seconds, offset.nanoseconds))
        .collect();
    assert_eq!(offsets, [("boottime", 9, 0), ("monotonic", -5, 7)]);
}

#[test]
fn the_root_is_absolute_and_its_propagation_optional() {
    let root = |config: &Value| plan(config).unwrap().root;
    assert_eq!(root(&config()).path, "/bundle/rootfs");
    assert!(root(&config()).readonly);
    assert_eq!(root(&config()).propagation, None);
    assert_eq!(root(&changed("/root", json!({"path": "/srv/./root/"}))).path, "/srv/root");
    assert!(!root(&changed("/root", json!({"path": "/"}))).readonly);
    let shared = root(&changed("/linux/rootfsPropagation", json!("rshared"))).propagation;
    assert_eq!(shared, Some(PropagationPlan { kind: Propagation::Shared, recursive: true }));
    assert_eq!(root(&changed("/linux/rootfsPropagation", json!(""))).propagation, None);
}

fn mount(value: Value) -> MountPlan {
    plan(&changed("/mounts/-", value)).expect("it can be carried out").mounts.remove(1)
}

#[test]
fn options_decide_what_is_bound() {
    for (value, path, recursive) in [
        (json!({"destination": "/a", "type": "tmpfs", "source": "/x", "options": ["bind"]}), "/x", false),
        (
            json!({"destination": "/a", "type": "none", "source": "/x//y/", "options": ["rbind"]}),
            "/x/y",
            true,
        ),
        (json!({"destination": "/a", "source": "data", "options": ["rbind", "ro"]}), "/bundle/data", true),
        (
            json!({"destination": "/a", "type": "cgroup", "source": "./d/../e", "options": ["bind"]}),
            "/bundle/e",
            false,
        ),
        (json!({"destination": "/a", "type": "bind", "source": "/x"}), "/x", false),
    ] {
        assert_eq!(
            mount(value.clone()).source,
            MountSource::Bind { path: path.into(), recursive },
            "{value}"
        );
    }
}

#[test]
fn other_mounts_are_what_their_type_says() {
    for (value, source) in [
        (json!({"destination": "/a", "type": "cgroup", "source": "cgroup"}), MountSource::Cgroup),
        (json!({"destination": "/a", "type": "cgroup2", "source": "cgroup"}), MountSource::Cgroup),
        (json!({"destination": "/a", "options": ["rshared"]}), MountSource::ChangeOnly),
        (
            json!({"destination": "/a", "type": "none", "source": "none", "options": ["ro"]}),
            MountSource::ChangeOnly,
        ),
        (
            json!({"destination": "/a", "options": ["remount", "bind", "ro"]}),
            MountSource::Remount { options: vec![], bind: true },
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["remount", "size=5m"]}),
            MountSource::Remount { options: vec![("size".into(), Some("5m".into()))], bind: false },
        ),
        (
            json!({"destination": "/a", "type": "ext4", "source": "/dev/sda1", "options": ["ro", "noload"]}),
            MountSource::Filesystem {
                kind: "ext4".into(),
                source: Some("/dev/sda1".into()),
                options: vec![("ro".into(), None), ("noload".into(), None)],
            },
        ),
        (
            json!({"destination": "/a", "type": "sysfs", "options": ["ro"]}),
            MountSource::Filesystem { kind: "sysfs".into(), source: None, options: vec![] },
        ),
    ] {
        assert_eq!(mount(value.clone()).source, source, "{value}");
    }
}

#[test]
fn a_mount_keeps_its_options_and_order() {
    let planned = mount(json!({
        "destination": "/a/../b//c/", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noatime", "rro", "rslave", "private", "tmpcopyup", "mode=755"]
    }));
    assert_eq!((&*planned.field, &*planned.target), ("/mounts/1", "/b/c"));
    assert_eq!(planned.attributes, Attributes { set: 0x12, clear: 0x70 });
    assert_eq!(planned.recursive_attributes, Attributes { set: 0x1, clear: 0 });
    let propagation = |kind, recursive| PropagationPlan { kind, recursive };
    assert_eq!(
        planned.propagation,
        [propagation(Propagation::Slave, true), propagation(Propagation::Private, false)]
    );
    assert!(planned.copy_up);
    assert_eq!(planned.options.len(), 7);
    let many: Vec<_> =
        (0..1000).map(|number| json!({"destination": format!("/{number}"), "type": "tmpfs"})).collect();
    let targets: Vec<_> = plan(&changed("/mounts", json!(many)))
        .unwrap()
        .mounts
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    assert_eq!(targets, (0..1000).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[test]
fn options_without_effect_are_told() {
    for (mount, text) in [
        (json!({"destination": "/a", "source": "/x", "options": ["bind", "mode=755", "z"]}), "mode, z"),
        (json!({"destination": "/a", "type": "cgroup", "options": ["none", "name=x"]}), "none, name"),
        (json!({"destination": "/a", "type": "ramfs", "options": ["tmpcopyup"]}), "tmpcopyup"),
    ] {
        let plan = plan(&changed("/mounts/-", mount)).unwrap();
        let warning = &plan.warnings[0];
        assert_eq!(warning.field, "/mounts/1/options");
        assert_eq!(warning.text, format!("options without effect on this mount: {text}"));
        assert!(!plan.mounts[1].copy_up);
    }
    let relative = plan(&changed("/mounts/-", json!({"destination": "a/b", "type": "tmpfs"}))).unwrap();
    assert_eq!(relative.mounts[1].target, "/a/b");
    assert_eq!(relative.warnings[0].field, "/mounts/1/destination");
}

#[test]
fn id_mapped_mounts_take_their_own_mapping_or_the_containers() {
    let row = |outside: u32| json!([{"containerID": 0, "hostID": outside, "size": 10}]);
    let own = json!({"destination": "/a", "source": "/x", "options": ["bind"], "uidMappings": row(5), "gidMappings": row(6)});
    let map = mount(own.clone()).id_map.expect("it is id-mapped");
    assert!(!map.recursive);
    let maps = map.maps.expect("its own");
    assert_eq!((maps.uid[0].outside, maps.gid[0].outside), (5, 6));
    assert!(
        mount(with(own, "/options", json!(["rbind", "ridmap"]))).id_map.expect("it is id-mapped").recursive
    );
    let containers = json!({"destination": "/a", "source": "/x", "options": ["rbind", "idmap"]});
    let plan = plan(&with(with_user_namespace(config()), "/mounts/-", containers)).unwrap();
    assert_eq!(plan.mounts[1].id_map.as_ref().expect("it is id-mapped").maps, None);
}

#[test]
fn a_rootless_container_without_cgroup_namespace_cannot_write_the_tree() {
    let rootless = HostFacts { rootless: true, uid: 1000, gid: 1000, ..facts() };
    let shared = with(
        with_user_namespace(config()),
        "/mounts/-",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup"}),
    );
    let own = with(shared.clone(), "/linux/namespaces/-", json!({"type": "cgroup"}));
    let read_only = |config: &Value, facts: &HostFacts| {
        plan_for(config, facts).unwrap().mounts[1].attributes.set & 1 == 1
    };
    assert!(read_only(&shared, &rootless));
    assert!(!read_only(&own, &rootless));
    assert!(!read_only(&shared, &facts()));
}

#[test]
fn labels_reach_new_file_systems_but_proc_and_sysfs() {
    let facts = HostFacts { selinux: true, ..facts() };
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let mut config = changed("/linux/mountLabel", json!(label));
    for mount in
        [json!({"destination": "/a", "type": "tmpfs"}), json!({"destination": "/b", "type": "sysfs"})]
    {
        config = with(config, "/mounts/-", mount);
    }
    config["process"]["selinuxLabel"] = json!("u:r:t:s0");
    let plan = plan_for(&config, &facts).unwrap();
    let options = |index: usize| match &plan.mounts[index].source {
        MountSource::Filesystem { options, .. } => options.clone(),
        other => panic!("{other:?} is no new file system"),
    };
    assert_eq!(options(1), [("context".to_string(), Some(label.to_string()))]);
    assert_eq!((options(0), options(2)), (vec![], vec![]));
    assert_eq!(plan.mount_label.as_deref(), Some(label));
    assert_eq!(plan.process.and_then(|process| process.selinux_label).as_deref(), Some("u:r:t:s0"));
}

#[test]
fn empty_labels_are_no_labels() {
    let mut config = config();
    config["linux"]["mountLabel"] = json!("");
    config["process"]["selinuxLabel"] = json!("");
    config["process"]["apparmorProfile"] = json!("");
    assert!(plan(&config).is_ok());
    config["process"]["apparmorProfile"] = json!("unconfined");
    assert_eq!(plan(&config).unwrap().process.unwrap().apparmor_profile, None);
    let facts = HostFacts { apparmor: true, ..facts() };
    assert_eq!(
        plan_for(&config, &facts).unwrap().process.unwrap().apparmor_profile.as_deref(),
        Some("unconfined")
    );
}

#[test]
fn default_devices_follow_the_configured_ones() {
    let devices = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o100_640, "uid": 1, "gid": 2},
        {"path": "/dev//null", "type": "u", "major": 1, "minor": 3},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/run/pipe", "type": "p", "major": 9, "minor": 9},
        {"path": "/dev/loop0", "type": "b", "major": 7, "minor": 0}
    ]);
    let planned = plan(&changed("/linux/devices", devices.clone())).unwrap().devices;
    let rows: Vec<_> =
        planned.iter().map(|device| (&*device.path, device.kind, device.major, device.minor)).collect();
    assert_eq!(
        rows,
        [
            ("/dev/fuse", DeviceKind::Character, 10, 229),
            ("/dev/null", DeviceKind::Character, 1, 3),
            ("/run/pipe", DeviceKind::Fifo, 0, 0),
            ("/dev/loop0", DeviceKind::Block, 7, 0),
            ("/dev/zero", DeviceKind::Character, 1, 5),
            ("/dev/full", DeviceKind::Character, 1, 7),
            ("/dev/random", DeviceKind::Character, 1, 8),
            ("/dev/urandom", DeviceKind::Character, 1, 9),
            ("/dev/tty", DeviceKind::Character, 5, 0),
        ]
    );
    assert_eq!((planned[0].mode, planned[0].uid, planned[0].gid), (0o640, 1, 2));
    assert_eq!((planned[1].mode, planned[1].uid, planned[1].gid), (0o666, 0, 0));
    assert!(planned.iter().all(|device| !device.bind));
    let mapped = plan(&with(with_user_namespace(config()), "/linux/devices", devices)).unwrap().devices;
    let bound = |device: &hull_plan::DevicePlan| device.bind == (device.kind != DeviceKind::Fifo);
    assert!(mapped.iter().all(bound), "mknod fails in a user namespace, mkfifo does not");
    let inside = HostFacts { in_user_namespace: true, ..facts() };
    assert!(plan_for(&config(), &inside).unwrap().devices.iter().all(bound));
}

#[test]
fn nothing_is_made_in_a_dev_of_the_host() {
    let dev = |options: Value| json!({"destination": "/dev/", "type": "tmpfs", "source": "/dev", "options": options});
    let bound = plan(&changed("/mounts/-", dev(json!(["rbind"])))).unwrap();
    assert_eq!((bound.devices.len(), bound.default_dev_links), (0, false));
    let own = plan(&changed("/mounts/-", dev(json!([])))).unwrap();
    assert_eq!((own.devices.len(), own.default_dev_links), (6, true));
}

#[test]
fn sysctl_keys_become_paths_in_order() {
    let mut config = config();
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "2", "net/ipv4/conf/eth0.1/x": "3",
        "fs.mqueue.msg_max": "4", "kernel/domainname": "5"});
    let rows: Vec<_> =
        plan(&config).unwrap().sysctl.into_iter().map(|sysctl| (sysctl.path, sysctl.value)).collect();
    let row = |path: &str, value: &str| (path.to_string(), value.to_string());
    assert_eq!(
        rows,
        [
            row("fs/mqueue/msg_max", "4"),
            row("kernel/msgmax", "2"),
            row("kernel/domainname", "5"),
            row("net.ipv4.ip_forward".replace('.', "/").as_str(), "1"),
            row("net/ipv4/conf/eth0.1/x", "3"),
        ]
    );
}

#[test]
fn of_variables_with_one_name_the_last_wins() {
    let env = json!(["A=1", "B=2", "A=3", "C=", "A=x=y", "B=2"]);
    assert_eq!(plan(&changed("/process/env", env)).unwrap().process.unwrap().env, ["A=x=y", "B=2", "C="]);
}

#[test]
fn the_primary_group_is_always_a_supplementary_one() {
    let groups =
        |user: Value| plan(&changed("/process/user", user)).unwrap().process.unwrap().additional_gids;
    assert_eq!(groups(json!({"uid": 1, "gid": 5})), [5]);
    assert_eq!(groups(json!({"uid": 1, "gid": 5, "additionalGids": [7, 5, 7, 0]})), [5, 7, 0]);
}

#[test]
fn a_process_has_no_capability_that_is_not_listed() {
    let sets = |process: Option<Value>, facts: &HostFacts, config: Value| {
        let config = with(config, "/process/capabilities", process.unwrap_or(Value::Null));
        let plan = plan_for(&config, facts).unwrap();
        let texts: Vec<_> = plan.warnings.into_iter().map(|warning| warning.text).collect();
        (plan.process.unwrap().capabilities.unwrap(), texts)
    };
    assert_eq!(sets(None, &facts(), config()), (CapabilityPlan::default(), vec![]));
    let asked = json!({"bounding": ["CAP_SYS_RESOURCE", "CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]});
    let small = HostFacts { bounding: facts().bounding & !(1 << 24), ..facts() };
    let kill = CapabilityPlan { bounding: 32, permitted: 32, effective: 32, ..CapabilityPlan::default() };
    let warning = "ignoring capabilities that cannot be granted here: CAP_SYS_RESOURCE".to_string();
    assert_eq!(sets(Some(asked.clone()), &small, config()), (kill, vec![warning]));
    let both = CapabilityPlan { bounding: 32 | 1 << 24, ..kill };
    assert_eq!(sets(Some(asked.clone()), &small, with_user_namespace(config())), (both, vec![]));
    let old_kernel = HostFacts { last_capability: 23, ..facts() };
    assert_eq!(sets(Some(asked), &old_kernel, with_user_namespace(config())).0, kill);
}

#[test]
fn numbers_of_the_process_are_those_of_the_kernel() {
    let mut config = config();
    config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_CPU", "soft": 1, "hard": 2}, {"type": "RLIMIT_RTTIME", "soft": u64::MAX, "hard": u64::MAX}
    ]);
    config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 7});
    config["process"]["scheduler"] =
        json!({"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_KEEP_PARAMS"]});
    config["process"]["oomScoreAdj"] = json!(-1000);
    config["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    config["process"]["execCPUAffinity"] = json!({"initial": " 0-3, 7", "final": ""});
    config["process"]["user"] = json!({"uid": 5, "gid": 6, "umask": 0});
    config["process"]["noNewPrivileges"] = json!(true);
    let process = plan(&config).unwrap().process.unwrap();
    let limits: Vec<_> =
        process.rlimits.iter().map(|limit| (limit.resource, limit.soft, limit.hard)).collect();
    assert_eq!(limits, [(0, 1, 2), (15, u64::MAX, u64::MAX)]);
    assert_eq!(process.io_priority, Some(1 << 13 | 7));
    let scheduler = SchedulerPlan { policy: 1, priority: 10, flags: 0x10, ..SchedulerPlan::default() };
    assert_eq!(process.scheduler, Some(scheduler));
    assert_eq!((process.oom_score_adj, process.console_size), (Some(-1000), Some((24, 80))));
    assert_eq!((process.cpu_affinity_initial, process.cpu_affinity_final), (Some(vec![0x8f]), None));
    assert_eq!((process.uid, process.gid, process.umask, process.no_new_privileges), (5, 6, Some(0), true));
}

#[test]
fn a_configuration_without_process_can_be_created() {
    let plan = plan(&changed("/process", Value::Null)).unwrap();
    assert_eq!(plan.process, None);
    assert!(plan.summary().contains("process    none: it can be created but not started"));
}

#[test]
fn memory_policies_and_personalities_become_arguments() {
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0,65", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]});
    let planned = plan(&changed("/linux/memoryPolicy", policy)).unwrap().memory_policy.unwrap();
    assert_eq!((planned.mode, planned.nodes), (2 | 1 << 15 | 1 << 13, vec![1, 2]));
    let default = plan(&changed("/linux/memoryPolicy", json!({"mode": "MPOL_DEFAULT"})))
        .unwrap()
        .memory_policy
        .unwrap();
    assert_eq!((default.mode, default.nodes), (0, vec![]));
    let personality = |domain: &str| {
        plan(&changed("/linux/personality", json!({"domain": domain, "flags": []}))).unwrap().personality
    };
    assert_eq!((personality("LINUX"), personality("LINUX32")), (Some(0), Some(8)));
}

#[test]
fn hooks_keep_their_order_and_words() {
    let hooks = json!({
        "prestart": [{"path": "/a", "args": ["a", "1"], "env": ["X=1"], "timeout": 5}, {"path": "/b"}],
        "poststop": [{"path": "/c"}]
    });
    let planned = plan(&changed("/hooks", hooks)).unwrap().hooks;
    let rows: Vec<_> = planned
        .all()
        .map(|hook| (&*hook.field, &*hook.path, hook.args.len(), hook.env.len(), hook.timeout_seconds))
        .collect();
    assert_eq!(
        rows,
        [
            ("/hooks/prestart/0", "/a", 2, 1, Some(5)),
            ("/hooks/prestart/1", "/b", 0, 0, None),
            ("/hooks/poststop/0", "/c", 0, 0, None),
        ]
    );
}

#[test]
fn interfaces_move_in_the_order_of_their_names() {
    let devices =
        json!({"eth1": {}, "eth0": {"name": "ctr0"}, "wlan0": {"name": "w%d"}, "wlan1": {"name": "w%d"}});
    let rows: Vec<_> = plan(&changed("/linux/netDevices", devices))
        .unwrap()
        .net_devices
        .into_iter()
        .map(|device| (device.host, device.name))
        .collect();
    let row = |host: &str, name: &str| (host.to_string(), name.to_string());
    assert_eq!(rows, [row("eth0", "ctr0"), row("eth1", "eth1"), row("wlan0", "w%d"), row("wlan1", "w%d")]);
}

#[test]
fn what_would_be_the_hosts_is_refused_for_its_namespaces() {
    let mut config = config();
    config["linux"]["sysctl"] = json!({"net.a": "1", "kernel.msgmax": "2", "kernel.domainname": "d"});
    let whole = plan(&config).unwrap();
    let field = |plan: &Plan, kind| plan.refuse_in_hosts(kind).err().map(|refusal| refusal.field);
    for (kind, expected) in [
        (NamespaceKind::Network, Some("/linux/sysctl/net.a")),
        (NamespaceKind::Ipc, Some("/linux/sysctl/kernel.msgmax")),
        (NamespaceKind::Uts, Some("/linux/sysctl/kernel.domainname")),
        (NamespaceKind::Pid, None),
    ] {
        assert_eq!(field(&whole, kind).as_deref(), expected, "{kind:?}");
    }
    let devices = plan(&changed("/linux/netDevices", json!({"eth0": {}}))).unwrap();
    assert_eq!(field(&devices, NamespaceKind::Network).as_deref(), Some("/linux/netDevices"));
    let named = changed("/domainname", json!("dom"));
    assert_eq!(field(&plan(&named).unwrap(), NamespaceKind::Uts).as_deref(), Some("/hostname"));
    let named = plan(&with(named, "/hostname", Value::Null)).unwrap();
    assert_eq!(field(&named, NamespaceKind::Uts).as_deref(), Some("/domainname"));
    assert_eq!(field(&named, NamespaceKind::Network), None);
}

#[test]
fn what_others_plan_is_passed_on() {
    let mut config = config();
    config["linux"]["resources"] = json!({"pids": {"limit": 5}});
    config["linux"]["cgroupsPath"] = json!("/a/b");
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1});
    config["linux"]["maskedPaths"] = json!(["/proc//kcore", "/sys/firmware/"]);
    config["annotations"] = json!({"b": "", "a": "1"});
    config["domainname"] = json!("dom");
    let plan = plan(&config).unwrap();
    assert_eq!(plan.resources.and_then(|resources| resources.pids().map(|pids| pids.limit())), Some(5));
    assert_eq!(plan.cgroups_path.as_deref(), Some("/a/b"));
    assert_eq!(plan.seccomp.and_then(|seccomp| seccomp.default_errno_ret()), Some(1));
    assert_eq!(plan.masked_paths, ["/proc/kcore", "/sys/firmware"]);
    assert_eq!(
        plan.annotations.into_iter().collect::<Vec<_>>(),
        [("a".into(), "1".into()), ("b".into(), String::new())]
    );
    assert_eq!((plan.hostname.as_deref(), plan.domainname.as_deref()), (Some("box"), Some("dom")));
}
