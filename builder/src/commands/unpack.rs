//! `unpack`: an image becomes a bundle that any OCI runtime takes.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use hull_image::Platform;
use hull_sys::mount;

use super::Outcome;
use crate::bundle::{self, Wishes};
use crate::directory::open_directory;
use crate::host;
use crate::snapshot::overlay;
use crate::steps::accounts::Accounts;

/// How the root file system is made.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rootfs {
    /// Plain files.
    Copy,
    /// A mount whose lower layers are the store's.
    Overlay,
}

/// Arguments of `unpack`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the image
    image: String,
    /// Directory of the bundle; it must not exist, or be empty
    bundle: PathBuf,
    /// Plain files, or a mount
    #[arg(long, value_enum, default_value = "copy")]
    rootfs: Rootfs,
    /// The platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
}

/// Makes `rootfs` and `config.json`.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if matches!(arguments.rootfs, Rootfs::Overlay) {
        host::needs_root("mount a bundle's root file system")?;
    }
    let store = host::open_store()?;
    let (_, image) = host::find_image(&store, &arguments.image, arguments.platform.as_ref())?;
    // Nothing is made that would have to be taken away again.
    bundle::arguments(&image.config.config, &Wishes::default())?;
    let root = arguments.bundle.join("rootfs");
    fs::create_dir_all(&arguments.bundle)?;
    if fs::read_dir(&arguments.bundle)?.next().is_some() {
        return Err(format!("unpack: {} is not empty", arguments.bundle.display()).into());
    }
    fs::create_dir(&root)?;
    let mut skipped = 0;
    match arguments.rootfs {
        Rootfs::Copy => {
            let done = host::unpacker(&store)
                .apply(&image, open_directory(&root)?.as_fd())
                .map_err(host::with_hint)?;
            skipped = done.iter().map(|layer| layer.skipped.len()).sum();
        }
        Rootfs::Overlay => {
            let lowers = host::unpacker(&store).unpack(&image).map_err(host::with_hint)?.layers;
            let (upper, work) = (arguments.bundle.join("upper"), arguments.bundle.join("work"));
            fs::create_dir(&upper)?;
            fs::create_dir(&work)?;
            let tree =
                overlay::mount(&lowers, Some((&fs::canonicalize(&upper)?, &fs::canonicalize(&work)?)))?;
            mount::move_mount(tree.as_fd(), open_directory(&root)?.as_fd())?;
        }
    }
    let accounts = Accounts::read(open_directory(&root)?.as_fd())?;
    let user = accounts.process_user(&image.config.config.user)?;
    let name =
        arguments.bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let wishes = Wishes {
        hostname: "hull".to_owned(),
        cgroup: Some(format!("/hull-build-{name}")),
        ..Wishes::default()
    };
    let config = bundle::config("rootfs", &image.config, &user, &wishes)?;
    fs::write(arguments.bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    if skipped > 0 {
        eprintln!("hull-build: notice: {skipped} device nodes were left out: only root can make them");
    }
    Ok(ExitCode::SUCCESS)
}
