//! Exactly once, though the answer to COMMIT is lost again and again: nothing is applied twice, nothing
//! is missing, and nobody is in conflict with himself.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS};
use crate::support::proxy::{Mode, Proxy};
use crate::support::seed;
use crate::support::wait::{PATIENCE, eventually};
use std::collections::BTreeMap;

const CUTS: u64 = 200;
const ROUNDS: u64 = 10;

/// Counts on the server, in the writer's own transaction, how often each change was written.
fn count_writes(fleet: &Fleet) {
    fleet.schema.exec(&format!(
        "create table written (change text, op text); \
         create function count_write() returns trigger language plpgsql as $$ begin \
         if tg_op = 'DELETE' then insert into {s}.written values (old.id, tg_op); \
         else insert into {s}.written values (right(new.tidewater_change, 16), tg_op); end if; \
         return null; end $$; \
         create trigger counting after insert or update or delete on items \
         for each row execute function count_write()",
        s = fleet.schema.name()
    ));
}

/// One edit of a random row: the keys are this device's own, so any conflict is one with itself.
fn edit(rng: &mut fastrand::Rng, owner: &str, model: &mut BTreeMap<String, i64>, n: i64) -> String {
    let id = format!("{owner}{:02}", rng.u32(0..40));
    if model.contains_key(&id) && rng.u32(0..4) == 0 {
        model.remove(&id);
        return format!("delete from items where id = '{id}'");
    }
    model.insert(id.clone(), n);
    format!(
        "insert into items values ('{id}', '{owner}', {n}) \
         on conflict (id) do update set n = excluded.n"
    )
}

fn rows(model: &BTreeMap<String, i64>) -> Vec<Vec<String>> {
    let row = |(id, n): (&String, &i64)| vec![id.clone(), id[..1].to_owned(), n.to_string()];
    model.iter().map(row).collect()
}

/// How many batches a device has pushed, by the server's ledger.
fn batches(fleet: &Fleet, name: &str) -> u64 {
    let sql = format!("select push_seq from tidewater_devices where name = '{name}'");
    fleet.schema.one(&sql).parse().expect("a number")
}

#[test]
fn an_answer_lost_two_hundred_times_applies_nothing_twice() {
    let mut rng = seed::rng();
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(ITEMS);
    // One change a batch: as many answers to lose as there are changes.
    let single = "[upload]\nbatch_size = 1\nbatch_size_max = 1\n";
    let a = fleet.device_through(&proxy, "a", single);
    let b = fleet.device("b");
    fleet.converge(&[&a, &b], ALL);
    count_writes(&fleet);
    let mut model = BTreeMap::new();
    let (mut cuts, mut sent, mut n) = (0, 0, 0);
    let before = batches(&fleet, "a");
    for _ in 0..ROUNDS {
        // Each commit's own answer is lost; the same batch then comes a second time.
        proxy.set(Mode::CutAfterCommitReply);
        proxy.reset_stats();
        let mut touched = std::collections::BTreeSet::new();
        while touched.len() < usize::try_from(CUTS / ROUNDS).expect("small") {
            n += 1;
            let statement = edit(&mut rng, "a", &mut model, n);
            touched.insert(statement.split('\'').nth(1).map(str::to_owned));
            a.sql(&statement);
        }
        let report = a.json(&["now", "--push"]);
        sent += report["uploaded"].as_u64().expect("a number");
        assert_eq!(
            (&report["pending"], &report["failed"]),
            (&0.into(), &0.into())
        );
        cuts += proxy.stats().cuts;
        proxy.set(Mode::Pass);
        // The other device reads along, so that a change applied late or twice would meet it.
        b.json(&["now"]);
        assert_eq!(b.rows(ALL), rows(&model));
        a.json(&["now", "--pull"]);
    }
    assert!(cuts >= CUTS, "{cuts} answers were lost");
    assert_eq!(
        cuts, sent,
        "each batch lost its answer once and got the stored one"
    );
    assert_eq!(
        batches(&fleet, "a") - before,
        sent,
        "the ledger counts each batch once"
    );
    let twice = "select change, count(*) from written where op <> 'DELETE' \
                 group by 1 having count(*) > 1";
    assert!(fleet.server(twice).is_empty());
    let written: u64 = fleet
        .schema
        .one("select count(*) from written")
        .parse()
        .expect("a number");
    assert!(written <= sent, "{written} writes for {sent} changes");
    assert_eq!(fleet.conflicts(), 0);
    fleet.expect_equal(&[&a, &b], ALL);
    assert_eq!(a.rows(ALL), rows(&model));
    assert_eq!(a.json(&["status"])["upload"]["synced_total"], sent);
}

/// A connection that cannot tell whether its commit arrived: the plain retry, kept as proof.
#[test]
fn a_plain_retry_after_a_lost_answer_applies_twice() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(ITEMS);
    let url = fleet.schema.url_through(proxy.host(), proxy.port());
    fleet
        .schema
        .exec("create table counter (n integer); insert into counter values (0)");
    let add = format!("update {}.counter set n = n + 1", fleet.schema.name());
    proxy.set_times(Mode::CutAfterCommitReply, 1);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let client = crate::support::server::Client::connect(&url);
        client.exec("begin");
        client.exec(&add);
        if client.try_exec("commit").is_ok() {
            break;
        }
    }
    assert_eq!(
        (attempts, fleet.schema.one("select n from counter").as_str()),
        (2, "2")
    );
}

/// Everything that both devices wrote, in the shared tables of their running services.
#[test]
pub fn services_whose_every_commit_may_lose_its_answer_converge_without_a_conflict() {
    let mut rng = seed::rng();
    let proxy = Proxy::shared_server();
    let fleet = Fleet::configured(
        ITEMS,
        "[upload]\npoll_interval_seconds = 0.05\n[download]\npoll_interval_seconds = 0.05\n\
         [retry]\nbase_delay_seconds = 0.01\nmax_delay_seconds = 0.05\n",
    );
    let devices: [Device; 2] = [
        fleet.device_through(&proxy, "a", ""),
        fleet.device_through(&proxy, "b", ""),
    ];
    let services = devices.each_ref().map(|d| d.spawn(&["run"]));
    let mut models = [BTreeMap::new(), BTreeMap::new()];
    let mut n = 0;
    while proxy.stats().cuts < 60 {
        // Pulls commit as well: their answers are lost just so.
        let goal = proxy.stats().cuts + 3;
        proxy.set_times(Mode::CutAfterCommitReply, 3);
        for (i, d) in devices.iter().enumerate() {
            n += 1;
            d.sql(&edit(&mut rng, ["a", "b"][i], &mut models[i], n));
        }
        eventually(PATIENCE, "three lost answers", || {
            n += 1;
            devices[0].sql(&edit(&mut rng, "a", &mut models[0], n));
            proxy.stats().cuts >= goal
        });
    }
    proxy.set(Mode::Pass);
    let all: BTreeMap<_, _> = models
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), *v))
        .collect();
    let expected = rows(&all);
    eventually(PATIENCE, "convergence", || {
        devices.iter().all(|d| d.rows(ALL) == expected)
    });
    assert_eq!(fleet.server(ALL), expected);
    assert_eq!(fleet.conflicts(), 0);
    for service in services {
        service.signal(libc::SIGTERM);
        service.wait(PATIENCE).ok();
    }
}
