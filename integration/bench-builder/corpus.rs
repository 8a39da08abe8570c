//! The cases: Dockerfiles and contexts, the same bytes at each run.

use std::fs;
use std::io::Write;
use std::path::Path;

use hull_testkit::call;

use crate::builder::{Builder, LIMIT};

/// One thing to build.
pub struct Case {
    /// Its name, and its image's.
    pub name: &'static str,
    dockerfile: &'static str,
    /// More arguments of `build`.
    pub arguments: &'static [&'static str],
    /// Whether Debian's buildah lacks what it uses.
    pub only_hull: bool,
    /// Whether pushing it is measured too.
    pub pushed: bool,
    fill: fn(&Path),
    /// The file that the edit changes.
    edited: &'static str,
}

const PLAIN: Case = Case {
    name: "",
    dockerfile: "",
    arguments: &[],
    only_hull: false,
    pushed: false,
    fill: nothing,
    edited: "app.txt",
};

/// All cases; the two big ones last.
pub const CASES: [Case; 8] = [
    Case {
        name: "static-site",
        dockerfile: "FROM bench-base\nCOPY site /var/www\nRUN find /var/www -type f | wc -l\nCOPY app.txt /\nEXPOSE 80\nCMD [\"httpd\", \"-f\"]\n",
        fill: |at| files(&at.join("site"), 280, 4 << 10),
        ..PLAIN
    },
    Case {
        name: "heredoc",
        dockerfile: "FROM bench-base\nCOPY app.txt /\nRUN <<EOF\nset -e\nmkdir -p /app\ndate +%Y > /dev/null\nEOF\nRUN cat <<EOF > /app/one\nhello\nEOF\nCOPY <<EOF /app/two\ntext\nEOF\n",
        only_hull: true,
        ..PLAIN
    },
    Case {
        name: "secrets-binds",
        dockerfile: "FROM bench-base\nCOPY app.txt /\nRUN --mount=type=secret,id=token wc -c /run/secrets/token\nRUN --mount=type=bind,source=app.txt,target=/in.txt cat /in.txt\nRUN --mount=type=tmpfs,target=/scratch touch /scratch/x\nRUN --network=none true\n",
        arguments: &["--secret", "id=token,src=/etc/hostname"],
        only_hull: true,
        ..PLAIN
    },
    Case {
        name: "copy-flags",
        dockerfile: "FROM bench-base\nCOPY --link tree /a\nCOPY --chown=5:6 --chmod=640 tree /b\nCOPY --parents tree/./d1 /c/\nCOPY --exclude=*7 tree /d\nCOPY app.txt /\n",
        only_hull: true,
        fill: |at| files(&at.join("tree"), 2000, 1 << 10),
        ..PLAIN
    },
    Case { name: "many-layers", dockerfile: MANY_RUNS, ..PLAIN },
    Case { name: "parallel-dag", dockerfile: PARALLEL, ..PLAIN },
    Case {
        name: "monorepo",
        dockerfile: "FROM bench-base\nCOPY . /src\nRUN ls /src | wc -l\n",
        fill: monorepo,
        ..PLAIN
    },
    Case {
        name: "big-copy",
        dockerfile: "FROM bench-base\nCOPY data /data\nCOPY app.txt /\n",
        fill: big,
        pushed: true,
        ..PLAIN
    },
];

const MANY_RUNS: &str = include_str!("many-layers.Dockerfile");
const PARALLEL: &str = include_str!("parallel-dag.Dockerfile");

/// Makes a case's context.
pub fn make(case: &Case, context: &Path) {
    fs::create_dir_all(context).expect("the scratch directory can be written");
    (case.fill)(context);
    write(&context.join("Dockerfile"), case.dockerfile.as_bytes());
    write(&context.join("app.txt"), b"first version\n");
}

