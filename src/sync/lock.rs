//! One instance per device: an advisory lock on a file beside the SQLite file.
//!
//! The operating system releases it with the process, however that ends. The file's content tells who
//! holds it and how its circuit stands: `PID run|command closed|open|half_open`. It stands here and not
//! in the app's file, which would have to be locked for every probe of a remote that is away.

use crate::error::{Code, Error, Result};
use crate::report::Circuit;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder of tidewater's own files, beside the SQLite file.
pub fn folder(db: &Path) -> PathBuf {
    db.parent().unwrap_or(Path::new(".")).join(".tidewater")
}

fn path(db: &Path) -> PathBuf {
    let name = db.file_name().unwrap_or_default().to_string_lossy();
    folder(db).join(format!("{name}.lock"))
}

/// The device is ours as long as this lives.
pub struct Held {
    file: File,
    role: &'static str,
}

impl Held {
    /// Tells others how the circuit stands. What cannot be told is not worth an error.
    pub fn tell(&self, circuit: Circuit) {
        if let Err(e) = self.write(circuit) {
            tracing::debug!(error = %e, "the lock file cannot be written");
        }
    }

    /// One write, so that nobody reads a half; the padding covers what stood there.
    fn write(&self, circuit: Circuit) -> std::io::Result<()> {
        let line = format!(
            "{} {} {:<9}\n",
            std::process::id(),
            self.role,
            circuit.as_str()
        );
        let mut file = &self.file;
        file.rewind()?;
        file.write_all(line.as_bytes())?;
        file.set_len(line.len() as u64)
    }
}

/// Who holds the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it is the service, which answers requests.
    pub service: bool,
    /// How the service's circuit stands.
    pub circuit: Circuit,
}

impl Holder {
    fn read(text: &str) -> Holder {
        let mut words = text.split_whitespace();
        Holder {
            pid: words.next().and_then(|w| w.parse().ok()),
            service: words.next() == Some("run"),
            circuit: words.next().and_then(Circuit::parse).unwrap_or_default(),
        }
    }
}

fn unusable(db: &Path, e: &std::io::Error) -> Error {
    Error::new(
        Code::LocalUnusable,
        format!("the lock {}: {e}", path(db).display()),
        "make the file's folder writable for the user that runs tidewater",
    )
}

fn open(db: &Path) -> Result<File> {
    std::fs::create_dir_all(folder(db)).map_err(|e| unusable(db, &e))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path(db))
        .map_err(|e| unusable(db, &e))
}

/// How often a service tries to take the device, and how far apart: whoever asks for the status has a
/// look at the lock, which holds it for a moment.
const TRIES: u32 = 20;
const APART: Duration = Duration::from_millis(5);

/// How long a command waits for another one.
const COMMAND: Duration = Duration::from_secs(30);

/// Takes the device, or says who has it.
pub fn take(db: &Path, service: bool) -> Result<std::result::Result<Held, Holder>> {
    let mut file = open(db)?;
    let mut locked = file.try_lock();
    for _ in 1..TRIES {
        if !service || !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(APART);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) if !is_in_place(db, &file) => take(db, service),
        Ok(()) => {
            let role = if service { "run" } else { "command" };
            let held = Held { file, role };
            held.write(Circuit::Closed).map_err(|e| unusable(db, &e))?;
            Ok(Ok(held))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)
                .map_err(|e| unusable(db, &e))?;
            Ok(Err(Holder::read(&text)))
        }
        Err(TryLockError::Error(e)) => Err(unusable(db, &e)),
    }
}

/// Takes the device for a command that changes it whole. Another command is waited for, for a while; a
/// service is not.
pub fn take_for_command(db: &Path) -> Result<Held> {
    let until = Instant::now() + COMMAND;
    loop {
        match take(db, false)? {
            Ok(held) => return Ok(held),
            Err(holder) if holder.service || Instant::now() > until => {
                return Err(taken(db, holder));
            }
            Err(_) => std::thread::sleep(APART),
        }
    }
}

/// Gives the device up for good: the lock goes, and the folder with it where nothing else is in it.
pub fn remove(db: &Path, held: Held) {
    // While it is held: whoever opened the same file takes no lock that anybody looks at.
    drop(std::fs::remove_file(path(db)));
    drop(held);
    drop(std::fs::remove_dir(folder(db)));
}

/// Whether the file that was locked is the one under the path: it may have been removed in between.
fn is_in_place(db: &Path, file: &File) -> bool {
    let place = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), std::fs::metadata(path(db))) {
        (Ok(a), Ok(b)) => place(a) == place(b),
        _ => false,
    }
}

/// Who holds the device, if anybody does. Never takes it, never creates anything.
pub fn holder(db: &Path) -> Option<Holder> {
    if !path(db).exists() {
        return None;
    }
    match take_shared(db) {
        Some(true) | None => None,
        Some(false) => {
            let text = std::fs::read_to_string(path(db)).unwrap_or_default();
            Some(Holder::read(&text))
        }
    }
}

/// Whether a shared lock was to be had: it is not while somebody holds the device.
fn take_shared(db: &Path) -> Option<bool> {
    let file = File::open(path(db)).ok()?;
    match file.try_lock_shared() {
        Ok(()) => Some(true),
        Err(TryLockError::WouldBlock) => Some(false),
        Err(TryLockError::Error(_)) => None,
    }
}

/// SYNC-010.
pub fn taken(db: &Path, holder: Holder) -> Error {
    let who = holder
        .pid
        .map_or_else(|| "another process".to_owned(), |p| format!("process {p}"));
    Error::new(
        Code::AnotherInstance,
        format!("{who} holds the device {}", db.display()),
        "stop it; to sync at once, `tidewater now` works through a running service",
    )
}
