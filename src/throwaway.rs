//! A throw-away PostgreSQL server from the machine's own programs, for `tidewater demo` and the tests.
//!
//! Owns a private temporary folder and one server in it, both of which end with this process, even
//! with a SIGKILL: the server runs under a small shell that reads from a pipe of ours and stops it at
//! the end of file. Must never be used for data that anyone wants to keep: nothing is synced to disk
//! unless asked for. Knows no driver; readiness is read from the server's own `postmaster.pid`.
//!
//! Fails with SYNC-013 where the machine has no server, and with SYNC-016 and the end of the
//! server's log where it does not start.

mod binaries;
mod folder;

pub use binaries::find;

use crate::error::{Code, Error, Result};
use folder::Folder;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ulid::Ulid;

const USER: &str = "postgres";
const HOST: &str = "127.0.0.1";
const SETTINGS_FILE: &str = "throwaway.conf";
const SUPERVISOR: &str = include_str!("throwaway/supervisor.sh");
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often `postmaster.pid` is read while the server starts.
const READY_POLL: Duration = Duration::from_millis(5);
const PORT_ATTEMPTS: u32 = 10;
/// Below the range from which systems take the ports of outgoing connections, so that nobody takes
/// ours while the server is stopped.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether commits survive a crash of the machine. A crash of the server alone loses nothing either way.
    pub fsync: bool,
    /// The superuser's password, asked for with SCRAM; without one every login is trusted.
    pub password: Option<String>,
    /// Further settings, as in `postgresql.conf`; the value is quoted here.
    pub settings: Vec<(String, String)>,
}

/// A running server. Dropping it stops the server and removes its folder.
#[derive(Debug)]
pub struct Server {
    bin: PathBuf,
    folder: Folder,
    port: u16,
    options: Options,
    supervisor: Mutex<Supervisor>,
}

impl Server {
    /// Finds the programs, makes a cluster and starts it; returns when it answers.
    pub fn start(options: Options) -> Result<Server> {
        let bin = binaries::find()?;
        let folder = Folder::create()?;
        let mut supervisor = match prepare(&bin, &folder, &options) {
            Ok(supervisor) => supervisor,
            Err(e) => {
                folder.remove();
                return Err(e);
            }
        };
        // From here on the supervisor removes the folder, whatever happens.
        let mut attempt = 1;
        let port = loop {
            let port = free_port()?;
            match supervisor.start(&folder, port) {
                Ok(()) => break port,
                Err(_) if attempt < PORT_ATTEMPTS && port_was_taken(&folder) => attempt += 1,
                Err(e) => return Err(e),
            }
        };
        Ok(Server {
            bin,
            folder,
            port,
            options,
            supervisor: Mutex::new(supervisor),
        })
    }

    /// A URL for the superuser and the database `postgres`.
    pub fn url(&self) -> String {
        self.url_for(USER, self.options.password.as_deref(), "postgres")
    }

    /// A URL for another login or database. The parts are not escaped: use plain names.
    pub fn url_for(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|p| format!(":{p}")).unwrap_or_default();
        format!(
            "postgres://{user}{password}@{HOST}:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// The address it listens on, besides its Unix socket.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// Stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of `postgres` and `initdb`.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// The cluster's data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.data()
    }

    /// The folder of the Unix socket; empty where there is none.
    pub fn socket_dir(&self) -> &str {
        self.folder.socket_directory()
    }

    /// `psql`, where the machine has it.
    pub fn psql_path(&self) -> Option<PathBuf> {
        binaries::psql(&self.bin)
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        read_log(&self.folder)
    }

    /// Ends the server as a crash would: no checkpoint, every connection broken. Returns when it is gone.
    pub fn stop_immediate(&self) -> Result<()> {
        self.supervisor().stop()
    }

    /// Starts it again on the same port after [`Server::stop_immediate`].
    pub fn start_again(&self) -> Result<()> {
        self.supervisor().start(&self.folder, self.port)
    }

    /// A crash and a new start.
    pub fn restart(&self) -> Result<()> {
        let mut supervisor = self.supervisor();
        supervisor.stop()?;
        supervisor.start(&self.folder, self.port)
    }

    /// Has the server read `settings` over those it was started with; what an earlier reload set and
    /// this one does not name goes back. The server does so soon after, not before this returns, and
    /// settings that need a restart wait for one.
    pub fn reload(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut supervisor = self.supervisor();
        let mut text = configuration(&self.folder, &self.options);
        append_settings(&mut text, settings.iter().copied());
        self.folder.write(&settings_file(&self.folder), &text)?;
        supervisor.order("reload")
    }

    /// Leaves the server running after this process, and returns the command that stops it. Its
    /// folder goes when it stops.
    pub fn keep(self) -> Result<String> {
        let mut supervisor = self.supervisor();
        let Some(pid) = supervisor.pid else {
            return Err(broken("the throw-away PostgreSQL is not running"));
        };
        supervisor.order("release")?;
        supervisor.orders = None;
        Ok(format!("kill -INT {pid}"))
    }