/// Changes one small file, to something that no edit before had.
pub fn edit(case: &Case, context: &Path) {
    let path = context.join(case.edited);
    let old = fs::read(&path).unwrap_or_default();
    write(&path, &[&old[..], b"edited\n"].concat());
}

/// Gives all files of a context a new change time, as if they had just been made.
pub fn renew(at: &Path) {
    for entry in fs::read_dir(at).expect("the context is there").flatten() {
        let metadata = entry.metadata().expect("the context stays as it is");
        if metadata.is_dir() {
            renew(&entry.path());
        } else {
            fs::set_permissions(entry.path(), metadata.permissions()).expect("the context is ours");
        }
    }
}

/// The image that all cases begin with: busybox, loaded into every builder.
pub fn base(scratch: &Path, builders: &[Builder]) {
    let context = scratch.join("base");
    fs::create_dir_all(&context).expect("the scratch directory can be written");
    fs::copy("/bin/busybox", context.join("busybox")).expect("busybox is installed");
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir -m 1777 /tmp\nCMD [\"sh\"]\n";
    write(&context.join("Dockerfile"), text.as_bytes());
    let archive = scratch.join("base.tar");
    let output = format!("type=docker,dest={}", archive.display());
    let case = Case { name: "bench-base", ..PLAIN };
    let hull = builders.iter().find(|builder| builder.is_hull).expect("there is always this project's");
    call(hull.build(&case, &context, false).args(["-o", &output]), LIMIT).done();
    builders
        .iter()
        .filter(|builder| !builder.is_hull)
        .for_each(|builder| builder.load(&archive, "bench-base"));
}

fn nothing(_: &Path) {}

/// `count` files of up to `size` bytes of text, a hundred a directory.
pub fn files(at: &Path, count: u32, size: u32) {
    let mut seed = count;
    for number in 0..count {
        let directory = at.join(format!("d{}", number / 100));
        fs::create_dir_all(&directory).expect("the scratch directory can be written");
        let length = next(&mut seed) % size + 1;
        write(&directory.join(format!("f{number}")), &text(&mut seed, length as usize));
    }
}

/// 21 000 entries of 4 KB with 190 ignore rules, a fifth of them bringing something back.
fn monorepo(at: &Path) {
    for package in 0..100 {
        files(&at.join(format!("packages/p{package}/src")), 200, 8 << 10);
    }
    let mut rules = String::new();
    for number in 0..150 {
        rules.push_str(&format!("**/build{number}\n"));
    }
    for number in 0..40 {
        rules.push_str(&format!("!packages/p{number}/keep{number}\n"));
    }
    write(&at.join(".dockerignore"), rules.as_bytes());
}

/// 2 GiB in 8 files, every other one incompressible.
fn big(at: &Path) {
    let data = at.join("data");
    fs::create_dir_all(&data).expect("the scratch directory can be written");
    let mut seed = 1u32;
    for number in 0..8 {
        let mut file = fs::File::create(data.join(format!("f{number}"))).expect("a file can be made");
        for _ in 0..256 {
            let block = if number % 2 == 0 { noise(&mut seed, 1 << 20) } else { text(&mut seed, 1 << 20) };
            file.write_all(&block).expect("there is space for 2 GiB");
        }
    }
}

fn noise(seed: &mut u32, length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| next(seed).to_le_bytes()).flatten().take(length).collect()
}

/// Words that compress about as source code does.
fn text(seed: &mut u32, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "fn", "let", "return", "struct", "value", "self", "index", "match", "buffer", "error", "path",
        "name", "=", "();\n", "{\n    ", "}\n",
    ];
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        let number = next(seed);
        bytes.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
        if number.is_multiple_of(5) {
            bytes.extend_from_slice(format!("{:x}", number >> 12).as_bytes());
        }
        bytes.push(b' ');
    }
    bytes.truncate(length);
    bytes
}

/// A small generator: the same numbers at each run (xorshift).
fn next(seed: &mut u32) -> u32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    *seed
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("the scratch directory can be written");
}
