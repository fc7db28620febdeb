//! A workspace with its own server, and devices whose services run as processes behind proxies.
//!
//! Carries out a plan: begins and ends faults at their times, starts again what died, and at the end
//! takes every fault back and waits until nothing is under way any more.

use super::plan::{Fault, Hunt, Plan, Planned};
use super::writers::{self, Asked, Done, Hand, TABLES};
use crate::support::cli::{Device, Running};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Client, Schema, start};
use crate::time_travel::Backup;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidewater::throwaway::{Options, Server};

/// For a process to end after SIGTERM: the batch in hand, and the deadlines of the network around it.
const GOODBYE: Duration = Duration::from_secs(90);
/// For what a planted bug needs to happen.
const HUNT: Duration = Duration::from_secs(60);
/// What a test switch of the service is set in, see `tidewater::failpoint`.
pub const PLANT: &str = "TIDEWATER_PLANT";

/// A device, the way to the server, and its service.
pub struct Site {
    pub device: Device,
    pub proxy: Proxy,
    service: Option<Running>,
    /// Whether the running service has a crash point armed.
    armed: bool,
    asked: Arc<Asked>,
    reader: Option<rusqlite::Connection>,
    beside: Vec<Running>,
    /// What its processes have said, those that ended first.
    pub said: Vec<String>,
    /// The most memory that one of its processes had, kB.
    pub memory: u64,
    /// The largest write-ahead log, bytes.
    pub wal: u64,
}

pub struct World<'a> {
    pub plan: &'a Plan,
    pub sites: Vec<Site>,
    pub schema: Schema,
    /// Where PostgreSQL's writer and the audit trigger note what was committed: outside the workspace.
    pub audit: Schema,
    pub server: Server,
    backup: Option<Backup>,
    pub counts: BTreeMap<&'static str, u32>,
    pub complaints: Vec<String>,
}

