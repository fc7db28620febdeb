//! The app's schema, the capture on it, and the data that would have to travel.

use crate::config::Config;
use crate::error::Result;
use crate::model::{Misfit, Table, Wire};
use crate::report::{Check, Progress};
use crate::sqlite::local::{Known, Local, count, load_tables};
use crate::sqlite::scan::{self, Fault, Finding};
use crate::sqlite::{capture, health, state};
use crate::sync::{heal, init};

/// What is checked here.
pub const NAMES: &[&str] = &[
    "device",
    "tables",
    "triggers",
    "guard",
    "integer_keys",
    "blind_spots",
    "values",
];

/// Returns the tables as they would be tracked now.
pub fn checks(
    config: &Config,
    local: &Local,
    progress: &dyn Progress,
    checks: &mut Vec<Check>,
) -> Vec<Table> {
    let found = collect(config, local, progress, checks);
    found.unwrap_or_else(|e| {
        let text = match e.table {
            Some(t) => format!("table {t}: {}", e.message),
            None => e.message,
        };
        checks.push(Check::fault("tables", text, e.remedy));
        Vec::new()
    })
}

fn collect(
    config: &Config,
    local: &Local,
    progress: &dyn Progress,
    checks: &mut Vec<Check>,
) -> Result<Vec<Table>> {
    let initialised = local.is_initialised()?;
    checks.push(if initialised {
        Check::fine("device", state::device_id(local.conn())?)
    } else {
        Check::fault(
            "device",
            "the file is not a tidewater device yet",
            "run `tidewater init`",
        )
    });
    let settings = if initialised {
        heal::current(local, config)?
    } else {
        heal::settings(config, &[])
    };
    let found = health::tables(local, &settings)?;
    let before = checks.len();
    for s in found.skipped.iter().filter(|s| s.fault) {
        checks.push(Check::advice(
            "tables",
            format!("{} is not tracked: {}", s.name, s.reason),
            &s.remedy,
        ));
    }
    if found.tables.is_empty() {
        checks.push(Check::fault(
            "tables",
            "there is no table to track",
            "see [local] tables and exclude, or let the app make its tables first",
        ));
    } else if checks.len() == before {
        checks.push(Check::fine(
            "tables",
            format!("{} tracked", found.tables.len()),
        ));
    }
    let known = if initialised {
        installed(local, config, &found.tables, checks)?;
        load_tables(local.conn())?
    } else {
        checks.push(Check::unchecked("triggers", "the file is not initialised"));
        checks.push(Check::unchecked("guard", "the file is not initialised"));
        Vec::new()
    };
    named(
        checks,
        "integer_keys",
        "no key is handed out by the database",
        &found.tables,
        |t| {
            let warning = init::key_warning(t).into_iter();
            warning
                .map(|w| (format!("{}: {}", w.table, w.message), w.remedy))
                .collect()
        },
    );
    let carried = capture::ledger::wanted(local.conn(), &found.tables)?;
    let carried: Vec<String> = carried
        .iter()
        .map(|(t, why)| format!("{t}: {why}"))
        .collect();
    checks.push(Check::fine(
        "blind_spots",
        if carried.is_empty() {
            "none".to_owned()
        } else {
            format!(
                "none; keys are compared at each claim, for what OR REPLACE evicts there ({})",
                carried.join("; ")
            )
        },
    ));
    values(config, local, &found.tables, &known, progress, checks)?;
    Ok(found.tables)
}

/// One line of advice for each thing that `say` has to say of a table, or one line that all is well.
fn named(
    checks: &mut Vec<Check>,
    name: &str,
    fine: &str,
    tables: &[Table],
    say: impl Fn(&Table) -> Vec<(String, String)>,
) {
    let said: Vec<Check> = tables
        .iter()
        .flat_map(say)
        .map(|(message, remedy)| Check::advice(name, message, remedy))
        .collect();
    if said.is_empty() {
        checks.push(Check::fine(name, fine));
    }
    checks.extend(said);
}

