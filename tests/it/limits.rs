//! The edges of what a device stands on: a disk that is full or broken, a file that is damaged, not its
//! own or not to be written, another journal mode, many tables, many devices.
//!
//! Each is met without a loss: the command says what is wrong and what to do, and goes on when it is done.

use crate::support::cli::{Device, Output, Running};
use crate::support::fleet::{ALL, Fleet, ITEMS};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::json;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The error that a command ended with: the local database cannot be used.
#[track_caller]
fn unusable(output: Output, remedy: &str) {
    let output = output.expect_code(4);
    let error = &output.json()["error"];
    assert_eq!(error["code"], json!("SYNC-012"), "{output:#?}");
    let told = error["remedy"].as_str().unwrap_or_default();
    assert!(told.contains(remedy), "{told}");
}

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let fleet = Fleet::new(ITEMS);
    let a = Device::new(&fleet.schema, "a");
    let text = "These are the notes of somebody who calls every file app.db.\n".repeat(40);
    std::fs::write(a.db(), &text).expect("writes");
    for command in ["init", "now", "run"] {
        unusable(a.tw(&["--json", command]), "is not an SQLite database");
    }
    assert_eq!(std::fs::read_to_string(a.db()).expect("reads"), text);
}

#[test]
fn a_damaged_file_sends_nothing_and_a_sound_copy_goes_on() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.sql(
        "with recursive c (i) as (select 1 union all select i + 1 from c where i < 2000)
         insert into items select 'k' || i, 'body', i from c",
    );
    a.tw(&["now"]).ok();
    a.sql("update items set body = 'edited' where n % 100 = 0");
    let sound = a.folder().join("sound.db");
    std::fs::copy(a.db(), &sound).expect("copies");
    let page = |pragma: &str| a.rows(pragma).concat().concat().parse::<usize>();
    let size = page("pragma page_size").expect("a size");
    let root = page("select rootpage from sqlite_schema where name = 'items'").expect("a page");
    let mut bytes = std::fs::read(a.db()).expect("reads");
    bytes[(root - 1) * size..root * size].fill(0xa5);
    std::fs::write(a.db(), &bytes).expect("writes");
    unusable(a.tw(&["--json", "now"]), "restore the file from a backup");
    let arrived = "select count(*) from items where body = 'edited'";
    assert_eq!(fleet.server(arrived), [["0"]]);
    let doctor = a.tw(&["--json", "doctor"]).expect_code(1).json();
    let checks = doctor["checks"].as_array().expect("checks");
    let integrity = checks.iter().find(|c| c["name"] == "integrity");
    assert_eq!(integrity.expect("the check")["ok"], json!(false));
    std::fs::copy(&sound, a.db()).expect("restores");
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(fleet.server(arrived), [["20"]]);
}