    /// A panic in a test that held the lock leaves nothing half done that matters here.
    fn supervisor(&self) -> MutexGuard<'_, Supervisor> {
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shell of `supervisor.sh`. Dropping it closes the pipe and waits for the shell's clean-up.
#[derive(Debug)]
struct Supervisor {
    shell: Child,
    /// `None` once the server is released.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    /// `None` while no server runs.
    pid: Option<u32>,
}

impl Supervisor {
    fn spawn(bin: &Path, folder: &Folder) -> Result<Supervisor> {
        let mut shell = folder
            .command("sh")
            .args(["-c", SUPERVISOR, "tidewater-throwaway"])
            .arg(bin.join("postgres"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal to our group must not reach it before it has stopped the server.
            .process_group(0)
            .spawn()
            .map_err(|e| broken(format!("starting sh: {e}")))?;
        let (sender, answers) = channel();
        let orders = shell.stdin.take();
        if let Some(stdout) = shell.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(|l| l.ok()) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Supervisor {
            shell,
            orders,
            answers,
            pid: None,
        })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let sent = match &mut self.orders {
            Some(pipe) => writeln!(pipe, "{order}"),
            None => Ok(()),
        };
        sent.map_err(|e| {
            broken(format!(
                "the supervisor of the throw-away PostgreSQL is gone: {e}"
            ))
        })
    }

    fn start(&mut self, folder: &Folder, port: u16) -> Result<()> {
        if self.pid.is_some() {
            return Err(broken("the throw-away PostgreSQL is already running"));
        }
        let logged = read_log(folder).len();
        self.order(&format!("start {port}"))?;
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            match self.answers.recv_timeout(READY_POLL) {
                Ok(answer) => match answer.strip_prefix("started ") {
                    Some(pid) => self.pid = pid.parse().ok(),
                    None => {
                        self.pid = None;
                        return Err(did_not_start(folder, logged));
                    }
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(did_not_start(folder, logged)),
            }
            if self.pid.is_some_and(|pid| is_ready(folder, pid)) {
                return Ok(());
            }
        }
        Err(did_not_start(folder, logged))
    }

    fn stop(&mut self) -> Result<()> {
        if self.pid.take().is_none() {
            return Ok(());
        }
        self.order("stop")?;
        match self.answers.recv_timeout(STOP_DEADLINE) {
            Ok(_) => Ok(()),
            Err(_) => Err(broken("the throw-away PostgreSQL did not stop")),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A released server has taken the pipe with it, and its shell outlives us.
        if self.orders.take().is_some() {
            let _ = self.shell.wait();
        }
    }
}

/// Makes the cluster; nothing runs yet but the supervisor.
fn prepare(bin: &Path, folder: &Folder, options: &Options) -> Result<Supervisor> {
    initdb(bin, folder, options)?;
    folder.write(&settings_file(folder), &configuration(folder, options))?;
    let main = folder.data().join("postgresql.conf");
    let text = fs::read_to_string(&main)
        .map_err(|e| broken(format!("reading {}: {e}", main.display())))?;
    folder.write(&main, &format!("{text}\ninclude '{SETTINGS_FILE}'\n"))?;
    Supervisor::spawn(bin, folder)
}

fn initdb(bin: &Path, folder: &Folder, options: &Options) -> Result<()> {
    let password_file = folder.path().join("password");
    if let Some(password) = &options.password {
        folder.write(&password_file, password)?;
    }
    // C.UTF-8 is not on every system (musl, older macOS); C always is.
    let mut said = String::new();
    for locale in ["C.UTF-8", "C"] {
        let mut command: Command = folder.command(bin.join("initdb"));
        command
            .args(["--no-sync", "-U", USER, "-E", "UTF8"])
            .arg(format!("--locale={locale}"))
            .arg("-D")
            .arg(folder.data())
            .stdin(Stdio::null());
        if options.password.is_some() {
            command.args(["-A", "scram-sha-256", "--pwfile"]);
            command.arg(&password_file);
        } else {
            command.args(["-A", "trust"]);
        }
        let output = command
            .output()
            .map_err(|e| broken(format!("running {}/initdb: {e}", bin.display())))?;
        if output.status.success() {
            let _ = fs::remove_file(&password_file);
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Err(broken(format!("initdb failed: {said}")))
}

fn settings_file(folder: &Folder) -> PathBuf {
    folder.data().join(SETTINGS_FILE)
}

fn configuration(folder: &Folder, options: &Options) -> String {
    let durable = if options.fsync { "on" } else { "off" };
    let mut text = String::new();
    append_settings(
        &mut text,
        [
            ("listen_addresses", HOST),
            ("unix_socket_directories", folder.socket_directory()),
            ("max_connections", "200"),
            ("fsync", durable),
            ("full_page_writes", durable),
            ("logging_collector", "off"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ]
        .into_iter()
        .chain(
            options
                .settings
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str())),
        ),
    );
    text
}

/// The last of two lines with one name wins.
fn append_settings<'a>(text: &mut String, settings: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, value) in settings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
}

/// A port that is free now. Another process may take it before the server does; `start` tries again.
fn free_port() -> Result<u16> {
    for _ in 0..PORT_ATTEMPTS {
        let span = u128::from(PORTS.end - PORTS.start);
        let offset = u16::try_from(Ulid::generate().random() % span).unwrap_or(0);
        let port = PORTS.start + offset;
        if TcpListener::bind((HOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(broken(format!("no free port was found on {HOST}")))
}

fn port_was_taken(folder: &Folder) -> bool {
    read_log(folder).contains("could not create any TCP/IP sockets")
}

/// `postmaster.pid` says `ready` on its eighth line once connections are accepted.
fn is_ready(folder: &Folder, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(folder.data().join("postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines().map(str::trim);
    lines.next().and_then(|l| l.parse().ok()) == Some(pid) && lines.nth(6) == Some("ready")
}

fn read_log(folder: &Folder) -> String {
    let bytes = fs::read(folder.log()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The error holds what was logged since `logged`: the rest belongs to earlier starts.
fn did_not_start(folder: &Folder, logged: usize) -> Error {
    let log = read_log(folder);
    let said = log.get(logged..).unwrap_or(&log).trim();
    broken(format!("the throw-away PostgreSQL did not start: {said}"))
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(
        Code::RemoteNotUsable,
        message,
        "see the cause above; TIDEWATER_PG_BIN chooses another installation of PostgreSQL",
    )
}
