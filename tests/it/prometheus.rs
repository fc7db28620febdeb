//! A real Prometheus and its promtool, on what is shipped for them and on a real service.
//!
//! Where the programs are missing these tests say so and pass, but not where CI=true.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::http::Endpoint;
use crate::support::wait::{PATIENCE, eventually, eventually_some};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QUICK: &str =
    "[upload]\npoll_interval_seconds = 0.2\n\n[download]\npoll_interval_seconds = 0.2\n";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/prometheus")
        .join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The program, or a reason to skip.
fn program(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("TIDEWATER_PROMETHEUS_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let missing = format!("{name} is missing: scripts/ensure-prometheus installs it");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        println!("SKIPPED: {missing}");
    }
    found
}

#[track_caller]
fn promtool(arguments: &[&str], stdin: &str) -> Option<String> {
    let mut child = Command::new(program("promtool")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

/// A service that has sent a row, and what it exposes.
fn scraped() -> (Fleet, Device, Running, Endpoint) {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    device.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    let service = device.spawn(&["run"]);
    let endpoint = Endpoint::of(&service);
    device.sql("insert into items values ('k', 'x', 1)");
    eventually(PATIENCE, "the row to be sent", || {
        endpoint.metrics().0.contains("outcome=\"applied\"} 1")
    });
    (fleet, device, service, endpoint)
}

#[test]
fn configuration_and_rules_are_sound() {
    let folder = shipped("");
    let config = shipped("prometheus.yml");
    let (rules, tests) = (shipped("alerts.yml"), shipped("alerts_test.yml"));
    promtool(&["check", "config", config.to_str().unwrap()], "");
    promtool(&["check", "rules", rules.to_str().unwrap()], "");
    promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(folder.is_dir());
    // Each alert is seen to fire, and seen not to.
    let tests = read(&tests);
    let cases: Vec<&str> = tests.split("alertname: ").skip(1).collect();
    let documented = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"));
    let alerts: Vec<String> = read(&rules)
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: ").map(str::to_owned))
        .collect();
    assert!(alerts.len() >= 7, "{alerts:?}");
    for alert in alerts {
        let of_it: Vec<&&str> = cases
            .iter()
            .filter(|c| c.lines().next() == Some(alert.as_str()))
            .collect();
        let calm = |c: &&&str| c.contains("exp_alerts: []");
        assert!(of_it.iter().any(calm), "{alert} is never seen not to fire");
        let fires = of_it.iter().any(|c| c.contains("exp_labels"));
        assert!(fires, "{alert} is never seen to fire");
        assert!(
            documented.contains(&format!("`{alert}`")),
            "{alert} is not in docs/metrics.md"
        );
    }
}

/// The families of a scrape: type and labels by name.
fn families(scrape: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in scrape.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            found.entry(current.clone()).or_default().0 = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.rsplit_once('}').unwrap().0;
            let names = labels.split("\",").filter_map(|l| l.split_once("=\""));
            let entry = found.get_mut(&current).unwrap();
            entry
                .1
                .extend(names.map(|(n, _)| n.to_owned()).filter(|n| n != "le"));
        }
    }
    found
}

/// The words in backticks of a cell.
fn spans(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_on_metrics_lists_exactly_what_a_scrape_exposes() {
    let (_fleet, _device, service, endpoint) = scraped();
    let scrape = endpoint.metrics().0;
    service.kill();
    let exposed = families(&scrape);
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"));
    let documented: BTreeMap<String, (String, BTreeSet<String>)> = page
        .lines()
        .filter(|l| l.starts_with("| `tidewater_") || l.starts_with("| `process_"))
        .map(|l| {
            let cells: Vec<&str> = l.split('|').skip(1).map(str::trim).collect();
            assert_eq!(cells.len(), 6, "{l}");
            let name = spans(cells[0]).into_iter().next().unwrap();
            (name, (cells[1].to_owned(), spans(cells[3])))
        })
        .collect();
    // Process metrics are those of Linux.
    assert_eq!(exposed, documented);
    for name in exposed.keys() {
        assert!(
            scrape.contains(&format!("# HELP {name} ")),
            "{name} has no help"
        );
    }
    // What the alerts ask for is there.
    let rules = read(&shipped("alerts.yml"));
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.starts_with("tidewater_") {
            let family = word.trim_end_matches("_sum").trim_end_matches("_count");
            assert!(exposed.contains_key(family), "no metric {word}");
        }
    }
}