/// A file system of its own, of a few MiB; gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn new(folder: &Path) -> Option<SmallDisk> {
        let place = folder.join("disk");
        std::fs::create_dir(&place).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(&place)
            .output();
        let mounted = mounted.is_ok_and(|o| o.status.success());
        mounted.then_some(SmallDisk(place))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.0.join("filler")).expect("a file");
        let block = [0_u8; 4096];
        while filler.write_all(&block).is_ok() {}
        while filler.write_all(&block[..64]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_what_was_captured_goes_when_there_is_room() {
    let fleet = Fleet::new(ITEMS);
    let a = Device::new(&fleet.schema, "a");
    let Some(disk) = SmallDisk::new(a.folder()) else {
        println!("mounting is not permitted here: not tested");
        return;
    };
    let db = disk.0.join("app.db");
    let app = || rusqlite::Connection::open(&db).expect("opens");
    let tw = |words: &[&str]| {
        let file = db.to_str().expect("a path");
        a.tw(&[&["--json", "--db", file], words].concat())
    };
    app().execute_batch(ITEMS).expect("a table");
    tw(&["init"]).ok();
    tw(&["now"]).ok();
    app()
        .execute_batch("insert into items values ('i1', 'before the disk was full', 1)")
        .expect("writes");
    disk.fill();
    unusable(tw(&["now"]), "make room on the disk");
    let kept: String = app()
        .query_row("pragma integrity_check", [], |r| r.get(0))
        .expect("reads");
    assert_eq!(kept, "ok");
    disk.make_room();
    tw(&["now"]).ok();
    assert_eq!(fleet.server(ALL), [["i1", "before the disk was full", "1"]]);
}

#[test]
fn a_write_that_the_disk_refuses_loses_nothing() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("insert into items values ('i1', 'one', 1)");
    let mut limited = a.command(&["--json", "now"]);
    // SAFETY: both calls are async-signal-safe and touch nothing of the parent's.
    unsafe {
        limited.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 512,
                rlim_max: 512,
            };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    // Its output goes into a pipe: files are what it may not write.
    let output = limited.output().expect("runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(told["error"]["code"], json!("SYNC-012"), "{told}");
    assert_eq!(fleet.server("select count(*) from items"), [["0"]]);
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(a.rows("pragma integrity_check"), [["ok"]]);
}

#[test]
fn a_file_that_may_not_be_written_is_said_and_stays() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("insert into items values ('i1', 'one', 1)");
    let before = std::fs::read(a.db()).expect("reads");
    let mode = |path: &Path, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("sets the mode");
    };
    let mut command = a.command(&["--json", "now"]);
    // SAFETY: geteuid has no effects.
    let root = unsafe { libc::geteuid() } == 0;
    let programs = tempfile::tempdir().expect("a folder");
    if root {
        // Nothing is forbidden to root: somebody else runs it, from where everybody may read.
        const NOBODY: u32 = 65_534;
        let program = programs.path().join("tidewater");
        // By another process: one that is forked while we write it could not run it.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_tidewater"))
            .arg(&program)
            .status();
        assert!(copied.is_ok_and(|s| s.success()));
        mode(programs.path(), 0o755);
        let former = std::mem::replace(&mut command, Command::new(&program));
        command.args(former.get_args()).env_clear();
        for (name, value) in former.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.current_dir(a.folder()).uid(NOBODY).gid(NOBODY);
        chown(a.config(), Some(NOBODY), Some(NOBODY)).expect("gives the configuration away");
    }
    mode(&a.db(), 0o444);
    mode(a.folder(), 0o555);
    let output = Running::spawn(command).wait(PATIENCE);
    mode(a.folder(), 0o755);
    mode(&a.db(), 0o644);
    unusable(output, "writable");
    assert!(
        std::fs::read(a.db()).expect("reads") == before,
        "the file changed"
    );
    if root {
        chown(a.config(), Some(0), Some(0)).expect("takes the configuration back");
    }
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], ALL);
}

#[test]
fn the_journal_mode_is_the_apps_and_may_change_under_the_service() {
    let often = "[upload]\npoll_interval_seconds = 0.2\n[download]\npoll_interval_seconds = 0.2\n";
    let fleet = Fleet::configured(ITEMS, often);
    let a = fleet.device("a");
    let b = fleet.device("b");
    let service = a.spawn(&["run"]);
    let modes = ["delete", "truncate", "persist", "memory", "wal"];
    for (n, mode) in modes.iter().enumerate() {
        let app = a.sqlite();
        // The change takes the file alone for a moment; whoever wants it asks again.
        eventually(PATIENCE, mode, || {
            let set = app.query_row(&format!("pragma journal_mode = {mode}"), [], |r| {
                r.get::<_, String>(0)
            });
            set.is_ok_and(|now| now == *mode)
        });
        app.execute(
            "insert into items values (?1, ?2, ?3)",
            rusqlite::params![format!("a{n}"), mode, n as i64],
        )
        .expect("writes");
        b.sql(&format!("insert into items values ('b{n}', '{mode}', {n})"));
        b.tw(&["now"]).ok();
        let rows = format!("select count(*) from items where n = {n}");
        eventually(PATIENCE, "both sides hold both rows", || {
            fleet.server(&rows) == [["2"]] && a.rows(&rows) == [["2"]]
        });
        let stands: String = app
            .query_row("pragma journal_mode", [], |r| r.get(0))
            .expect("reads");
        assert_eq!(stands, *mode, "nobody but the app changes it");
    }
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    fleet.converge(&[&a, &b], ALL);
}

