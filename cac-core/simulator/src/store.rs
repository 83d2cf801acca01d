//! The data file and the certificate beside it, on disk. Not what stands in them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Error;
use crate::world::World;

/// Replaces a file in one step; only its owner may read it.
pub(crate) fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut handle = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    handle.write_all(content)?;
    handle.sync_data()?;
    fs::rename(fresh, file)
}

/// The saved world, or nothing when there is no file yet.
pub(crate) fn load(file: &Path) -> Result<Option<World>, Error> {
    let data = |reason: String| Error::Data {
        file: file.to_owned(),
        reason,
    };
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).map_err(|e| data(e.to_string()))?;
            }
            return Ok(None);
        }
        Err(error) => return Err(data(error.to_string())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        data(format!(
            "it does not hold a simulator's state ({error}); move it away to begin anew"
        ))
    })
}
