//! Migrations that real tools generate and run, while services run on two devices.
//!
//! The projects are in tests/orms. `scripts/ensure-orms` finds or makes a Python that has the tools;
//! where it cannot be had these tests say so and are left out, but not in CI.

use crate::support::cli::Device;
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) const QUICK: &str =
    "[upload]\npoll_interval_seconds = 1\n\n[download]\npoll_interval_seconds = 1\n";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a script that finds or makes tools printed; `None` where they cannot be had, which is said.
pub(crate) fn ensured(script: &str) -> Option<PathBuf> {
    let done = Command::new(root().join("scripts").join(script))
        .output()
        .expect("the script runs");
    if done.status.success() {
        return Some(PathBuf::from(String::from_utf8_lossy(&done.stdout).trim()));
    }
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    println!("SKIPPED: {why}");
    None
}

/// The Python that has the tools.
pub(crate) fn python() -> Option<&'static PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| ensured("ensure-orms")).as_ref()
}

/// Runs the command that the remedy of a stopped table names, as a person would, once both devices have
/// left the column.
#[track_caller]
pub(crate) fn cure_dropped(schema: &Schema, device: &Device, table: &str, column: &str) {
    let mut remedy = String::new();
    eventually(PATIENCE, "the table to stop", || {
        let status = device.json(&["status"]);
        let problem = &status["problems"][0];
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        text("remedy").clone_into(&mut remedy);
        problem["code"] == "SYNC-009" && text("message").contains(table)
    });
    assert!(remedy.contains(column), "{remedy}");
    let sql = remedy.strip_prefix("on the server: ").expect(&remedy);
    schema.exec(sql.split(';').next().expect("a command"));
}

/// A migration tool, as it is run in its project for one device's file.
struct Tool {
    python: &'static Path,
    project: &'static str,
    module: &'static str,
}

impl Tool {
    fn command(&self, device: &Device, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.python);
        command
            .current_dir(root().join("tests/orms").join(self.project))
            .args(["-m", self.module])
            .args(arguments)
            .env("APP_DB", device.db())
            .env("PYTHONPATH", ".")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DJANGO_SETTINGS_MODULE", "settings");
        command
    }

    /// Runs it; what it said.
    #[track_caller]
    fn run(&self, device: &Device, arguments: &[&str]) -> String {
        let done = self.command(device, arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{arguments:?}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    }
}

/// Waits until all devices and the server hold the same rows, so many of them.
#[track_caller]
pub(crate) fn equal(schema: &Schema, devices: &[&Device], query: &str, rows: usize) {
    let client = schema.client();
    eventually(
        PATIENCE,
        &format!("{rows} rows on all sides: {query}"),
        || {
            // A column may not be there yet.
            let there = client.try_rows(query).unwrap_or_default();
            there.len() == rows && devices.iter().all(|d| d.rows(query) == there)
        },
    );
}

#[test]
fn django_migrates_both_devices_while_their_services_run() {
    let Some(python) = python() else { return };
    let django = Tool {
        python,
        project: "django",
        module: "django",
    };
    let schema = Schema::new();
    let devices: Vec<Device> = ["a", "b"]
        .iter()
        .map(|name| {
            let device = Device::with_url(schema.url(), schema.name(), name, QUICK);
            django.run(&device, &["migrate", "-v0", "shop", "0001"]);
            device.tw(&["init"]).ok();
            device
        })
        .collect();
    let (a, b) = (&devices[0], &devices[1]);
    let services = [a.spawn(&["run"]), b.spawn(&["run"])];

    a.sql(
        "insert into shop_customer values ('c1', 'Ada');
         insert into shop_order (id, customer_id, note, total)
           values ('o1', 'c1', 'first', 10.25), ('o2', 'c1', 'second', 20);",
    );
    let orders = "select id, customer_id, note from shop_order order by id";
    equal(&schema, &[a, b], orders, 2);

    // One device is ahead: what both have goes on in both directions.
    django.run(a, &["migrate", "-v0", "shop", "0002"]);
    a.sql("insert into shop_order (id, customer_id, note, total, state) values ('o3', 'c1', 'third', 3, 'paid')");
    b.sql("insert into shop_order (id, customer_id, note, total) values ('o4', 'c1', 'fourth', 4)");
    // Django leaves no default behind: what the older device makes does not fit the newer one, waits there
    // and blocks nothing, until its own migration has filled it.
    equal(&schema, &[b], orders, 4);
    django.run(b, &["migrate", "-v0", "shop", "0002"]);
    let states = "select id, note, state from shop_order order by id";
    equal(&schema, &[a, b], states, 4);
    assert_eq!(
        b.rows("select state from shop_order where id = 'o3'"),
        [["paid"]]
    );

    django.run(a, &["migrate", "-v0", "shop", "0003"]);
    a.sql("update shop_order set remark = 'renamed' where id = 'o1'");
    equal(
        &schema,
        &[a],
        "select id, remark from shop_order order by id",
        4,
    );
    django.run(b, &["migrate", "-v0", "shop", "0003"]);
    equal(
        &schema,
        &[a, b],
        "select id, remark from shop_order order by id",
        4,
    );
    b.sql("delete from shop_order where id = 'o2'; update shop_customer set name = 'Ada L.'");
    equal(
        &schema,
        &[a, b],
        "select id, customer_id, remark from shop_order order by id",
        3,
    );
    equal(&schema, &[a, b], "select id, name from shop_customer", 1);

    // A field that goes stops its table alone, until nobody has it and the server drops it, too.
    django.run(a, &["migrate", "-v0", "shop", "0004"]);
    a.sql("update shop_order set remark = 'waits' where id = 'o1'; update shop_customer set name = 'A. L.'");
    equal(&schema, &[a, b], "select id, name from shop_customer", 1);
    django.run(b, &["migrate", "-v0", "shop", "0004"]);
    cure_dropped(&schema, a, "shop_order", "state");
    let left = "select id, customer_id, remark from shop_order order by id";
    equal(&schema, &[a, b], left, 3);
    assert_eq!(
        b.rows("select remark from shop_order where id = 'o1'"),
        [["waits"]]
    );

    let said = django.run(a, &["makemigrations", "--check", "--dry-run"]);
    assert!(said.contains("No changes detected"), "{said}");
    drop(services);
    for device in [a, b] {
        device.tw(&["verify"]).ok();
    }
}

