//! Cache mounts on the disk: which there are, and when each was last used.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hull_image::Store;

use super::Cache;
use crate::error::{Error, Result};

/// What one `--mount=type=cache` keeps.
pub(crate) struct CacheMount {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// When a step last had it.
    pub(crate) used: SystemTime,
}

impl Cache<'_> {
    /// All cache mounts.
    pub(crate) fn mounts(&self) -> Result<Vec<CacheMount>> {
        let directory = self.directory.join("mounts");
        let found = self.names("mounts")?.into_iter().map(|name| {
            let path = directory.join(name);
            let used =
                fs::metadata(&path).and_then(|meta| meta.modified()).map_err(Error::io("look at", &path))?;
            Ok(CacheMount { path, used })
        });
        found.collect()
    }
}

impl CacheMount {
    /// Notes that the mount in this directory is used now.
    pub(crate) fn touch(directory: &Path) -> Result<()> {
        let times = FileTimes::new().set_modified(SystemTime::now());
        let outcome = File::open(directory).and_then(|file| file.set_times(times));
        outcome.map_err(Error::io("set the time of", directory))
    }

    /// Removes it; nobody may be using the store. Once it has begun no step finds any of it.
    pub(crate) fn remove(&self, store: &Store) -> Result<()> {
        Ok(store.discard(&self.path)?)
    }
}
