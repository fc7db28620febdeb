//! How much memory a large queue takes: the peak of the process itself, as the system counted it.
//!
//! A child's peak begins with that of the process it was forked from, and the tests' own process is
//! large. So each command is started by a small process in between: this program again, running
//! [`weighs_a_command`] only.

use crate::support::cli::{Device, Output, Running, command};
use crate::support::server::Schema;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set for the process in between: the arguments, and where its report goes.
const WORDS: &str = "TIDEWATER_TEST_WEIGH_WORDS";
const REPORT: &str = "TIDEWATER_TEST_WEIGH_REPORT";
const SEPARATOR: &str = "\u{1f}";

const ROWS: u64 = 100_000;
/// 64 MB, and for a build without optimisation what its own code takes more.
const PEAK_MAX_KIB: u64 = if cfg!(debug_assertions) {
    76 * 1024
} else {
    62_500
};
/// A build without optimisation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn a_hundred_thousand_pending_rows_pass_through_little_memory() {
    let schema = Schema::new();
    let a = Device::new(&schema, "a");
    a.sql("create table items (id integer primary key, body text not null)");
    a.json(&["init"]);
    a.json(&["now"]);
    // 230 characters and the rest of a row: 250 bytes.
    a.sql(&format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < {ROWS})
         insert into items select i, substr(hex(randomblob(115)), 1, 230) from n"
    ));

    let (now, peak) = weigh(&a, &["--json", "now"]);
    let now = now.ok().json();
    assert_eq!(now["uploaded"], ROWS);
    assert_eq!(now["pending"], 0);
    assert_eq!(schema.one("select count(*) from items"), ROWS.to_string());
    assert!(peak < PEAK_MAX_KIB, "`now` took {peak} KiB");

    let b = Device::new(&schema, "b");
    let config = b.config();
    let config = config.to_str().unwrap();
    let (clone, peak) = weigh(&b, &["--json", "clone", "--config", config, "app.db"]);
    assert_eq!(clone.ok().json()["tables"][0]["rows"], ROWS);
    assert!(peak < PEAK_MAX_KIB, "`clone` took {peak} KiB");

    // The same rows arriving beside a living app.
    let sum = "select count(*), sum(length(body)), max(body) from items";
    assert_eq!(a.rows(sum), b.rows(sum));
    schema.exec("update items set body = 'x' || substr(body, 2)");
    let (now, peak) = weigh(&b, &["--json", "now"]);
    assert_eq!(now.ok().json()["downloaded"], ROWS);
    assert!(peak < PEAK_MAX_KIB, "`now` took {peak} KiB to receive");

    let (verify, peak) = weigh(&b, &["--json", "verify"]);
    verify.ok();
    assert!(peak < PEAK_MAX_KIB, "`verify` took {peak} KiB");
}

/// Whole rows pass through every place where many of them meet: decided conflicts, rows fetched by key,
/// comparisons.
#[test]
fn two_hundred_large_rows_that_lost_a_conflict_pass_through_little_memory() {
    let schema = Schema::new();
    let a = Device::new(&schema, "a");
    a.sql("create table items (id integer primary key, body text not null)");
    a.json(&["init"]);
    a.sql(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 200)
         insert into items select i, 'small' from n",
    );
    a.json(&["now"]);
    a.sql("update items set body = 'mine'");
    schema.exec("update items set body = repeat('large ', 40000)");

    let (now, peak) = weigh(&a, &["--json", "now"]);
    let now = now.ok().json();
    assert_eq!(
        (&now["conflicts"], &now["downloaded"]),
        (&200.into(), &200.into())
    );
    assert!(peak < PEAK_MAX_KIB, "`now` took {peak} KiB");
    let sum = "select count(*), sum(length(body)), max(length(body)) from items";
    assert_eq!(a.rows(sum), schema.rows(sum));

    // Large here, and not there at all.
    schema.exec("delete from items where id > 50; update items set body = 'tiny'");
    let (verify, peak) = weigh(&a, &["--json", "verify"]);
    assert_eq!(verify.json()["tables"][0]["in_flight"], 200);
    assert!(peak < PEAK_MAX_KIB, "`verify` took {peak} KiB");
}

/// Runs the program to its end; returns what it said and its peak of resident memory in KiB.
#[track_caller]
fn weigh(device: &Device, words: &[&str]) -> (Output, u64) {
    let report = device.folder().join("weight");
    let mut between = Command::new(std::env::current_exe().unwrap());
    between
        .args(["--exact", "size::weighs_a_command", "--ignored"])
        .current_dir(device.folder())
        .env(WORDS, words.join(SEPARATOR))
        .env(REPORT, &report)
        .env("TIDEWATER_CONFIG", device.config());
    let started = Instant::now();
    Running::spawn(between).wait(DEADLINE).ok();
    let text = std::fs::read_to_string(&report).unwrap();
    let (head, stdout) = text.split_once('\n').unwrap();
    let (code, peak) = head.split_once(' ').unwrap();
    let (code, peak) = (code.parse().unwrap(), peak.parse().unwrap());
    println!("{words:?}: {peak} KiB, {:?}", started.elapsed());
    let output = Output {
        code,
        stdout: stdout.to_owned(),
        stderr: std::fs::read_to_string(device.folder().join("weighed.err")).unwrap(),
    };
    (output, peak)
}

/// Not a test: the process in between.
#[test]
#[ignore = "the process that a test starts to weigh a command"]
#[expect(clippy::zombie_processes, reason = "wait4 waits for it")]
fn weighs_a_command() {
    let (Ok(words), Some(report)) = (std::env::var(WORDS), std::env::var_os(REPORT)) else {
        return;
    };
    let report = PathBuf::from(report);
    let folder = report.parent().unwrap();
    let file = |name: &str| std::fs::File::create(folder.join(name)).unwrap();
    let mut weighed = command(Path::new("."));
    weighed
        .args(words.split(SEPARATOR))
        .env(
            "TIDEWATER_CONFIG",
            std::env::var_os("TIDEWATER_CONFIG").unwrap(),
        )
        .stdin(Stdio::null())
        .stdout(file("weighed.out"))
        .stderr(file("weighed.err"));
    let child = weighed.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: both are plain memory that wait4 fills; the child is ours and is waited for only here.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
        usage
    };
    let peak = u64::try_from(usage.ru_maxrss).unwrap();
    // Bytes there, KiB everywhere else.
    let peak = if cfg!(target_os = "macos") {
        peak / 1024
    } else {
        peak
    };
    let status = ExitStatus::from_raw(status);
    let code = status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or(0));
    let said = std::fs::read_to_string(folder.join("weighed.out")).unwrap();
    std::fs::write(&report, format!("{code} {peak}\n{said}")).unwrap();
}
