//! Schemas that other people's code made, on two devices with edits on both and in Postgres: Django's own
//! applications, a Rails app, a browser's history, Chinook with keys that the database hands out.

use crate::orms;
use crate::schemas::{a_minute_ago, equal};
use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use crate::support::server::Schema;
use rusqlite::Connection;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// No waiting for what only a unique value keeps out.
const SOON: &str = "[retry]\nbase_delay_seconds = 0.001\nmax_delay_seconds = 0.005\n";

/// Syncs until nobody has anything to send or to fetch.
#[track_caller]
fn rest(devices: &[&Device]) {
    for round in 0.. {
        let mut busy = false;
        for d in devices {
            let done = d.tw(&["--json", "now"]).json();
            busy |= ["uploaded", "downloaded", "pending", "failed"]
                .iter()
                .any(|n| done[n] != 0);
        }
        if !busy {
            return;
        }
        assert!(round < 12, "no end to it");
    }
}

/// Brings the rows back that a device lost to others of the same key, parents first; their families come
/// with them.
#[track_caller]
fn bring_back(device: &Device, tables: &[&str]) {
    for table in tables {
        for c in conflicts(device) {
            let lost = c["winner"] == "remote" && c["kind"] == "key_collision";
            if lost && c["table"] == *table {
                let id = c["id"].as_str().expect("an id");
                let now = device.json(&["conflicts", "show", id]);
                if now["conflicts"][0]["restored_as"] == Value::Null {
                    device.tw(&["conflicts", "restore", id]).ok();
                }
            }
        }
    }
}

