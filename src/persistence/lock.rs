//! One server a data folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held for as long as this value lives; the kernel gives it back when the
/// process ends, however it ends. It is a file of its own, so that
/// `onsale verify` may read the store beside a live server.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why a data folder can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another server runs on it.
    #[error("another onsale server is running on {}", .0.display())]
    Taken(PathBuf),
    /// It can't be written.
    #[error("the data folder {} can't be used: {source}", folder.display())]
    Unusable {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataLock {
    /// Makes `folder` if it is missing, and takes it.
    ///
    /// # Errors
    /// If another process has it, or it can't be written.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable {
            folder: folder.to_path_buf(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("onsale.lock"))
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(folder.to_path_buf())),
            Err(errno) => Err(unusable(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataLock::take(folder.path()).unwrap();
        assert!(matches!(
            DataLock::take(folder.path()),
            Err(LockError::Taken(_))
        ));
        drop(first);
        DataLock::take(folder.path()).unwrap();
    }
}