fn installed(
    local: &Local,
    config: &Config,
    tables: &[Table],
    checks: &mut Vec<Check>,
) -> Result<()> {
    let bare = health::bare(local, tables)?;
    let remedy = "run `tidewater now`, or `tidewater init` without the server: what was written meanwhile is \
                  found by comparing";
    checks.push(if !bare.is_empty() {
        Check::fault(
            "triggers",
            format!("absent or changed on {}", bare.join(", ")),
            remedy,
        )
    } else if heal::is_current(local, config)? {
        Check::fine(
            "triggers",
            format!("current on {}", counted(tables.len() as u64, "table")),
        )
    } else {
        Check::advice(
            "triggers",
            "in place; the app's schema or the configuration changed since they were made",
            "run `tidewater now`, or wait for the service: it looks again by itself",
        )
    });
    checks.extend(tables.iter().filter_map(|t| {
        let why = capture::unrunnable(local.conn(), t)?;
        Some(Check::advice(
            "triggers",
            format!(
                "{}: the app's own cannot run outside the app ({why})",
                t.name
            ),
            "rows that arrive are written without them: let the app do afterwards what they do",
        ))
    }));
    let repair = "then `tidewater verify --repair` finds what was written meanwhile";
    checks.push(match health::guard(local)? {
        Some(0) => Check::fine("guard", "down"),
        Some(_) => Check::fault(
            "guard",
            "raised, so nothing is captured: some program other than tidewater did that",
            format!("`update tidewater_guard set v = 0`, {repair}"),
        ),
        None => Check::fault(
            "guard",
            "its row is gone, so what arrives would be captured as if the app had written it",
            format!("`insert into tidewater_guard (id, v) values (1, 0)`, {repair}"),
        ),
    });
    Ok(())
}

fn values(
    config: &Config,
    local: &Local,
    tables: &[Table],
    known: &[Known],
    progress: &dyn Progress,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let mut rows = 0;
    let before = checks.len();
    for t in tables {
        let mirror = known
            .iter()
            .find(|k| k.table.name == t.name)
            .and_then(|k| k.mirror.as_ref());
        let wire = |column: &str| {
            mirror
                .and_then(|m| m.wires.get(column).copied())
                .unwrap_or_else(|| {
                    t.column(column)
                        .map_or(Wire::default_for(""), crate::model::Column::wire)
                })
        };
        let n = count(local.conn(), &t.name)?;
        rows += n;
        progress.begin(&format!("looking at {}", t.name), Some(n));
        let advance = |n| progress.advance(n);
        let found = scan::table(local, t, &wire, config.upload.row_bytes_max, &advance);
        progress.end();
        checks.extend(found?.iter().map(|f| unfit(config, t, f, &wire)));
    }
    if checks.len() == before {
        checks.push(Check::fine(
            "values",
            format!("{}: all of them can be sent", counted(rows, "row")),
        ));
    }
    Ok(())
}

fn unfit(config: &Config, t: &Table, f: &Finding, wire: &dyn Fn(&str) -> Wire) -> Check {
    let place = match &f.column {
        Some(column) => format!("{}.{column}", t.name),
        None => t.name.clone(),
    };
    let rows = counted(f.rows, "row");
    let classes: Vec<&str> = f.classes.iter().copied().collect();
    let (what, remedy) = match f.fault {
        Fault::NullKey => (
            "NULL in the primary key, which identifies nothing".to_owned(),
            "give these rows a key".to_owned(),
        ),
        Fault::TooLarge => (
            format!(
                "larger than row_bytes_max ({})",
                config.upload.row_bytes_max
            ),
            "shrink the rows, or raise [upload] row_bytes_max".to_owned(),
        ),
        Fault::Value(Misfit::Nul) => (
            "a NUL character in text, which no text of Postgres can hold".to_owned(),
            "take the character out, or store the value as a blob in a BLOB column".to_owned(),
        ),
        Fault::Value(Misfit::NotUtf8) => (
            "text that is not valid UTF-8".to_owned(),
            "correct the text, or store it as a blob in a BLOB column".to_owned(),
        ),
        Fault::Value(Misfit::Class) => {
            let column = f.column.as_deref().unwrap_or_default();
            let wire = wire(column);
            let cure = t
                .column(column)
                .and_then(|c| wire.wider(c.affinity()))
                // Text carries numbers and text, and no blob.
                .filter(|to| *to == "jsonb" || !f.classes.contains("blob"));
            let remedy = match cure {
                Some(to) => format!(
                    "correct the values, or give the column another type: [tables.{}] types = {{ {} = \"{to}\" }}",
                    toml_key(&t.name),
                    toml_key(column)
                ),
                None => "correct the values in the app".to_owned(),
            };
            (
                format!(
                    "{} in a column that travels as {}",
                    classes.join(" and "),
                    wire.pg_type()
                ),
                remedy,
            )
        }
    };
    Check::fault("values", format!("{place}: {rows} with {what}"), remedy)
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A key as TOML takes it, quoted where it is not bare.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}