/// Kinds of the conflicts that a device lists.
fn kinds(device: &Device, table: &str) -> Vec<String> {
    let all = conflicts(device);
    let of = all.iter().filter(|c| c["table"] == table);
    of.map(|c| c["kind"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn djangos_auth_and_admin_are_the_same_on_all_sides() {
    let Some(python) = orms::python() else { return };
    let run = |device: &Device, arguments: &[&str]| {
        let done = Command::new(python)
            .current_dir(orms::root().join("tests/orms/django"))
            .args(arguments)
            .env("APP_DB", device.db())
            .env("PYTHONPATH", ".")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DJANGO_SETTINGS_MODULE", "office")
            .output()
            .expect("it runs");
        assert!(
            done.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    let day = |device: &Device, what: &str, who: &str| run(device, &["office_day.py", what, who]);
    let schema = Schema::new();
    let devices: Vec<Device> = ["a", "b"]
        .iter()
        .map(|name| {
            let device = Device::with_url(schema.url(), schema.name(), name, SOON);
            // Content types and permissions are made by each device's own migration, and are the same.
            run(&device, &["-m", "django", "migrate", "-v0"]);
            device.tw(&["init"]).ok();
            device
        })
        .collect();
    let (a, b) = (&devices[0], &devices[1]);
    let fleet = Fleet::within(schema, "", "");
    rest(&[a, b]);
    assert_eq!(fleet.conflicts(), 0, "what both made alike is no conflict");
    equal(&fleet, &[a, b]);

    day(a, "hire", "ann");
    a_minute_ago(a);
    day(b, "hire", "bob");
    fleet.schema.exec(
        "update auth_permission set name = 'Can look at users' where codename = 'view_user'; \
         insert into auth_group (id, name) values (50, 'by sql');",
    );
    rest(&[a, b]);
    equal(&fleet, &[a, b]);
    // Both got the first key. The earlier one is not lost, nor is what only looks like the other's.
    assert_eq!(a.rows("select username from auth_user"), [["bob"]]);
    assert_eq!(kinds(a, "auth_user"), ["key_collision"]);
    assert_eq!(kinds(a, "auth_user_groups"), ["key_collision"]);
    bring_back(a, &["auth_user", "auth_group"]);
    rest(&[a, b]);
    equal(&fleet, &[a, b]);
    let rights = "
        select u.username, g.name, count(p.id), (select count(*) from auth_user_user_permissions x where x.user_id = u.id),
          (select count(*) from django_admin_log l where l.user_id = u.id and l.object_repr = u.username)
        from auth_user u join auth_user_groups m on m.user_id = u.id join auth_group g on g.id = m.group_id
        left join auth_group_permissions p on p.group_id = g.id group by 1, 2, u.id order by 1";
    assert_eq!(
        b.rows(rights),
        [
            ["ann", "friends of ann", "6", "1", "1"],
            ["bob", "friends of bob", "6", "1", "1"]
        ]
    );

    day(b, "promote", "ann");
    day(a, "dismiss", "bob");
    rest(&[a, b]);
    equal(&fleet, &[a, b]);
    assert_eq!(
        b.rows("select username, is_staff from auth_user"),
        [["ann", "1"]]
    );
    for d in [a, b] {
        assert!(d.rows("pragma foreign_key_check").is_empty());
        run(d, &["-m", "django", "check", "--database", "default"]);
    }
}

#[test]
fn a_rails_app_is_the_same_on_all_sides() {
    let fleet = Fleet::configured(include_str!("data/rails.sql"), SOON);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let skipped = a.json(&["init"])["skipped"].clone();
    let left_out: Vec<&Value> = skipped
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(
        left_out,
        [
            "ar_internal_metadata",
            "projects_users",
            "schema_migrations"
        ],
        "{skipped}"
    );
    let at = "'2024-05-01 10:00:00.123456'";
    a.sql(&format!(
        "pragma foreign_keys = on;
         insert into users (email, admin, born_on, wakes_at, settings, created_at, updated_at)
           values ('ann@x', 1, '1990-02-28', '2000-01-01 06:30:00.000000', '{{\"theme\":\"dark\",\"n\":[1,2.50]}}', {at}, {at});
         insert into projects (name, slug, budget, hours, created_at, updated_at) values ('Bridge', 'bridge', 1000.25, 1.1, {at}, {at}),
           ('Old', 'old', 3, 0.1, {at}, {at});
         update projects set archived_at = {at} where slug = 'old';
         insert into memberships (user_id, project_id, role) values (1, 1, 2);"
    ));
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    // Each app goes on by itself: the same keys, and slugs that only archived projects have.
    let work = |who: &str, size: u32| {
        format!(
            "pragma foreign_keys = on; begin;
             insert into users (email, created_at, updated_at) values ('{who}@y', {at}, {at});
             insert into projects (name, slug, budget, created_at, updated_at) values ('Of {who}', 'of-{who}', 10.5, {at}, {at});
             insert into memberships (user_id, project_id) select max(u.id), max(p.id) from users u, projects p;
             insert into comments (commentable_type, commentable_id, author_id, body, created_at, updated_at)
               select 'Project', 1, max(id), 'by {who}', {at}, {at} from users;
             insert into comments (commentable_type, commentable_id, author_id, parent_id, body, created_at, updated_at)
               select 'Project', 1, max(u.id), max(c.id), 'reply of {who}', {at}, {at} from users u, comments c;
             insert into active_storage_blobs (key, filename, content_type, metadata, service_name, byte_size, checksum, created_at)
               values ('{who}-key', '{who}.png', 'image/png', '{{\"identified\":true}}', 'local', {size}, 'x==', {at});
             insert into active_storage_attachments (name, record_type, record_id, blob_id, created_at)
               select 'file', 'Project', 1, max(id), {at} from active_storage_blobs;
             insert into action_text_rich_texts (id, name, body, record_type, record_id, thumbnail, created_at, updated_at)
               values ('{who}', 'body', '<div>{who}</div>', 'User', {size}, x'89504e47', {at}, {at});
             commit;"
        )
    };
    a.sql(&work("cy", 100));
    b.sql(&work("di", 200));
    a.sql(
        "update projects set budget = budget + 0.5, lock_version = lock_version + 1 where id = 1",
    );
    a_minute_ago(&a);
    b.sql("update users set sign_in_count = 7, settings = null where id = 1");
    fleet.schema.exec(
        "update projects set hours = 2.75 where id = 2; update memberships set role = 5 where id = 1; \
         insert into users (id, email, encrypted_password, sign_in_count, admin, created_at, updated_at) \
         values (90, 'sql@z', '', 0, 0, '2024-05-02 00:00:00', '2024-05-02 00:00:00')",
    );
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    bring_back(&a, &["users", "projects", "active_storage_blobs"]);
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    let told = "select u.email, p.name, c.body, r.body, f.filename from users u
        join memberships m on m.user_id = u.id join projects p on p.id = m.project_id
        left join comments c on c.author_id = u.id and c.parent_id is null left join comments r on r.parent_id = c.id
        left join active_storage_blobs f on f.key like substr(u.email, 1, 2) || '-%'
        left join active_storage_attachments t on t.blob_id = f.id where t.id is not null or u.id = 1 order by 1";
    assert_eq!(
        b.rows(told),
        [
            ["ann@x", "Bridge", "NULL", "NULL", "NULL"],
            ["cy@y", "Of cy", "by cy", "reply of cy", "cy.png"],
            ["di@y", "Of di", "by di", "reply of di", "di.png"]
        ]
    );
    assert_eq!(
        a.rows("select budget, hours from projects where id = 1"),
        [["1000.75", "1.1"]]
    );
    assert!(b.rows("pragma foreign_key_check").is_empty());
}

#[test]
fn a_browsers_history_is_the_same_on_all_sides() {
    let fleet = Fleet::configured(include_str!("data/history.sql"), SOON);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let visit = |url: &str, title: &str, at: u32| {
        format!(
            "insert into places (url, title, rev_host, guid, url_hash) select '{url}', '{title}', 'gro.' || '{url}', '{at}-{title}', {at}
               where not exists (select 1 from places where url = '{url}');
             insert into visits (place_id, visit_date, visit_type) select id, {at}, 1 from places where url = '{url}';
             insert into inputhistory select id, '{title}', 1.5 from places where url = '{url}'
               on conflict (place_id, input) do update set use_count = use_count * 0.9 + 1;"
        )
    };
    a.sql(&visit("https://start.org", "Start café", 1));
    a.sql(
        "insert into bookmarks (type, fk, parent, position, title, guid) values (2, null, 0, 0, 'menu', 'root'), (1, 1, 1, 0, 'start', 'bk1'); \
         insert into settings values ('zoom', 1.25), ('home', 'https://start.org'), ('n', 3), ('icon', x'00ff'), ('none', null)",
    );
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);

    for (n, (url, title)) in [
        ("https://only-a.org", "Alpha"),
        ("https://both.org", "Both"),
        ("https://start.org", "Start café"),
    ]
    .into_iter()
    .enumerate()
    {
        a.sql(&visit(url, title, 10 + n as u32));
    }
    a.sql("update bookmarks set title = 'begin' where guid = 'bk1'; update settings set value = '1.25' where key = 'zoom'; \
           insert into icons values ('i1', 'https://Both.org', 16, x'89504e47')");
    a_minute_ago(&a);
    for (n, (url, title)) in [
        ("https://only-b.org", "Beta"),
        ("https://both.org", "Both, by b"),
        ("https://more-b.org", "Gamma"),
    ]
    .into_iter()
    .enumerate()
    {
        b.sql(&visit(url, title, 20 + n as u32));
    }
    b.sql("insert into bookmarks (type, fk, parent, position, guid) select 1, id, 1, 1, 'bk-b' from places where url like '%more-b%'; \
           delete from settings where key = 'none'; delete from visits where visit_date = 1");
    a_minute_ago(&a);
    a_minute_ago(&b);
    fleet.schema.exec(
        "update places set title = 'Start, by sql' where id = 1; insert into icons (id, page_url, width) values ('i2', 'x', 0); \
         insert into settings (key, value) values ('from', '\"sql\"')",
    );
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    // Two places that got one key: what a device lost comes back, and its visits with it.
    let lost = kinds(&a, "places");
    assert!(lost.iter().any(|k| k == "key_collision"), "{lost:?}");
    bring_back(&a, &["places", "visits"]);
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    for d in [&a, &b] {
        let count = |sql: &str| d.rows(sql).concat().concat();
        assert_eq!(count("select count(distinct url) from places"), "5");
        assert_eq!(count("select count(*) from places"), "6", "one page twice");
        d.sql("insert into search (search, rank) values ('integrity-check', 1)");
        assert_eq!(
            count("select count(*) from search where search match 'sql OR alpha OR beta OR gamma'"),
            "4"
        );
        // Each visit is where it was made.
        assert_eq!(
            d.rows(
                "select p.url, group_concat(v.visit_date, ' ') from (select * from visits order by visit_date) v \
                 join places p on p.id = v.place_id group by p.url order by 1"
            ),
            [
                ["https://both.org", "11 21"],
                ["https://more-b.org", "22"],
                ["https://only-a.org", "10"],
                ["https://only-b.org", "20"],
                ["https://start.org", "12"]
            ]
        );
        assert_eq!(
            count(
                "select group_concat(typeof(value), ' ') from (select * from settings order by key)"
            ),
            "text text blob integer text"
        );
        assert!(count("select foreign_count from places where url like '%more-b%'") == "1");
    }
}

/// Chinook as it is with keys that the database hands out: its AutoIncrementPKs form.
fn autoincrement(device: &Device) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chinook.db");
    let conn = Connection::open(device.db()).expect("the file");
    conn.pragma_update(None, "foreign_keys", false)
        .expect("a pragma");
    conn.execute(
        "attach ?1 as f",
        [format!("file:{}?mode=ro", fixture.display())],
    )
    .expect("the fixture");
    let tables: Vec<(String, String)> = conn
        .prepare("select name, sql from f.sqlite_schema where type = 'table' order by rowid")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .expect("its tables");
    for (name, sql) in tables {
        let key = format!("[{name}Id] INTEGER  NOT NULL");
        let assigned = format!("[{name}Id] INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL");
        let constraint = format!("CONSTRAINT [PK_{name}] PRIMARY KEY  ([{name}Id])");
        let sql = match sql.contains(&constraint) {
            // The constraint is the last line, or stands before foreign keys.
            true => sql
                .replace(&key, &assigned)
                .replace(&format!("{constraint},"), "")
                .replace(&format!(",\n    {constraint}"), ""),
            false => sql,
        };
        assert!(
            name == "PlaylistTrack" || sql.contains("AUTOINCREMENT") && !sql.contains("PK_"),
            "{sql}"
        );
        conn.execute_batch(&format!(
            "{sql}; insert into main.[{name}] select * from f.[{name}];"
        ))
        .expect("a table");
    }
}

#[test]
fn chinook_with_assigned_keys_is_the_same_on_all_sides() {
    let schema = Schema::new();
    let a = Device::with_url(schema.url(), schema.name(), "a", SOON);
    autoincrement(&a);
    a.tw(&["init"]).ok();
    sides::sync(&a);
    let b = Device::with_url(schema.url(), schema.name(), "b", SOON);
    let file = b.db();
    b.tw(&[
        "clone",
        "--config",
        "tidewater.toml",
        file.to_str().expect("a path"),
    ])
    .ok();
    let fleet = Fleet::within(schema, "", "");

    // Each shop sells: customers, invoices and lines get the same keys, and so do the playlists.
    let sell = |name: &str, tracks: &str| {
        format!(
            "pragma foreign_keys = on; begin;
             insert into Customer (FirstName, LastName, Email, SupportRepId) values ('{name}', 'Ünïque', '{name}@example.org', 3);
             insert into Invoice (CustomerId, InvoiceDate, BillingCountry, Total)
               select max(CustomerId), '2024-05-01 00:00:00', '{name}', 0 from Customer;
             insert into InvoiceLine (InvoiceId, TrackId, UnitPrice, Quantity)
               select (select max(InvoiceId) from Invoice), TrackId, UnitPrice, 1 from Track where TrackId in ({tracks});
             update Invoice set Total = (select sum(UnitPrice * Quantity) from InvoiceLine l where l.InvoiceId = Invoice.InvoiceId)
               where InvoiceId = (select max(InvoiceId) from Invoice);
             insert into Playlist (Name) values ('{name}');
             insert into PlaylistTrack select max(p.PlaylistId), t.TrackId from Playlist p, Track t where t.TrackId in ({tracks}) group by t.TrackId;
             commit;"
        )
    };
    a.sql(&sell("Ann", "1, 2, 3, 2819"));
    b.sql(&sell("Bob", "2, 3, 4"));
    a.sql("update Track set UnitPrice = 1.29 where TrackId = 10; delete from PlaylistTrack where PlaylistId = 1 and TrackId = 3402");
    a_minute_ago(&a);
    b.sql("update Employee set ReportsTo = 1 where EmployeeId = 8; update Artist set Name = null where ArtistId = 25");
    fleet.schema.exec(
        "insert into \"Artist\" (\"ArtistId\", \"Name\") values (276, 'By SQL'); \
         insert into \"Album\" (\"AlbumId\", \"Title\", \"ArtistId\") values (348, 'Also', 276); \
         update \"Track\" set \"Composer\" = 'psql' where \"TrackId\" = 20",
    );
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    for (table, n) in [("Customer", 1), ("Invoice", 1), ("Playlist", 1)] {
        assert_eq!(kinds(&a, table), vec!["key_collision"; n], "{table}");
    }
    bring_back(&a, &["Customer", "Invoice", "Playlist"]);
    rest(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    let sold = "select c.FirstName, i.BillingCountry, count(*), i.Total = sum(l.UnitPrice * l.Quantity),
          (select count(*) from Playlist p join PlaylistTrack t using (PlaylistId) where p.Name = c.FirstName)
        from Customer c join Invoice i using (CustomerId) join InvoiceLine l using (InvoiceId)
        where c.LastName = 'Ünïque' group by 1, 2 order by 1";
    assert_eq!(
        b.rows(sold),
        [["Ann", "Ann", "4", "1", "4"], ["Bob", "Bob", "3", "1", "3"]]
    );
    for d in [&a, &b] {
        assert!(d.rows("pragma foreign_key_check").is_empty());
    }
}
