//! The app's SQLite file, opened as a guest.
//!
//! Invariants: write transactions are IMMEDIATE and short; none is held over the network. The journal
//! mode is the app's and never changed. Foreign keys are off on this connection: rows arrive in any
//! order, and what dangles is reported, not refused. A file made by a newer program is refused.

use super::barred::Barred;
use super::capture::ledger;
use super::fault::OrFault;
use super::first;
use super::quote::ident;
use super::state;
use super::status_view;
pub use super::stopped::{Stopped, forget_stops, stopped};
use super::stopped::{remember_renamed, stop, stop_name};
use crate::error::{Code, Disposition, Error, Result};
use crate::model::Table;
use crate::remote::{Mirror, Tracked};
pub use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::{OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The migrations of the file in their order; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_tidewater.sql"),
    include_str!("../../migrations/sqlite/0002_operations.sql"),
    include_str!("../../migrations/sqlite/0003_schemas.sql"),
];

/// The migration, from 0, that brought the columns of the view.
const WITH_VIEW: usize = 1;

/// The page cache, as `PRAGMA cache_size` wants it: less than nothing is KiB. The default of two MiB does
/// not hold the upper parts of the outbox's indexes.
const CACHE_KIB: i64 = -4_096;

/// How long a write waits for the app's lock.
const BUSY: Duration = Duration::from_secs(5);

/// A write transaction, for callers that do not know the driver.
pub type Tx<'a> = Transaction<'a>;

/// Told how long each write transaction waited for its lock.
pub type OnWait = Box<dyn Fn(Duration) + Send + Sync>;

/// An open file with tidewater's tables in it, or not yet.
pub struct Local {
    pub(super) conn: Connection,
    pub(super) barred: Barred,
    path: PathBuf,
    inode: (u64, u64),
    on_wait: Option<OnWait>,
}

/// Device and inode of a file: what a restore by rename changes.
fn inode(path: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let m = std::fs::metadata(path).map_err(|e| {
        Error::new(
            Code::LocalUnusable,
            format!("{}: {e}", path.display()),
            "check the path under [local] path, or --db",
        )
    })?;
    Ok((m.dev(), m.ino()))
}

impl Local {
    /// Opens an existing file for reading and writing. Nothing is written.
    pub fn open(path: &Path) -> Result<Local> {
        let identity = inode(path)?;
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .or_fault(&format!("opening {}", path.display()))?;
        Self::settle(conn, path, identity)
    }

    /// Creates a new file; used by `clone` only.
    pub fn create(path: &Path) -> Result<Local> {
        let conn = Connection::open(path).or_fault(&format!("creating {}", path.display()))?;
        let identity = inode(path)?;
        Self::settle(conn, path, identity)
    }

