use super::read::*;
use super::*;

#[test]
fn an_empty_group_has_the_members_that_are_never_left_out() {
    let text = serde_json::to_string(&Statistics::default()).unwrap();
    let expected = concat!(
        r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"#,
        r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
        r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
        r#""sched_relax_domain_level":0},"#,
        r#""memory":{"usage":{"limit":0,"failcnt":0},"swap":{"limit":0,"failcnt":0},"#,
        r#""kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0}},"#,
        r#""pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn pressure_is_read_with_its_shares() {
    let text =
        "some avg10=1.50 avg60=2.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.25 avg300=0.00 total=9\n";
    let json = serde_json::to_string(&pressure(text).unwrap()).unwrap();
    let expected = concat!(
        r#"{"some":{"avg10":1.5,"avg60":2,"avg300":0,"total":77},"#,
        r#""full":{"avg10":0,"avg60":0.25,"avg300":0,"total":9}}"#,
    );
    assert_eq!(json, expected);
    assert_eq!(pressure(""), None);
    assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap().full.total, 0);
}

#[test]
fn formats_are_read_and_nonsense_is_nothing() {
    assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
    assert_eq!(list("\n"), Vec::<u16>::new());
    assert_eq!(usage_all("cpu user system\n0 7 3\n1 8 4\n"), (vec![3, 4], vec![7, 8]));
    assert_eq!(pairs("a 1\nb x\nc 3\n").into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("c".into(), 3)]);
    let entry = |op: &str, value| BlkioEntry { major: 8, minor: 1, op: op.to_owned(), value };
    assert_eq!(
        block_entries("8:1 Read 4096\n8:1 Total 4096\n8:1 7\nTotal 4096\n"),
        [entry("Read", 4096), entry("Total", 4096), entry("", 7)]
    );
    let (bytes, requests) = io_stat("8:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nx\n");
    assert_eq!(bytes, [entry("Read", 1), entry("Write", 2)]);
    assert_eq!(requests, [entry("Read", 3), entry("Write", 4)]);
}
