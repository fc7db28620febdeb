//! Which tables of the app's file are not replicated, and why. Pure: names and shapes, no database.
//!
//! A reason is a short text that the user reads next to the table's name; the remedy says what would
//! change it, and is empty where nothing should.

use crate::model::Column;

/// A table that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What to do about it; empty where nothing needs to be done.
    pub remedy: String,
    /// Whether the app's data are at stake: the table was wanted and cannot be tracked (SYNC-014).
    pub fault: bool,
}

impl Skipped {
    /// A table that nobody expects to be replicated.
    pub(super) fn plain(name: &str, reason: &str) -> Self {
        Skipped {
            name: name.to_owned(),
            reason: reason.to_owned(),
            remedy: String::new(),
            fault: false,
        }
    }

    /// A table that was wanted and cannot be tracked.
    pub(super) fn fault(name: &str, reason: impl Into<String>, remedy: &str) -> Self {
        Skipped {
            name: name.to_owned(),
            reason: reason.into(),
            remedy: format!("{remedy}, or list it under [local] exclude"),
            fault: true,
        }
    }
}

/// Names of tables in which migration tools and frameworks keep their own books. Each device migrates
/// itself; a replicated book would make another device skip its migrations.
const BOOKS: [&str; 41] = [
    "__diesel_schema_migrations",
    "__drizzle_migrations",
    "__EFMigrationsHistory",
    "__EFMigrationsLock",
    "_cf_KV",
    "_cf_METADATA",
    "_litestream_lock",
    "_litestream_seq",
    "_prisma_migrations",
    "_sqlx_migrations",
    "_yoyo_log",
    "_yoyo_migration",
    "_yoyo_version",
    "aerich",
    "alembic_version",
    "android_metadata",
    "ar_internal_metadata",
    "atlas_schema_revisions",
    "d1_migrations",
    "databasechangelog",
    "databasechangeloglock",
    "django_migrations",
    "doctrine_migration_versions",
    "flyway_schema_history",
    "goose_db_version",
    "gorp_migrations",
    "grdb_migrations",
    "knex_migrations",
    "knex_migrations_lock",
    "kysely_migration",
    "kysely_migration_lock",
    "mikro_orm_migrations",
    "phinxlog",
    "refinery_schema_history",
    "room_master_table",
    "schema_migrations",
    "seaql_migrations",
    "SequelizeData",
    "SequelizeMeta",
    "typeorm_metadata",
    "yoyo_lock",
];

/// The shapes of books with a name that an app might give to a table of its own.
const SHAPED_BOOKS: [(&str, &[&str]); 4] = [
    ("migrations", &["id", "timestamp", "name"]),
    ("migrations", &["id", "migration", "batch"]),
    ("migrations", &["id", "name", "run_on"]),
    ("migratehistory", &["id", "name", "migrated_at"]),
];

/// Whether a table is the book-keeping of a migration tool.
pub(super) fn is_book(name: &str, columns: &[Column]) -> bool {
    BOOKS.iter().any(|b| b.eq_ignore_ascii_case(name))
        || SHAPED_BOOKS.iter().any(|(b, shape)| {
            b.eq_ignore_ascii_case(name)
                && shape.len() == columns.len()
                && shape
                    .iter()
                    .zip(columns)
                    .all(|(s, c)| s.eq_ignore_ascii_case(&c.name))
        })
}

/// How migration tools call the copy in which they make a table anew, before it takes the table's name:
/// Alembic, Django, Drizzle, Entity Framework. It is there for a moment, or left over by a migration that
/// failed; the rows are in the table itself.
const COPIES: [&str; 4] = ["_alembic_tmp_", "new__", "__new_", "ef_temp_"];

/// Whether a table is a migration's passing copy of another.
pub(super) fn is_copy(name: &str) -> bool {
    COPIES.iter().any(|c| name.starts_with(c))
}

/// Postgres keeps no more bytes of a name than this.
const NAME_MAX: usize = 63;
/// Postgres allows 1,600 columns, tidewater's three and some room for its own among them.
const COLUMNS_MAX: usize = 1_590;
/// Names that every Postgres table has already.
const SYSTEM: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];

/// Why a table's names cannot stand in Postgres, if so: the reason and the remedy.
pub(super) fn unfit(name: &str, columns: &[Column]) -> Option<(String, &'static str)> {
    if name.is_empty() || columns.iter().any(|c| c.name.is_empty()) {
        return Some(("a name is empty".into(), "rename it"));
    }
    if name.len() > NAME_MAX {
        return Some((
            format!("its name is longer than {NAME_MAX} bytes"),
            "rename the table",
        ));
    }
    if columns.len() > COLUMNS_MAX {
        return Some((
            format!("it has more than {COLUMNS_MAX} columns"),
            "split the table",
        ));
    }
    columns.iter().find_map(|c| {
        let n = c.name.to_ascii_lowercase();
        let reason = if n.len() > NAME_MAX {
            format!("is longer than {NAME_MAX} bytes")
        } else if n.starts_with("tidewater_") {
            "begins with tidewater_, which is reserved".to_owned()
        } else if SYSTEM.contains(&c.name.as_str()) {
            "is a system column of PostgreSQL".to_owned()
        } else {
            return None;
        };
        Some((
            format!("the name of its column \"{}\" {reason}", c.name),
            "rename the column",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        names
            .iter()
            .map(|n| Column {
                name: (*n).to_owned(),
                declared: String::new(),
                not_null: false,
                has_default: false,
                generated: false,
                redacted: false,
                pg_type: None,
            })
            .collect()
    }

    #[test]
    fn books_are_known_by_name_and_the_ambiguous_ones_by_shape() {
        assert!(is_book("sequelizemeta", &[]));
        assert!(is_book(
            "migrations",
            &columns(&["id", "timestamp", "name"])
        ));
        assert!(!is_book(
            "migrations",
            &columns(&["id", "bird", "from", "to"])
        ));
        assert!(!is_book("messages", &[]));
    }

    #[test]
    fn names_that_postgres_cannot_hold_are_refused() {
        let long = "x".repeat(64);
        assert!(unfit(&long, &columns(&["a"])).is_some());
        assert!(unfit(&long[1..], &columns(&[&long[1..]])).is_none());
        // 32 characters, 64 bytes.
        assert!(unfit("t", &columns(&[&"é".repeat(32)])).is_some());
        assert!(unfit("t", &columns(&["Tidewater_xid"])).is_some());
        assert!(unfit("t", &columns(&["xmin"])).is_some());
        assert!(unfit("t", &columns(&["XMIN"])).is_none());
        assert!(unfit("", &columns(&["a"])).is_some());
    }
}
