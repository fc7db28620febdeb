//! The service under systemd: what it tells, and the unit that is shipped.

use crate::stories::messages;
use crate::support::cli::{Device, Running, command};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The socket that systemd would listen on.
struct Systemd {
    folder: TempDir,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Systemd {
    fn new() -> Systemd {
        let folder = TempDir::new().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        Systemd {
            folder,
            socket,
            heard: Vec::new(),
        }
    }

    fn run(&self, device: &Device, arguments: &[&str]) -> Running {
        let mut command = device.command(arguments);
        command
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "4000000");
        Running::spawn(command)
    }

    /// Waits for a line; those before it are kept in `heard`.
    #[track_caller]
    fn hears(&mut self, line: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut buffer = [0; 4096];
            if let Ok(n) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let found = lines.iter().any(|l| l == line);
                self.heard.extend(lines);
                if found {
                    return;
                }
            }
            assert!(Instant::now() < end, "no {line}: {:?}", self.heard);
        }
    }
}

#[test]
fn systemd_is_told_of_the_start_the_state_the_pulse_and_the_end() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    let mut systemd = Systemd::new();
    let service = systemd.run(&device, &["run"]);
    systemd.hears("READY=1");
    // Ready means that the device is held.
    device.tw(&["run"]).expect_code(5);
    systemd.hears("STATUS=in step");
    systemd.hears("WATCHDOG=1");
    device.tw(&["pause"]).ok();
    systemd.hears("STATUS=paused");
    // Still fed while there is nothing to do.
    systemd.hears("WATCHDOG=1");
    service.signal(libc::SIGTERM);
    systemd.hears("STOPPING=1");
    service.wait(PATIENCE).ok();
    let ready = systemd.heard.iter().filter(|l| *l == "READY=1").count();
    assert_eq!(ready, 1, "{:?}", systemd.heard);
}

#[test]
fn a_service_that_waits_for_its_file_is_not_ready_and_says_what_for() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    let mut systemd = Systemd::new();
    let service = systemd.run(&device, &["run", "--init"]);
    systemd.hears("STATUS=waiting for the app's file and its tables");
    assert!(!systemd.heard.iter().any(|l| l == "READY=1"));
    device.sql("create table notes (id text primary key, body text)");
    systemd.hears("READY=1");
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn without_the_server_it_is_ready_and_says_why_changes_queue() {
    let schema = Schema::new();
    let mut device = messages(&schema, schema.url(), "a", "");
    device.set_env(
        "TIDEWATER_REMOTE__URL",
        "postgres://nobody@127.0.0.1:1/none?sslmode=disable",
    );
    let mut systemd = Systemd::new();
    let service = systemd.run(&device, &["run"]);
    systemd.hears("READY=1");
    eventually(PATIENCE, "the reason", || {
        systemd.hears("WATCHDOG=1");
        systemd
            .heard
            .iter()
            .any(|l| l.starts_with("STATUS=changes queue: SYNC-001"))
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn the_unit_is_valid_and_hardened() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIP: systemd-analyze is not installed");
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/tidewater@.service");
    let text = std::fs::read_to_string(source).expect("the unit");
    // The program of this build in place of the installed one.
    let folder = TempDir::new().expect("a folder");
    let program = command(folder.path()).get_program().to_owned();
    let text = text.replace("/usr/local/bin/tidewater", &program.to_string_lossy());
    let unit = folder.path().join("tidewater@notes.service");
    std::fs::write(&unit, text).expect("the unit's copy");
    for arguments in [
        &["verify", "--man=no"][..],
        // The exposure of 10 that systemd computes, times ten.
        &["security", "--offline=yes", "--threshold=25"][..],
    ] {
        let done = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&unit)
            .output()
            .expect("systemd-analyze");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{arguments:?}: {said}{}",
            String::from_utf8_lossy(&done.stdout)
        );
        assert!(!said.contains("tidewater@"), "{arguments:?}: {said}");
    }
}