    fn settle(conn: Connection, path: &Path, inode: (u64, u64)) -> Result<Local> {
        let what = format!("opening {}", path.display());
        conn.busy_timeout(BUSY).or_fault(&what)?;
        conn.set_prepared_statement_cache_capacity(256);
        // Else SQLite compiles a statement anew whenever another value is bound to a condition of which
        // some index covers a part only, and that is nearly all of ours.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .or_fault(&what)?;
        conn.pragma_update(None, "cache_size", CACHE_KIB)
            .or_fault(&what)?;
        conn.pragma_update(None, "foreign_keys", false)
            .or_fault(&what)?;
        conn.pragma_update(None, "synchronous", "full")
            .or_fault(&what)?;
        // The first read tells whether this is a database at all.
        conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))
            .or_fault(&what)?;
        Ok(Local {
            conn,
            barred: Barred::default(),
            path: path.to_owned(),
            inode,
            on_wait: None,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection, for reading.
    pub fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Fails where the file under the path is not the one that was opened: it was restored by rename,
    /// and this descriptor would write into nowhere without an error.
    pub fn still_there(&self) -> Result<()> {
        if inode(&self.path)? == self.inode {
            return Ok(());
        }
        Err(Error::new(
            Code::LocalUnusable,
            format!("{} was replaced by another file", self.path.display()),
            "it is opened again by itself",
        )
        .with_disposition(Disposition::Reconnect))
    }

    /// Begins a write transaction: IMMEDIATE, for a read that turns into a write ignores the busy timeout.
    pub fn begin(&mut self) -> Result<Transaction<'_>> {
        crate::failpoint::write_begins();
        let asked = Instant::now();
        let begun = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .or_fault("taking the file's write lock");
        if let Some(tell) = &self.on_wait {
            tell(asked.elapsed());
        }
        begun
    }

    /// Tells `on_wait` of every later wait for the write lock, given up or not.
    pub fn tell_waits(&mut self, on_wait: OnWait) {
        self.on_wait = Some(on_wait);
    }

    /// Whether tidewater's tables are in the file.
    pub fn is_initialised(&self) -> Result<bool> {
        has_table(&self.conn, "tidewater_state")
    }

    /// Fails where a newer program made tidewater's tables; a file without any is fine.
    pub fn require_known(&self) -> Result<()> {
        if self.is_initialised()? {
            refuse_newer(&self.conn)?;
        }
        Ok(())
    }

    /// Fails with a remedy where the file was never initialised, or by a newer program. A file that an
    /// older program made is brought up to date.
    pub fn require_initialised(&self) -> Result<()> {
        if !self.is_initialised()? {
            return Err(Error::new(
                Code::LocalUnusable,
                format!("{} is not a tidewater device yet", self.path.display()),
                "run `tidewater init`",
            ));
        }
        refuse_newer(&self.conn)?;
        if migration(&self.conn)? < MIGRATIONS.len() {
            let tx = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)
                .or_fault("preparing the file")?;
            let known = schema_is_known(&tx)?;
            Self::migrate(&tx)?;
            // Our own statements moved it: nothing of the app's did. Where the ledger is to be kept from
            // now on, the next look at the schema begins it.
            if known && !ledger::is_due(&tx)? {
                state::set_number(&tx, "schema_version", schema_version(&tx)?)?;
            }
            tx.commit().or_fault("preparing the file")?;
        }
        Ok(())
    }

    /// Brings tidewater's own tables up to date. Inside a transaction of the caller.
    pub fn migrate(tx: &Connection) -> Result<()> {
        let done = if has_table(tx, "tidewater_state")? {
            refuse_newer(tx)?;
            migration(tx)?
        } else {
            0
        };
        for (n, sql) in MIGRATIONS.iter().enumerate().skip(done) {
            tx.execute_batch(sql).or_fault("preparing the file")?;
            state::set(tx, "migration", &(n + 1).to_string())?;
            if n == WITH_VIEW {
                status_view::fill(tx)?;
                let tables: Vec<Table> = load_tables(tx)?.into_iter().map(|k| k.table).collect();
                status_view::install(tx, &tables)?;
            }
        }
        Ok(())
    }

    /// The folder in which a conflict's file and the lock belong.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// `PRAGMA data_version`: changes with every commit of another connection.
    pub fn data_version(&self) -> Result<i64> {
        self.conn
            .query_row("pragma data_version", [], |r| r.get(0))
            .or_fault("looking for changes")
    }

    /// `PRAGMA user_version`, the app's own.
    pub fn user_version(&self) -> Result<i64> {
        self.conn
            .query_row("pragma user_version", [], |r| r.get(0))
            .or_fault("reading the file")
    }
}

/// The SQL of tidewater's own tables, for `init --dry-run`.
pub fn migrations_sql() -> Vec<String> {
    MIGRATIONS.iter().map(|m| (*m).to_owned()).collect()
}

/// The names of tidewater's own tables, as the migrations make them.
pub fn own_tables() -> Result<Vec<String>> {
    let empty = Connection::open_in_memory().or_fault("reading the migrations")?;
    Local::migrate(&empty)?;
    let mut s = empty
        .prepare("select name from sqlite_schema where type = 'table' order by name")
        .or_fault("reading the migrations")?;
    s.query_map([], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault("reading the migrations")
}

/// Whether a table is in the file.
pub fn has_table(conn: &Connection, name: &str) -> Result<bool> {
    conn.query_row(
        "select count(*) from sqlite_schema where type = 'table' and name = ?1",
        [name],
        |r| r.get::<_, i64>(0),
    )
    .map(|n| n > 0)
    .or_fault("reading the file's schema")
}

fn migration(conn: &Connection) -> Result<usize> {
    Ok(state::get(conn, "migration")?
        .and_then(|v| v.parse().ok())
        .unwrap_or(0))
}

fn refuse_newer(conn: &Connection) -> Result<()> {
    let done = migration(conn)?;
    if done > MIGRATIONS.len() {
        return Err(Error::new(
            Code::LocalUnusable,
            format!(
                "the file was prepared by a newer tidewater (migration {done}, this one knows {})",
                MIGRATIONS.len()
            ),
            "upgrade tidewater on this device",
        ));
    }
    Ok(())
}

/// `PRAGMA schema_version`.
pub fn schema_version(conn: &Connection) -> Result<i64> {
    conn.query_row("pragma schema_version", [], |r| r.get(0))
        .or_fault("reading the file's schema")
}

/// The error by which claim and apply say that the schema moved under them; the engine looks at the
/// schema again, reinstalls capture and goes on.
pub fn schema_moved() -> Error {
    Error::new(
        Code::SchemasDiffer,
        "the app changed its schema",
        "capture is installed again by itself",
    )
    .with_disposition(Disposition::SchemaDrift)
}

/// Whether the schema is the one that capture was installed for.
pub fn schema_is_known(conn: &Connection) -> Result<bool> {
    let known = state::get(conn, "schema_version")?.and_then(|v| v.parse::<i64>().ok());
    Ok(known == Some(schema_version(conn)?))
}

/// Fails with [`schema_moved`] where the schema is not the one capture was installed for. Called right
/// after BEGIN IMMEDIATE, so that it holds for the whole transaction.
pub fn check_schema(tx: &Connection) -> Result<()> {
    if schema_is_known(tx)? {
        Ok(())
    } else {
        Err(schema_moved())
    }
}

/// Writes down the tracked tables, keeping what was learned of their mirrors.
pub fn store_tables(tx: &Connection, tables: &[Table]) -> Result<()> {
    let old = load_tables(tx)?;
    let kept = first::kept(tx)?;
    tx.execute("delete from tidewater_table", [])
        .or_fault("storing the tables")?;
    for (rank, t) in tables.iter().enumerate() {
        let before = old.iter().find(|o| o.table.name == t.name);
        // A table whose columns changed must meet its mirror again.
        let mirror = before
            .filter(|o| o.table.columns == t.columns && o.table.key == t.key)
            .and_then(|o| o.mirror.as_ref())
            .and_then(|m| serde_json::to_string(m).ok());
        if let (None, Some(lost)) = (&mirror, before.and_then(|o| o.mirror.as_ref())) {
            stop(tx, &t.name, lost)?;
        }
        if let Some(before) = before {
            remember_renamed(tx, &before.table, t)?;
        }
        let spec = serde_json::to_string(t).unwrap_or_default();
        tx.execute(
            "insert into tidewater_table (name, rank, spec, mirror, heal) values (?1, ?2, ?3, ?4, ?5)",
            params![t.name, i64::try_from(rank).unwrap_or(0), spec, mirror, before.is_some_and(|o| o.heal)],
        )
        .or_fault("storing the tables")?;
    }
    first::put_back(tx, &kept)
}

/// A tracked table as the file knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The local side.
    pub table: Table,
    /// The remote side, after first contact.
    pub mirror: Option<Mirror>,
    /// Whether capture was bare: every key counts as dirty until the table was compared.
    pub heal: bool,
}

