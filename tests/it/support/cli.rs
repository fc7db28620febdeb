//! The program as its users run it: a process, a folder, an environment with nothing else in it.

use super::server::Schema;
use super::wait::{PATIENCE, eventually_some, next_millisecond};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidewater");

/// How a process ended, and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; the negated signal where one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("not one JSON document: {e}\n{self:#?}"))
    }

    /// Fails the test unless the process ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Output {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.expect_code(0)
    }
}

/// The program in `folder`, with no environment but a path and a home.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).env_clear().env("HOME", folder);
    for kept in ["PATH", "TMPDIR", "TIDEWATER_PG_BIN"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// Runs the program to its end in `folder`, where no configuration needs to be.
#[track_caller]
pub fn tidewater(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = command(folder);
    command.args(arguments);
    Running::spawn(command).wait(PATIENCE * 2)
}

/// A process in the background; killed when it is dropped.
pub struct Running {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

impl Running {
    /// Output goes to files, so that nobody has to read it for the process to go on.
    pub fn spawn(mut command: Command) -> Running {
        let stdout = NamedTempFile::new().expect("a temporary file");
        let stderr = NamedTempFile::new().expect("a temporary file");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.reopen().expect("the file again"))
            .stderr(stderr.reopen().expect("the file again"))
            .spawn()
            .unwrap_or_else(|e| panic!("{PROGRAM}: {e}"));
        Running {
            child,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn stdout(&self) -> String {
        text(self.stdout.path())
    }

    pub fn stderr(&self) -> String {
        text(self.stderr.path())
    }

    /// Sends `libc::SIGTERM` or another signal.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        // SAFETY: kill has no memory effects; the child is not reaped before `wait`, so the id is its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal} to {pid}");
    }

    /// SIGKILL, and waits for the end.
    #[track_caller]
    pub fn kill(self) -> Output {
        self.signal(libc::SIGKILL);
        self.wait(PATIENCE)
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for its end; fails the test, with what it said, at the deadline.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Output {
        let what = format!("the end of process {}", self.pid());
        let end = std::time::Instant::now() + deadline;
        let status = eventually_some(deadline + PATIENCE, &what, || {
            let status = self.ended();
            assert!(
                status.is_some() || std::time::Instant::now() < end,
                "not within {deadline:?}: {what}\n{}\n{}",
                self.stdout(),
                self.stderr()
            );
            status
        });
        Output {
            code: status
                .code()
                .unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// One device: a folder with the app's file and a configuration. Nothing is initialised yet.
pub struct Device {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Device {
    /// Named `name`, for a workspace in `schema`.
    pub fn new(schema: &Schema, name: &str) -> Device {
        Device::with_url(schema.url(), schema.name(), name, "")
    }

    /// By another URL, such as one through a proxy. `more` is appended to the configuration: sections
    /// other than `[local]`, `[device]`, `[remote]` and `[metrics]`.
    pub fn with_url(url: &str, schema: &str, name: &str, more: &str) -> Device {
        let device = Device {
            folder: TempDir::with_prefix(format!("tidewater-{name}-")).expect("a folder"),
            environment: Vec::new(),
        };
        // No endpoint: the devices of one test would meet on its port.
        device.configure(&format!(
            "[local]\npath = \"app.db\"\n\n[device]\nname = \"{name}\"\n\n\
             [remote]\nurl = \"{url}\"\nschema = \"{schema}\"\n\n\
             [metrics]\nlisten = \"\"\n\n{more}"
        ));
        device
    }

    /// Replaces the configuration.
    pub fn configure(&self, text: &str) {
        use std::io::Write;
        let path = self.config();
        let _ = fs::remove_file(&path);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Sets a variable for every later run.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.unset_env(name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(n, _)| n != name);
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.folder().join("tidewater.toml")
    }

    pub fn db(&self) -> PathBuf {
        self.folder().join("app.db")
    }

    /// A connection as the app would open it.
    #[track_caller]
    pub fn sqlite(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.db()).expect("the app's file");
        connection
            .busy_timeout(Duration::from_secs(5))
            .expect("a busy timeout");
        connection
    }

    /// Runs statements as the app.
    #[track_caller]
    pub fn sql(&self, statements: &str) {
        self.sqlite()
            .execute_batch(statements)
            .unwrap_or_else(|e| panic!("{statements}: {e}"));
        next_millisecond();
    }

    /// The rows of a query as text, in SQLite's own notation: `NULL`, `x'00'` for a blob.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let connection = self.sqlite();
        let read = || -> rusqlite::Result<Vec<Vec<String>>> {
            let mut statement = connection.prepare(query)?;
            let columns = statement.column_count();
            statement
                .query_map([], |row| {
                    (0..columns).map(|i| Ok(cell(row.get_ref(i)?))).collect()
                })?
                .collect()
        };
        read().unwrap_or_else(|e| panic!("{query}: {e}"))
    }

    /// The program with this device's configuration and environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.folder());
        command
            .env("TIDEWATER_CONFIG", self.config())
            .envs(self.environment.iter().map(|(n, v)| (n, v)))
            .args(arguments);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn tw(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).wait(PATIENCE * 2)
    }

    /// Runs it to its end with `--json`; fails the test unless it ends with 0.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        self.tw(&[&["--json"], arguments].concat()).ok().json()
    }

    /// Starts it in the background.
    #[track_caller]
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::spawn(self.command(arguments))
    }
}

fn cell(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    use std::fmt::Write;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => format!("{r:?}"),
        ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
        ValueRef::Blob(b) => {
            let mut text = b.iter().fold("x'".to_owned(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            text.push('\'');
            text
        }
    }
}