impl<'a> World<'a> {
    /// Everything runs and is in step when this returns. `plant` is a bug to be found.
    pub fn new(plan: &'a Plan, plant: Option<&str>) -> World<'a> {
        let server = start(Options {
            settings: vec![
                (
                    "wal_writer_delay".into(),
                    format!("{}ms", plan.wal_writer_delay),
                ),
                ("deadlock_timeout".into(), "200ms".into()),
            ],
            ..Options::default()
        });
        let schema = Schema::on(&server.url());
        let audit = Schema::on(&server.url());
        audit.exec("create table committed (n bigint); create table seen (v text)");
        let mut world = World {
            plan,
            sites: Vec::new(),
            schema,
            audit,
            server,
            backup: None,
            counts: BTreeMap::new(),
            complaints: Vec::new(),
        };
        for n in 0..plan.devices {
            let site = world.site(n, plant);
            world.sites.push(site);
        }
        world.count_arrivals();
        for n in 0..plan.devices {
            world.start_service(n, None);
        }
        world
    }

    fn site(&self, n: usize, plant: Option<&str>) -> Site {
        let proxy = Proxy::start(self.server.host(), self.server.port());
        let url = self.schema.url_through(proxy.host(), proxy.port());
        let more = format!(
            "[upload]\npoll_interval_seconds = 1\nbatch_size = {}\n\n\
             [download]\npoll_interval_seconds = 1\npage_size = {}\n\n\
             [retry]\nbase_delay_seconds = 0.05\n\n[conflict]\npolicy = \"{}\"\n",
            self.plan.batch_size, self.plan.page_size, self.plan.policy
        );
        let name = format!("d{n}");
        let mut device = Device::with_url(&url, self.schema.name(), &name, &more);
        device.set_env("TIDEWATER_REMOTE__STATEMENT_TIMEOUT_SECONDS", "4");
        device.set_env("TIDEWATER_REMOTE__CONNECT_TIMEOUT_SECONDS", "4");
        if n == 0 {
            // The app's own choice; the service takes the file as it is.
            device.sql(&format!("pragma journal_mode = wal; {TABLES}"));
            device.tw(&["init"]).ok();
            device.json(&["now"]);
        } else {
            let clone = ["clone", "--config", "tidewater.toml", "app.db"];
            device.tw(&clone).ok();
        }
        if let Some(bug) = plant {
            device.set_env(PLANT, bug);
        }
        Site {
            device,
            proxy,
            service: None,
            armed: false,
            asked: Arc::default(),
            reader: None,
            beside: Vec::new(),
            said: Vec::new(),
            memory: 0,
            wal: 0,
        }
    }

    /// Each arrival of a value in a mirror is counted there, in the transaction that brings it.
    fn count_arrivals(&self) {
        let audit = self.audit.name();
        self.audit.exec(&format!(
            "create function note() returns trigger language plpgsql as
             $$ begin insert into {audit}.seen values (new.v); return null; end $$"
        ));
        for table in ["notes", "pairs", "sums"] {
            self.schema.exec(&format!(
                "create trigger audit after insert or update of v on {table}
                 for each row execute function {audit}.note()"
            ));
        }
    }

    /// Goes through the plan and returns what was written, device by device and then in PostgreSQL.
    pub fn live(&mut self) -> Vec<Done> {
        let plan = self.plan;
        let hand = |writer: usize| Hand::new(writer, plan);
        let all = Arc::new(Asked::default());
        let mut apps = Vec::new();
        for (n, site) in self.sites.iter().enumerate() {
            let (hand, db, asked) = (hand(n), site.device.db(), Arc::clone(&site.asked));
            apps.push(std::thread::spawn(move || writers::app(hand, db, &asked)));
        }
        let (url, name) = (self.server.url(), self.schema.name().to_owned());
        let connect = move || {
            let client = Client::try_connect(&url).ok()?;
            let found = client.try_exec(&format!("set search_path = {name}"));
            found.ok().map(|()| client)
        };
        let (audit, asked, hand) = (
            self.audit.name().to_owned(),
            Arc::clone(&all),
            hand(plan.devices),
        );
        apps.push(std::thread::spawn(move || {
            writers::postgres(hand, connect, &audit, &asked)
        }));
        match plan.hunt {
            Some(hunt) => self.hunt(hunt),
            None => self.carry_out(),
        }
        for asked in self.sites.iter().map(|s| &s.asked).chain([&all]) {
            asked.stop.store(true, Ordering::SeqCst);
        }
        apps.into_iter()
            .map(|app| app.join().expect("a writer"))
            .collect()
    }

    /// Begins and ends the faults at their times, and takes all of them back.
    fn carry_out(&mut self) {
        let plan = self.plan;
        let mut events: Vec<(Duration, bool, &Planned)> = Vec::new();
        for fault in &plan.faults {
            events.push((fault.from, true, fault));
            events.push((fault.until, false, fault));
        }
        events.sort_by_key(|(at, begins, _)| (*at, *begins));
        let started = Instant::now();
        for (at, begins, planned) in events {
            // The plan's own time: nothing is awaited here.
            std::thread::sleep(at.saturating_sub(started.elapsed()));
            self.look_after_services();
            match begins {
                true => self.begin(planned),
                false => self.end(planned),
            }
        }
        for site in &self.sites {
            site.proxy.set(Mode::Pass);
        }
    }

    /// Leads to what a bug needs, for up to [`HUNT`].
    fn hunt(&mut self, hunt: Hunt) {
        let end = Instant::now() + HUNT;
        let in_time = || Instant::now() < end;
        let wait = || std::thread::sleep(Duration::from_millis(20));
        match hunt {
            Hunt::Forgotten => {
                let mut read = self.of_server();
                while in_time() {
                    let now = self.of_server();
                    if now.iter().all(|v| read.contains(v)) {
                        wait();
                        continue;
                    }
                    self.server.restart().expect("the server again");
                    if now.iter().any(|v| !self.has_arrived(v)) {
                        break;
                    }
                    read = now;
                }
            }
            Hunt::Deaths => {
                for n in 0..self.sites.len() {
                    self.stop_service(n, libc::SIGKILL);
                    self.start_service(n, Some(("apply_before_commit", 1)));
                }
                for n in 0..self.sites.len() {
                    let service = self.sites[n].service.as_mut().expect("a service");
                    while in_time() && service.is_running() {
                        wait();
                    }
                    let written = || self.sites[n].asked.written.load(Ordering::SeqCst);
                    let enough = written() + 10;
                    while in_time() && written() < enough {
                        wait();
                    }
                }
                self.look_after_services();
            }
            Hunt::Deadlocks => {
                // Locks are held for as long as a commit travels, and others queue up behind them.
                for site in &self.sites {
                    site.proxy.set(Mode::Delay(Duration::from_millis(60)));
                }
                while in_time() && super::judge::deadlocks(self) == 0 {
                    wait();
                }
            }
        }
        for site in &self.sites {
            site.proxy.set(Mode::Pass);
        }
    }

    /// The values of PostgreSQL's writer that devices hold.
    fn of_server(&self) -> Vec<String> {
        let writer = self.plan.devices;
        let held = format!(
            "select v from notes where v like '<{writer}.%' union all select v from pairs \
             where v like '<{writer}.%' union all select v from sums where v like '<{writer}.%'"
        );
        let rows = self.sites.iter().flat_map(|s| s.device.rows(&held));
        rows.flatten().collect()
    }

    /// Whether a value was ever committed to a mirror, as far as the server knows.
    fn has_arrived(&self, value: &str) -> bool {
        let found = format!("select count(*) from seen where v = '{value}'");
        self.audit.one(&found) != "0"
    }

    fn begin(&mut self, planned: &Planned) {
        let counted = match &planned.fault {
            Fault::Crash => self.server.stop_immediate().map(|()| true).expect("a stop"),
            Fault::Terminate => self.end_sessions(),
            Fault::Restore => {
                self.backup = Some(Backup::of(&self.server));
                true
            }
            fault => self.strike(fault, planned.until - planned.from),
        };
        if counted {
            *self.counts.entry(planned.fault.kind()).or_default() += 1;
        }
    }

    /// A fault of one device; whether there was something to strike.
    fn strike(&mut self, fault: &Fault, lasts: Duration) -> bool {
        let n = match fault {
            Fault::Net(n, _) | Fault::Cut(n) | Fault::Abandon(n) | Fault::Kill(n) => *n,
            Fault::KillAt(n, ..) | Fault::Restart(n) | Fault::Freeze(n) | Fault::Full(n, _) => *n,
            Fault::Hold(n) | Fault::Reader(n) | Fault::Now(n) | Fault::Pause(n) => *n,
            Fault::Crash | Fault::Terminate | Fault::Restore => unreachable!("of the server"),
        };
        let site = &mut self.sites[n];
        match fault {
            Fault::Net(_, mode) => site.proxy.set(mode.clone()),
            Fault::Cut(_) => site.proxy.cut_all(),
            Fault::Abandon(_) => site.proxy.abandon_all(),
            Fault::Hold(_) => *site.asked.hold.lock().expect("the hold") = Some(lasts),
            Fault::Reader(_) => {
                let reader = site.device.sqlite();
                let begun = reader.execute_batch("begin; select count(*) from notes");
                begun.expect("a reader");
                site.reader = Some(reader);
            }
            Fault::Now(_) => {
                let now = site.device.spawn(&["--json", "now", "--timeout", "20"]);
                site.beside.push(now);
            }
            Fault::Pause(_) => site.beside.push(site.device.spawn(&["pause"])),
            Fault::KillAt(_, point, nth) => {
                self.stop_service(n, libc::SIGKILL);
                self.start_service(n, Some((point, *nth)));
            }
            Fault::Kill(_) => self.stop_service(n, libc::SIGKILL),
            Fault::Restart(_) => self.stop_service(n, libc::SIGTERM),
            Fault::Freeze(_) => return site.signal(libc::SIGSTOP),
            Fault::Full(_, entirely) => {
                // One that starts on a full disk ends with 4, as it says; one that runs goes on.
                let running = |s: &Running| s.stderr().contains("tidewater is running");
                if !site.service.as_ref().is_some_and(running) {
                    return false;
                }
                // What the file and its log have now is all that there is.
                let most = size(&site.device, "").max(size(&site.device, "-wal"));
                return site.limit_files(if *entirely { 0 } else { most });
            }
            Fault::Crash | Fault::Terminate | Fault::Restore => unreachable!("of the server"),
        }
        true
    }

    fn end(&mut self, planned: &Planned) {
        match &planned.fault {
            Fault::Net(n, _) | Fault::Abandon(n) => self.sites[*n].proxy.set(Mode::Pass),
            Fault::Kill(n) | Fault::Restart(n) => self.start_service(*n, None),
            Fault::Freeze(n) => {
                self.sites[*n].signal(libc::SIGCONT);
            }
            Fault::Full(n, _) => {
                self.sites[*n].limit_files(libc::RLIM_INFINITY);
            }
            Fault::Reader(n) => self.sites[*n].reader = None,
            Fault::Pause(n) => {
                let site = &mut self.sites[*n];
                let resume = site.device.spawn(&["resume"]);
                site.beside.push(resume);
            }
            Fault::Crash => self.server.start_again().expect("the server again"),
            Fault::Restore => {
                let backup = self.backup.take().expect("the copy");
                backup.put_back(&self.server);
            }
            // Where it never came to the point, it goes on with the point armed.
            Fault::KillAt(..) => {}
            Fault::Cut(_) | Fault::Hold(_) | Fault::Now(_) | Fault::Terminate => {}
        }
    }

    fn end_sessions(&self) -> bool {
        let Ok(client) = Client::try_connect(&self.server.url()) else {
            return false;
        };
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where application_name like 'tidewater/%'";
        client.try_rows(sql).is_ok_and(|rows| !rows.is_empty())
    }

    fn start_service(&mut self, n: usize, point: Option<(&str, u32)>) {
        let site = &mut self.sites[n];
        let mut command = site.device.command(&["run"]);
        if let Some((name, nth)) = point {
            command.env("TIDEWATER_FAILPOINT", format!("{name}:{nth}"));
        }
        // SAFETY: signal is async-signal-safe. A write beyond the limit of a file is to fail as on a full
        // disk, not to kill.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                Ok(())
            });
        }
        site.service = Some(Running::spawn(command));
        site.armed = point.is_some();
    }

    /// SIGTERM must end it in order.
    fn stop_service(&mut self, n: usize, signal: i32) {
        self.sites[n].measure();
        let site = &mut self.sites[n];
        let Some(service) = site.service.take() else {
            return;
        };
        service.signal(signal);
        let ended = service.wait(GOODBYE);
        let well = match ended.code {
            0 => true,
            // A moment ago it may have met its own crash point.
            code if code == -libc::SIGKILL => signal == libc::SIGKILL || site.armed,
            // Before it listens for signals there is nothing in hand.
            code if code == -libc::SIGTERM => !ended.stderr.contains("tidewater is running"),
            _ => false,
        };
        if !well {
            self.complaints.push(format!(
                "device {n}: `run` ended with {} after signal {signal}",
                ended.code
            ));
        }
        site.said.push(ended.stderr);
    }

    /// Measures what runs, and starts again what died at its crash point. Nothing else may end.
    fn look_after_services(&mut self) {
        for n in 0..self.sites.len() {
            let site = &mut self.sites[n];
            site.measure();
            let Some(service) = &mut site.service else {
                continue;
            };
            if service.is_running() {
                continue;
            }
            let ended = site.service.take().expect("it is there").wait(GOODBYE);
            if !(site.armed && ended.code == -libc::SIGKILL) {
                self.complaints.push(format!(
                    "device {n}: `run` ended with {} by itself",
                    ended.code
                ));
            }
            site.said.push(ended.stderr);
            *self.counts.entry("died at the point").or_default() += 1;
            self.start_service(n, None);
        }
    }

    /// Waits until nothing is under way and all hold the same; what is still different at the end.
    pub fn drain(&mut self) -> Result<Duration, String> {
        let started = Instant::now();
        for n in 0..self.sites.len() {
            for process in std::mem::take(&mut self.sites[n].beside) {
                let ended = process.wait(self.plan.drain + GOODBYE);
                // An app that holds the lock for long keeps a command out as well.
                let busy = ended.code == 4 && self.plan.holds();
                if !busy && ![0, 1, 3].contains(&ended.code) {
                    self.complaints.push(format!(
                        "device {n}: a command beside the service ended with {}: {} {}",
                        ended.code, ended.stdout, ended.stderr
                    ));
                }
            }
            self.sites[n].device.tw(&["resume"]).ok();
        }
        loop {
            self.look_after_services();
            let unsettled = self.unsettled();
            if unsettled.is_empty() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > self.plan.drain {
                return Err(unsettled.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is under way or differs, in words.
    fn unsettled(&self) -> Vec<String> {
        let mut found = Vec::new();
        let there: Vec<_> = TABLES_BY_KEY.iter().map(|q| self.schema.rows(q)).collect();
        for (n, site) in self.sites.iter().enumerate() {
            for query in UNDER_WAY {
                let rows = site.device.rows(query);
                if !rows.is_empty() {
                    found.push(format!("device {n}: {query}: {rows:?}"));
                }
            }
            for (query, there) in TABLES_BY_KEY.iter().zip(&there) {
                let here = site.device.rows(query);
                if here != *there {
                    let only = |a: &[Vec<String>], b: &[Vec<String>]| -> Vec<Vec<String>> {
                        a.iter().filter(|r| !b.contains(r)).cloned().collect()
                    };
                    found.push(format!(
                        "device {n}: {query}: only here {:?}; only there {:?}",
                        only(&here, there),
                        only(there, &here)
                    ));
                }
            }
        }
        found
    }

    /// Ends the services in order.
    pub fn rest(&mut self) {
        for n in 0..self.sites.len() {
            self.stop_service(n, libc::SIGTERM);
        }
    }
}

/// What a device has under way. Empty at rest.
const UNDER_WAY: [&str; 6] = [
    "select tbl, op, k1 from tidewater_log",
    "select tbl, pk, op, status, error from tidewater_outbox where status <> 'synced'",
    "select seq from tidewater_batch",
    "select tbl, pk from tidewater_note",
    "select tbl, pk, error from tidewater_inbox where status = 'failed'",
    "select v from tidewater_guard where v <> 0",
];

const TABLES_BY_KEY: [&str; 3] = [
    "select id, v from notes order by 1",
    "select a, b, v from pairs order by 1, 2",
    "select id, v from sums order by 1",
];

impl Site {
    /// Whether there was a process to tell.
    fn signal(&self, signal: i32) -> bool {
        self.service.as_ref().is_some_and(|s| {
            s.signal(signal);
            true
        })
    }

    /// Lets no file of the service grow beyond `bytes`, log and standard error among them.
    fn limit_files(&self, bytes: u64) -> bool {
        let Some(service) = &self.service else {
            return false;
        };
        let pid = i32::try_from(service.pid()).expect("a process id");
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit outlives the call; the old one is not asked for.
        let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "prlimit: {}", std::io::Error::last_os_error());
        true
    }

    fn measure(&mut self) {
        self.wal = self.wal.max(size(&self.device, "-wal"));
        let Some(service) = &self.service else {
            return;
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()));
        let memory = status.unwrap_or_default().lines().find_map(|line| {
            let rest = line.strip_prefix("VmHWM:")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        self.memory = self.memory.max(memory.unwrap_or(0));
    }
}

/// The size of the device's file, or of the one beside it with this ending.
pub fn size(device: &Device, ending: &str) -> u64 {
    let path = format!("{}{ending}", device.db().display());
    std::fs::metadata(path).map_or(0, |m| m.len())
}