#[test]
fn a_network_file_system_is_refused_unless_it_is_wanted() {
    let fleet = Fleet::new(ITEMS);
    let mut a = Device::new(&fleet.schema, "a");
    a.sql(ITEMS);
    let folder = std::fs::canonicalize(a.folder()).expect("a folder");
    let list = a.folder().join("mounts");
    let mounted = |kind: &str| {
        let lines = format!(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:30 / {} rw - {kind} server:/x rw\n",
            folder.display()
        );
        std::fs::write(&list, lines).expect("a list");
    };
    a.set_env("TIDEWATER_MOUNTINFO", list.to_str().expect("a path"));
    mounted("nfs4");
    let before = std::fs::read(a.db()).expect("reads");
    unusable(a.tw(&["--json", "init"]), "network_filesystem");
    unusable(
        a.tw(&["--json", "init", "--adopt-remote"]),
        "network_filesystem",
    );
    unusable(a.tw(&["--json", "run", "--init"]), "network_filesystem");
    let config = a.config();
    let clone = [
        "--json",
        "clone",
        "--config",
        config.to_str().expect("a path"),
        "new.db",
    ];
    let other = fleet_with_rows();
    let text = std::fs::read_to_string(&config).expect("reads");
    a.configure(&text.replace(fleet.schema.name(), other.schema.name()));
    unusable(a.tw(&clone), "network_filesystem");
    assert!(!a.folder().join("new.db").exists());
    a.configure(&text);
    assert!(
        std::fs::read(a.db()).expect("reads") == before,
        "the file changed"
    );
    // What a virtual machine may call its own disk.
    mounted("9p");
    a.tw(&["init"]).ok();
    // The file was moved after it was initialised.
    mounted("cifs");
    for command in ["now", "run"] {
        unusable(a.tw(&["--json", command]), "network_filesystem");
    }
    let doctor = a.tw(&["--json", "doctor"]).expect_code(1).json();
    let checks = doctor["checks"].as_array().expect("checks");
    let disk = checks.iter().find(|c| c["name"] == "filesystem");
    assert_eq!(disk.expect("the check")["ok"], json!(false));
    a.set_env("TIDEWATER_LOCAL__NETWORK_FILESYSTEM", "true");
    a.sql("insert into items values ('i1', 'one', 1)");
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], ALL);
}

/// A workspace that can be cloned.
fn fleet_with_rows() -> Fleet {
    let fleet = Fleet::new(ITEMS);
    let device = fleet.device("first");
    device.sql("insert into items values ('i0', 'zero', 0)");
    device.tw(&["now"]).ok();
    fleet
}

#[test]
fn fifty_tables_are_one_workspace() {
    let ddl: String = (0..50)
        .map(|t| format!("create table t{t} (id text primary key, body text, n integer);"))
        .collect();
    let fleet = Fleet::new(&ddl);
    let a = fleet.device("a");
    let b = fleet.device("b");
    let each = |sql: &str| -> String {
        (0..50)
            .map(|t| sql.replace("TABLE", &format!("t{t}")) + ";")
            .collect()
    };
    a.sql(&each(
        "insert into TABLE values ('x', 'of a', 1), ('y', 'of a', 2)",
    ));
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    b.sql(&each(
        "update TABLE set body = 'of b' where id = 'x'; delete from TABLE where id = 'y'",
    ));
    fleet.schema.exec(&each(
        "insert into TABLE (id, body, n) values ('z', 'of the server', 3)",
    ));
    for d in [&b, &a, &b] {
        d.tw(&["now"]).ok();
    }
    let all = (0..50)
        .map(|t| format!("select {t} as t, id, body, n from t{t}"))
        .collect::<Vec<_>>()
        .join(" union all ")
        + " order by 1, 2";
    fleet.expect_equal(&[&a, &b], &all);
    assert_eq!(fleet.server(&all).len(), 100);
    let verified = b.json(&["verify"]);
    assert_eq!(verified["tables"].as_array().map(Vec::len), Some(50));
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn fifty_devices_share_one_workspace() {
    let fleet = Fleet::new(ITEMS);
    let devices: Vec<Device> = (0..50).map(|n| fleet.device(&format!("d{n}"))).collect();
    for (n, d) in devices.iter().enumerate() {
        d.sql(&format!(
            "insert into items values ('of d{n}', 'body', {n})"
        ));
        d.tw(&["now"]).ok();
        if n % 10 == 0 {
            // Built on what the ones before it wrote.
            d.sql("insert or ignore into items values ('shared', '', 0)");
            d.sql("update items set body = body || '+', n = n + 1 where id = 'shared'");
            d.tw(&["now"]).ok();
        }
    }
    let some = [&devices[0], &devices[24], &devices[49]];
    for d in some {
        d.tw(&["now"]).ok();
    }
    fleet.expect_equal(&some, ALL);
    assert_eq!(
        fleet.server("select n from items where id = 'shared'"),
        [["5"]]
    );
    assert_eq!(fleet.server("select count(*) from items"), [["51"]]);
    let listed = some[0].json(&["devices"]);
    assert_eq!(
        listed["devices"].as_array().map(Vec::len),
        Some(50),
        "{listed}"
    );
    assert_eq!(fleet.conflicts(), 0);
}
