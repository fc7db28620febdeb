//! Migrations that Drizzle generates from a schema in TypeScript and runs, while services run on two devices.
//!
//! The project is in tests/orms/drizzle. `scripts/ensure-drizzle` finds or makes its node_modules; where
//! they cannot be had the test says so and is left out, but not in CI.

use crate::orms::{QUICK, cure_dropped, ensured, equal, root};
use crate::support::cli::Device;
use crate::support::server::Schema;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The project in a folder of its own, for `generate` writes into it.
struct Project(PathBuf);

impl Project {
    fn new(folder: &Path, modules: &Path) -> Self {
        let project = folder.join("drizzle-project");
        std::fs::create_dir(&project).expect("a folder");
        let source = root().join("tests/orms/drizzle");
        for file in source.read_dir().expect("the project").flatten() {
            std::fs::copy(file.path(), project.join(file.file_name())).expect("a copy");
        }
        std::os::unix::fs::symlink(modules, project.join("node_modules")).expect("a link");
        Self(project)
    }

    fn command(&self, step: u8, device: &Device, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("node_modules/.bin/drizzle-kit"));
        command
            .current_dir(&self.0)
            .args(arguments)
            .env("STEP", step.to_string())
            .env("APP_DB", device.db())
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs it; what it said.
    #[track_caller]
    fn run(&self, step: u8, device: &Device, arguments: &[&str]) -> String {
        let done = self
            .command(step, device, arguments)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
        said
    }

    /// The migration that leads to this version of the schema, made from it.
    fn generate(&self, step: u8, device: &Device) {
        self.run(
            step,
            device,
            &["generate", "--name", &format!("step_{step}")],
        );
    }

    fn migrate(&self, step: u8, device: &Device) {
        self.run(step, device, &["migrate"]);
    }
}

#[test]
fn drizzle_migrates_both_devices_while_their_services_run() {
    let Some(modules) = ensured("ensure-drizzle") else {
        return;
    };
    let schema = Schema::new();
    let device = |name| Device::with_url(schema.url(), schema.name(), name, QUICK);
    let (a, b) = (&device("a"), &device("b"));
    let project = Project::new(a.folder(), &modules);
    project.generate(1, a);
    for device in [a, b] {
        project.migrate(1, device);
        device.tw(&["init"]).ok();
    }
    let services = [a.spawn(&["run"]), b.spawn(&["run"])];
    a.sql(
        "insert into authors values ('a1', 'Ada');
         insert into posts values ('p1', 'a1', 'One', null), ('p2', 'a1', 'Two', 2)",
    );
    let posts = "select id, author_id, title from posts order by id";
    equal(&schema, &[a, b], posts, 2);

    // One device is ahead: what both have goes on in both directions.
    project.generate(2, a);
    project.migrate(2, a);
    a.sql("insert into posts values ('p3', 'a1', 'Three', 3, 'with a subtitle')");
    b.sql("insert into posts values ('p4', 'a1', 'Four', 4)");
    equal(&schema, &[a, b], posts, 4);
    project.migrate(2, b);
    let all = "select id, author_id, title, views, subtitle from posts order by id";
    equal(&schema, &[a, b], all, 4);
    assert_eq!(
        b.rows("select subtitle from posts where id = 'p3'"),
        [["with a subtitle"]]
    );

    // The table is made anew, which needs a value in every row; edits go on right behind it.
    b.sql("update posts set views = 0 where views is null");
    equal(&schema, &[a, b], "select id from posts where views = 0", 1);
    project.generate(3, a);
    project.migrate(3, a);
    a.sql("update posts set title = 'Eins' where id = 'p1'; delete from posts where id = 'p2'");
    project.migrate(3, b);
    b.sql("insert into posts (id, author_id, title) values ('p5', 'a1', 'Five')");
    equal(&schema, &[a, b], all, 4);

    project.generate(4, a);
    project.migrate(4, a);
    a.sql("update posts set title = 'Uno' where id = 'p1'; update authors set name = 'Ada L.'");
    equal(&schema, &[a, b], "select id, name from authors", 1);
    project.migrate(4, b);
    cure_dropped(&schema, a, "posts", "subtitle");
    equal(
        &schema,
        &[a, b],
        "select id, author_id, title, views from posts order by id",
        4,
    );
    assert_eq!(b.rows("select title from posts where id = 'p1'"), [["Uno"]]);

    // The recipe is what keeps tidewater's tables out of `push`, which compares with the file.
    let said = project.run(4, a, &["push", "--verbose", "--strict"]);
    assert!(said.contains("No changes detected"), "{said}");
    let mut without = project.command(4, a, &["push", "--verbose", "--strict"]);
    let without = without
        .env("WITHOUT_RECIPE", "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&without.stdout).into_owned()
        + &String::from_utf8_lossy(&without.stderr);
    assert!(said.contains("DROP TABLE `tidewater_"), "{said}");
    let copies = "select count(*) from tidewater_tables where name like '\\_\\_%'";
    assert_eq!(schema.one(copies), "0");
    drop(services);
    for device in [a, b] {
        device.tw(&["verify"]).ok();
    }
}
