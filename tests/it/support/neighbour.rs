//! Programs that stand beside a test's server: a standby, a pooler. Each has a private folder that
//! belongs to the server's own account, and ends with the test process, even with a SIGKILL: it runs
//! under a small shell that reads from a pipe of ours.

use super::server::Client;
use super::wait::{PATIENCE, eventually};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tidewater::throwaway::Server;

/// Ends the program at the end of stdin, and removes the folder.
const SHELL: &str = r#"
folder=$1 signal=$2; shift 2
trap '' INT HUP TERM
"$@" </dev/null >>"$folder/log" 2>&1 &
pid=$!
while read -r order; do kill "-$order" "$pid"; done
kill "-$signal" "$pid"
wait "$pid"
rm -rf "$folder"
"#;

struct Neighbour {
    folder: PathBuf,
    account: (u32, u32),
    shell: Option<Child>,
}

impl Neighbour {
    /// A new folder beside the server's own.
    fn beside(server: &Server) -> Neighbour {
        let own = server.data_dir();
        let owner = fs::metadata(&own).expect("the server's folder");
        let parent = own.parent().and_then(Path::parent).expect("a parent");
        let folder = parent.join(format!("tidewater-{}", ulid::Ulid::generate()).to_lowercase());
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("its mode");
        let neighbour = Neighbour {
            folder,
            account: (owner.uid(), owner.gid()),
            shell: None,
        };
        neighbour.give(&neighbour.folder);
        neighbour
    }

    fn give(&self, path: &Path) {
        if fs::metadata(path).expect("a file").uid() != self.account.0 {
            chown(path, Some(self.account.0), Some(self.account.1)).expect("a new owner");
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a file");
        self.give(&path);
        path
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("LC_ALL", "C");
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != self.account.0) {
            command.uid(self.account.0).gid(self.account.1);
        }
        command
    }

    fn start(&mut self, signal: &str, program: &Path, words: &[&str]) {
        let mut command = self.command("sh");
        command
            .args(["-c", SHELL, "neighbour"])
            .arg(&self.folder)
            .arg(signal)
            .arg(program)
            .args(words)
            .stdin(Stdio::piped())
            .process_group(0);
        self.shell = Some(command.spawn().expect("sh"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Free now; another process may take it before the program does, which then fails to start.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A standby that follows a server.
pub struct Standby {
    neighbour: Neighbour,
    port: u16,
}

impl Standby {
    pub fn of(server: &Server) -> Standby {
        let mut neighbour = Neighbour::beside(server);
        let data = neighbour.folder.join("data");
        let copied = neighbour
            .command(server.bin_dir().join("pg_basebackup"))
            .args(["-h", server.host(), "-p", &server.port().to_string()])
            .args([
                "-U",
                "postgres",
                "-c",
                "fast",
                "-X",
                "stream",
                "-R",
                "--no-sync",
            ])
            .arg("-D")
            .arg(&data)
            .output()
            .expect("pg_basebackup");
        assert!(copied.status.success(), "{copied:?}");
        let port = free_port();
        let (data, number) = (data.to_str().expect("text").to_owned(), port.to_string());
        let own = format!("unix_socket_directories={}", neighbour.folder.display());
        let postgres = server.bin_dir().join("postgres");
        neighbour.start("QUIT", &postgres, &["-D", &data, "-p", &number, "-c", &own]);
        let standby = Standby { neighbour, port };
        eventually(PATIENCE, "a standby that answers", || {
            Client::try_connect(&standby.url()).is_ok()
        });
        standby
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }
}

/// PgBouncer in transaction mode, in front of a server.
pub struct Pooler {
    neighbour: Neighbour,
    port: u16,
}

impl Pooler {
    /// `None`, with a message, where the machine has no pgbouncer. With CI=true that fails the test.
    pub fn before(server: &Server, connections: usize) -> Option<Pooler> {
        let Some(program) = pgbouncer() else {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "pgbouncer is missing: run scripts/ensure-pgbouncer");
            println!("SKIPPED: pgbouncer is missing; scripts/ensure-pgbouncer installs it");
            return None;
        };
        let mut neighbour = Neighbour::beside(server);
        let users = neighbour.write("users.txt", "\"postgres\" \"\"\n");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={} port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 500\n",
            server.host(),
            server.port(),
            users.display()
        );
        let settings = neighbour.write("pgbouncer.ini", &settings);
        let settings = settings.to_str().expect("text").to_owned();
        neighbour.start("TERM", &program, &[&settings]);
        let pooler = Pooler { neighbour, port };
        eventually(PATIENCE, "a pooler that answers", || {
            Client::try_connect(&pooler.url()).is_ok()
        });
        Some(pooler)
    }

    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    pub fn log(&self) -> String {
        self.neighbour.log()
    }
}

fn pgbouncer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("TIDEWATER_PGBOUNCER").filter(|p| !p.is_empty());
    named
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("pgbouncer")))
        .chain(["/usr/sbin/pgbouncer".into()])
        .find(|program| program.is_file())
}
