//! What `spec` and `features` write.

mod common;

use common::facts;
use hull_plan::{FeatureLists, HostFacts, Plan, SeccompLists, default_spec, features_document, load};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

#[test]
fn the_default_configuration_can_be_planned_without_a_warning() {
    for (rootless, uid) in [(None, 0), (Some((1000, 1000)), 1000)] {
        for cgroup_v2 in [false, true] {
            let loaded = load(default_spec(rootless, cgroup_v2).as_bytes()).expect("it is valid");
            let facts = HostFacts { rootless: uid != 0, uid, gid: uid, cgroup_v2, ..facts() };
            let plan = Plan::build(&loaded.spec, &facts).expect("it can be carried out");
            assert_eq!((loaded.warnings, plan.warnings), (vec![], vec![]));
        }
    }
}

#[test]
fn members_come_in_the_order_of_the_peers() {
    let text = default_spec(None, false);
    assert!(
        text.starts_with("{\n\t\"ociVersion\": \"1.0.2\",\n\t\"process\": {\n\t\t\"terminal\": true,"),
        "{text}"
    );
    let places: Vec<_> = ["ociVersion", "process", "root", "hostname", "mounts", "linux"]
        .map(|name| text.find(&format!("\n\t\"{name}\":")).expect("every member is there"))
        .into();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_rootless_configuration_maps_the_caller_and_shares_the_network() {
    let spec = read(&default_spec(Some((1000, 1001)), false));
    assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    assert_eq!(spec["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 1001, "size": 1}]));
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}])
    );
    assert_eq!(spec["linux"].get("resources"), None);
    let sys = json!({"destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    assert_eq!(spec["mounts"][5], sys);
    assert!(!spec["mounts"].to_string().contains("gid="), "{}", spec["mounts"]);
}

#[test]
fn pure_cgroup_v2_adds_a_cgroup_namespace() {
    let kinds = |cgroup_v2| read(&default_spec(None, cgroup_v2))["linux"]["namespaces"].to_string();
    assert!(!kinds(false).contains("cgroup") && kinds(true).contains("cgroup"));
}

/// The peers differ in the version, the host name and, up to 1.1, in an ambient set.
#[test]
fn the_default_configuration_is_that_of_runc() {
    let directory = std::env::temp_dir().join(format!("hull-plan-spec-{}", std::process::id()));
    for rootless in [false, true] {
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let mut command = Command::new("runc");
        command.arg("spec").arg("--bundle").arg(&directory).args(rootless.then_some("--rootless"));
        if !command.status().is_ok_and(|status| status.success()) {
            println!("skipped: runc is not installed");
            return;
        }
        let text = std::fs::read_to_string(directory.join("config.json")).expect("runc wrote it");
        std::fs::remove_dir_all(&directory).expect("it is ours");
        let mut theirs = read(&text);
        theirs["ociVersion"] = json!("1.0.2");
        theirs["hostname"] = json!("hull");
        theirs["process"]["capabilities"].as_object_mut().expect("sets").remove("ambient");
        let ids = |list: &str| {
            theirs["linux"][list][0]["hostID"].as_u64().map(|id| u32::try_from(id).expect("an id"))
        };
        let caller = ids("uidMappings").zip(ids("gidMappings"));
        let cgroup_v2 = theirs["linux"]["namespaces"].to_string().contains("cgroup");
        assert_eq!(read(&default_spec(caller, cgroup_v2)), theirs);
    }
}

#[test]
fn features_name_what_is_accepted() {
    let lists = FeatureLists {
        seccomp: Some(SeccompLists { actions: vec!["SCMP_ACT_ALLOW".into()], ..SeccompLists::default() }),
        annotations: BTreeMap::from([("version".to_string(), "0.1".to_string())]),
        unsafe_annotations: vec!["org.systemd.property.".into()],
    };
    let text = features_document(&lists);
    assert!(
        text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": \"1.3.0\",\n"),
        "{text}"
    );
    let features = read(&text);
    for version in ["ociVersionMin", "ociVersionMax"] {
        let config = common::changed("/ociVersion", features[version].clone());
        assert!(common::plan(&config).is_ok(), "{version}");
    }
    for kind in features["hooks"].as_array().expect("a list") {
        let kind = kind.as_str().expect("a name");
        let config = common::changed("/hooks", json!({kind: [{"path": "/bin/true"}]}));
        assert_eq!(common::plan(&config).expect("it is valid").hooks.all().count(), 1, "{kind}");
    }
    for namespace in features["linux"]["namespaces"].as_array().expect("a list") {
        let config = common::changed("/linux/namespaces", json!([{"type": namespace, "path": "/ns"}]));
        let config = common::with(config, "/hostname", Value::Null);
        assert_eq!(common::plan(&config).expect("it is valid").entry.join.len(), 1, "{namespace}");
    }
    for mode in features["linux"]["memoryPolicy"]["modes"].as_array().expect("a list") {
        let nodes = if mode == "MPOL_DEFAULT" || mode == "MPOL_LOCAL" { "" } else { "0" };
        let policy =
            json!({"mode": mode, "nodes": nodes, "flags": [features["linux"]["memoryPolicy"]["flags"][0]]});
        assert!(common::plan(&common::changed("/linux/memoryPolicy", policy)).is_ok(), "{mode}");
    }
    assert_eq!(features["linux"]["capabilities"].as_array().map(Vec::len), Some(41));
    assert_eq!(features["linux"]["seccomp"]["actions"], json!(["SCMP_ACT_ALLOW"]));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], json!(true));
    assert_eq!(features["annotations"], json!({"version": "0.1"}));
    assert_eq!(features["potentiallyUnsafeConfigAnnotations"], json!(["org.systemd.property."]));
}

#[test]
fn features_without_seccomp_do_not_mention_it() {
    let features = read(&features_document(&FeatureLists::default()));
    assert_eq!(features["linux"].get("seccomp"), None);
    assert_eq!(features.get("annotations"), None);
    assert_eq!(features["potentiallyUnsafeConfigAnnotations"], json!([]));
}