/// The tracked tables, parents before children.
pub fn load_tables(conn: &Connection) -> Result<Vec<Known>> {
    let mut s = conn
        .prepare_cached("select spec, mirror, heal from tidewater_table order by rank")
        .or_fault("reading the tables")?;
    let rows = s
        .query_map([], |r| {
            Ok((
                r.get::<_, String>(0)?,
                r.get::<_, Option<String>>(1)?,
                r.get::<_, bool>(2)?,
            ))
        })
        .or_fault("reading the tables")?;
    let mut out = Vec::new();
    for row in rows {
        let (spec, mirror, heal) = row.or_fault("reading the tables")?;
        let table = serde_json::from_str(&spec).map_err(|e| {
            Error::new(
                Code::LocalUnusable,
                format!("tidewater's description of a table cannot be read: {e}"),
                "run `tidewater init` again",
            )
        })?;
        let mirror = mirror.and_then(|m| serde_json::from_str(&m).ok());
        out.push(Known {
            table,
            mirror,
            heal,
        });
    }
    Ok(out)
}

/// The tables that are usable on both sides.
pub fn tracked(known: &[Known]) -> Vec<Tracked> {
    known
        .iter()
        .filter_map(|k| {
            k.mirror.clone().map(|mirror| Tracked {
                table: k.table.clone(),
                mirror,
            })
        })
        .collect()
}

/// Stores what was learned of a mirror; `None` forgets it.
pub fn set_mirror(tx: &Connection, table: &str, mirror: Option<&Mirror>) -> Result<()> {
    match mirror {
        Some(_) => state::put(tx, &stop_name(table), None)?,
        None => {
            let known = load_tables(tx)?.into_iter().find(|k| k.table.name == table);
            if let Some(lost) = known.and_then(|k| k.mirror) {
                stop(tx, table, &lost)?;
            }
        }
    }
    let json = mirror.and_then(|m| serde_json::to_string(m).ok());
    tx.execute(
        "update tidewater_table set mirror = ?2 where name = ?1",
        params![table, json],
    )
    .or_fault("storing a mirror")?;
    Ok(())
}

/// Marks a table for comparison, or the comparison as done.
pub fn set_heal(tx: &Connection, table: &str, heal: bool) -> Result<()> {
    tx.execute(
        "update tidewater_table set heal = ?2 where name = ?1",
        params![table, heal],
    )
    .or_fault("marking a table")?;
    Ok(())
}

/// Whether a table holds any row.
pub fn has_rows(conn: &Connection, table: &str) -> Result<bool> {
    let sql = format!("select exists (select 1 from {})", ident(table));
    conn.query_row(&sql, [], |r| r.get(0))
        .or_fault("looking for rows")
}

/// How many rows a table holds.
pub fn count(conn: &Connection, table: &str) -> Result<u64> {
    conn.query_row(&format!("select count(*) from {}", ident(table)), [], |r| {
        r.get::<_, i64>(0)
    })
    .optional()
    .or_fault("counting rows")
    .map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
}
