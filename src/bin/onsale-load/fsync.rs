//! What a durable write costs in a folder: a figure about durability means
//! little without it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// How many writes are timed.
const WRITES: usize = 200;
/// One page of SQLite.
const WRITE_BYTES: usize = 4096;

/// The median time of writing a page to a file in `folder` and waiting for
/// `fdatasync`.
///
/// # Errors
/// If the folder can't be written.
pub(crate) fn p50(folder: &Path) -> std::io::Result<Duration> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("fsync-{}.tmp", std::process::id()));
    let times = times(&path);
    std::fs::remove_file(&path)?;
    let mut times = times?;
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

fn times(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = File::create(path)?;
    let page = [0x5a; WRITE_BYTES];
    // The file keeps its size, as a WAL does once it has been through a
    // checkpoint; growing would be timed otherwise.
    for _ in 0..WRITES {
        file.write_all(&page)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    (0..WRITES)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&page)?;
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect()
}