#[test]
fn a_scrape_passes_promtool() {
    let (_fleet, _device, service, endpoint) = scraped();
    let scrape = endpoint.metrics().0;
    service.kill();
    if let Some(said) = promtool(&["check", "metrics"], &scrape) {
        assert_eq!(said.trim(), "", "promtool has something to remark");
    }
}

/// A Prometheus of the test's own on a free port, which scrapes `target`.
fn prometheus(program: &Path, folder: &Path, target: u16) -> (Running, Endpoint) {
    let config = read(&shipped("prometheus.yml"))
        .replace("- device-a:9842", &format!("- 127.0.0.1:{target}"))
        .replace("          - device-b:9842\n", "")
        .replace("_interval: 5s", "_interval: 1s")
        .replace("alerts.yml", shipped("alerts.yml").to_str().unwrap());
    let file = folder.join("prometheus.yml");
    fs::write(&file, config).unwrap();
    // Somebody may take the port between our look and its start.
    for _ in 0..5 {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder);
        let mut server = Running::spawn(command);
        let endpoint = Endpoint { port };
        let is_up = eventually_some(PATIENCE, "Prometheus to be ready", || {
            if !server.is_running() {
                return Some(false);
            }
            let request = "GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let answer = endpoint.try_raw(request).ok()?;
            (answer.status == 200).then_some(true)
        });
        if is_up {
            return (server, endpoint);
        }
        println!("{}", server.stderr());
    }
    panic!("Prometheus does not start");
}

/// The single value of a query, once there is one.
fn query(prometheus: Endpoint, query: &str) -> Option<String> {
    let path = format!(
        "/api/v1/query?query={}",
        query.replace('"', "%22").replace(' ', "%20")
    );
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = prometheus.try_raw(&request).ok()?;
    let document: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let result = document["data"]["result"].as_array()?;
    assert!(result.len() <= 1, "{document}");
    Some(result.first()?["value"][1].as_str()?.to_owned())
}

#[test]
fn a_prometheus_scrapes_a_service_and_answers_queries_about_it() {
    let Some(program) = program("prometheus") else {
        return;
    };
    let (_fleet, device, service, endpoint) = scraped();
    let folder = tempfile::tempdir().unwrap();
    let (server, api) = prometheus(&program, folder.path(), endpoint.port);
    let asks = |text: &str, expected: &str| {
        let mut last = None;
        eventually(PATIENCE, &format!("{text} = {expected}"), || {
            last = query(api, text);
            last.as_deref() == Some(expected)
        });
    };
    asks("up{job=\"tidewater\"}", "1");
    asks("tidewater_remote_up", "1");
    asks(
        "tidewater_changes_total{direction=\"upload\",outcome=\"applied\"}",
        "1",
    );
    device.tw(&["pause"]).ok();
    device.sql("insert into items values ('k2', 'x', 1)");
    asks("tidewater_paused", "1");
    asks("tidewater_outbox_depth{status=\"pending\"}", "1");
    asks(
        "count(ALERTS{alertname=\"TidewaterQueueStuck\"}) or vector(0)",
        "0",
    );
    // One of the shipped rules, evaluated on the real thing.
    device.tw(&["resume"]).ok();
    device.sql("insert into items values ('k3', 'x', 'no number')");
    asks("count(ALERTS{alertname=\"TidewaterFailedItems\"})", "1");
    drop(server);
    service.kill();
}
