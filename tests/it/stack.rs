//! The dev stack's pieces, without Docker: the sample app and the service with just the settings that
//! docker-compose.yml gives them.

use crate::support::cli::{Running, command};
use crate::support::server::{Schema, shared};
use crate::support::wait::{PATIENCE, eventually};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of one service in docker-compose.yml.
fn service(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("the file");
    let head = format!("  {name}:");
    text.lines()
        .skip_while(|l| *l != head)
        .skip(1)
        .take_while(|l| l.is_empty() || l.starts_with("    ") || l.trim_start().starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// What stands under `environment:` of a service.
fn environment(name: &str) -> BTreeMap<String, String> {
    service(name)
        .iter()
        .skip_while(|l| l.trim() != "environment:")
        .skip(1)
        .take_while(|l| l.starts_with("      "))
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(|l| l.trim().split_once(": "))
        .map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned()))
        .collect()
}

/// The words of `command:` of a service, the file's name replaced.
fn words(name: &str, file: &Path) -> Vec<String> {
    let lines = service(name);
    let line = lines
        .iter()
        .find_map(|l| l.trim().strip_prefix("command: "))
        .unwrap_or_else(|| panic!("{name} has no command"));
    let words: Vec<String> = serde_json::from_str(line).expect("a list of words");
    let file = file.to_string_lossy();
    words
        .into_iter()
        .map(|w| w.replace("/data/app.db", &file))
        .collect()
}

/// The container's folder `/data`.
struct Volume(TempDir);

impl Volume {
    fn new() -> Volume {
        Volume(TempDir::with_prefix("tidewater-stack-").expect("a folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("app.db")
    }

    /// `app-a` or `app-b`, in more of a hurry.
    fn app(&self, name: &str) -> Running {
        let mut app = Command::new("python3");
        app.arg("-u")
            .arg(root().join("examples/notes_app.py"))
            .args(words(name, &self.file()))
            .arg("0.05");
        Running::spawn(app)
    }

    /// `device-a` or `device-b`, with another server, file and port.
    fn device(&self, name: &str, schema: &Schema) -> Running {
        let mut device = command(self.0.path());
        for (key, value) in environment(name) {
            let value = match key.as_str() {
                "TIDEWATER_LOCAL__PATH" => self.file().to_string_lossy().into_owned(),
                "TIDEWATER_REMOTE__URL" => schema.url().to_owned(),
                "TIDEWATER_REMOTE__SCHEMA" => schema.name().to_owned(),
                "TIDEWATER_METRICS__LISTEN" => "127.0.0.1:0".to_owned(),
                "TIDEWATER_DOWNLOAD__POLL_INTERVAL_SECONDS" => "0.2".to_owned(),
                "PGPASSWORD" => continue,
                _ => value,
            };
            device.env(key, value);
        }
        device.args(["run", "--init", "--log-format", "json"]);
        Running::spawn(device)
    }

    fn notes(&self) -> Option<Vec<String>> {
        let app = rusqlite::Connection::open(self.file()).ok()?;
        let mut rows = app
            .prepare("select id || body || done from notes order by id")
            .ok()?;
        let rows = rows.query_map([], |r| r.get(0)).ok()?;
        rows.collect::<Result<_, _>>().ok()
    }
}

#[test]
fn what_the_app_writes_beside_one_device_arrives_at_the_app_beside_the_other() {
    for device in ["device-a", "device-b"] {
        let given = environment(device);
        assert_eq!(given["TIDEWATER_DEVICE__NAME"], device, "{given:?}");
    }
    let schema = Schema::on(&shared().url());
    let (a, b) = (Volume::new(), Volume::new());
    // The service is there before its app: it waits for the file and its table.
    let mut services = [a.device("device-a", &schema), b.device("device-b", &schema)];
    let reader = b.app("app-b");
    let writer = a.app("app-a");
    eventually(PATIENCE, "notes of the first device on the second", || {
        reader.stdout().lines().count() > 3
    });
    drop(writer);
    let ends = a.notes().expect("notes");
    assert!(!ends.is_empty());
    eventually(PATIENCE, "both files to hold the same notes", || {
        b.notes().as_ref() == Some(&ends)
    });
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
    }
}

#[test]
fn the_image_runs_the_service_as_nobody_from_a_folder_that_it_owns() {
    let text = std::fs::read_to_string(root().join("Dockerfile")).expect("the file");
    let last = text.rsplit("\nFROM ").next().expect("a stage");
    for line in [
        "scratch AS tidewater",
        "USER 65532:65532",
        "ENTRYPOINT [\"/tidewater\"]",
        "CMD [\"run\", \"--init\"]",
    ] {
        assert!(last.contains(line), "{line}: {last}");
    }
    // Everything that the build names is there.
    for line in text
        .lines()
        .filter(|l| l.starts_with("COPY ") && !l.contains("--from"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        for name in &words[1..words.len() - 1] {
            assert!(root().join(name).exists(), "{line}");
        }
    }
}
