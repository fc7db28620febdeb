//! The losers of conflicts as JSON files, beside the rows in the conflicts table.
//!
//! Files are written after the conflict is stored and found again by the missing path, so a crash in
//! between loses none. Owner only: they hold rows.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::report::Conflict;
use crate::sqlite::conflicts::{set_file, without_file};
use crate::sqlite::inspect;
use crate::sqlite::local::Local;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Conflicts of one round.
const ROUND: usize = 100;

/// Writes the files that are missing.
pub fn write_missing(local: &mut Local, config: &Config) -> Result<()> {
    if !config.conflict.preserve_original {
        return Ok(());
    }
    loop {
        let ids = without_file(local.conn(), ROUND)?;
        if ids.is_empty() {
            return Ok(());
        }
        let folder = config.conflict_directory()?;
        for id in &ids {
            let conflict = inspect::conflict(local.conn(), id)?;
            let path = write(&folder, &conflict)?;
            set_file(local.conn(), id, &path.to_string_lossy())?;
        }
    }
}

fn write(folder: &Path, conflict: &Conflict) -> Result<PathBuf> {
    let path = folder.join(format!("{}.json", conflict.id));
    let failed = |e: &std::io::Error| {
        Error::new(
            Code::LocalUnusable,
            format!("writing {}: {e}", path.display()),
            "make [conflict] directory writable, or set preserve_original = false",
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| failed(&e))?;
    let text = serde_json::to_string_pretty(conflict).unwrap_or_default();
    let temporary = path.with_extension("json.part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|e| failed(&e))?;
    std::path::absolute(&path).map_err(|e| failed(&e))
}