#[test]
fn alembic_in_batch_mode_migrates_both_devices_while_their_services_run() {
    let Some(python) = python() else { return };
    let alembic = Tool {
        python,
        project: "alembic",
        module: "alembic",
    };
    let schema = Schema::new();
    let devices: Vec<Device> = ["a", "b"]
        .iter()
        .map(|name| {
            let device = Device::with_url(schema.url(), schema.name(), name, QUICK);
            alembic.run(&device, &["upgrade", "0001"]);
            device.tw(&["init"]).ok();
            device
        })
        .collect();
    let (a, b) = (&devices[0], &devices[1]);
    let services = [a.spawn(&["run"]), b.spawn(&["run"])];
    a.sql(
        "insert into author values ('a1', 'Ada');
         insert into book values ('b1', 'a1', 'One'), ('b2', 'a1', 'Two')",
    );
    let books = "select id, author_id, title from book order by id";
    equal(&schema, &[a, b], books, 2);

    alembic.run(a, &["upgrade", "0002"]);
    a.sql("insert into book values ('b3', 'a1', 'Three', 333)");
    b.sql("insert into book values ('b4', 'a1', 'Four')");
    equal(&schema, &[a, b], books, 4);
    alembic.run(b, &["upgrade", "0002"]);
    equal(
        &schema,
        &[a, b],
        "select id, title, pages from book order by id",
        4,
    );
    assert_eq!(b.rows("select pages from book where id = 'b3'"), [["333"]]);

    alembic.run(a, &["upgrade", "0003"]);
    a.sql("update book set heading = 'Eins' where id = 'b1'");
    equal(&schema, &[a], "select id, heading from book order by id", 4);
    alembic.run(b, &["upgrade", "0003"]);
    b.sql("delete from book where id = 'b2'");
    equal(
        &schema,
        &[a, b],
        "select id, author_id, heading, pages from book order by id",
        3,
    );
    assert_eq!(
        a.rows("select heading from book where id = 'b1'"),
        [["Eins"]]
    );

    alembic.run(a, &["upgrade", "0004"]);
    a.sql("update book set heading = 'One again' where id = 'b1'");
    alembic.run(b, &["upgrade", "0004"]);
    cure_dropped(&schema, a, "book", "pages");
    equal(
        &schema,
        &[a, b],
        "select id, author_id, heading from book order by id",
        3,
    );
    assert_eq!(
        b.rows("select heading from book where id = 'b1'"),
        [["One again"]]
    );

    // The recipe is what keeps tidewater's tables out of the next revision.
    alembic.run(a, &["check"]);
    let mut without = alembic.command(a, &["check"]);
    let without = without
        .env("WITHOUT_RECIPE", "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&without.stderr).into_owned()
        + &String::from_utf8_lossy(&without.stdout);
    assert!(
        !without.status.success() && said.contains("tidewater_"),
        "{said}"
    );
    let copies = "select count(*) from tidewater_tables where name like '%alembic%'";
    assert_eq!(schema.one(copies), "0");
    drop(services);
    for device in [a, b] {
        device.tw(&["verify"]).ok();
    }
}
