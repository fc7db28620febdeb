//! Capture installed, and installed again after the app changed its schema.
//!
//! A migration that rebuilds a table drops the triggers with it and nothing is logged meanwhile. From
//! then until the table was compared with the remote, all its keys count as dirty.

use super::device::now_ms;
use super::tell;
use crate::config::{Config, TableConfig};
use crate::error::{Error, Result};
use crate::sqlite::capture::{self, ledger};
use crate::sqlite::fault::OrFault;
use crate::sqlite::introspect::{self, Introspection, TablePrivacy, TrackSettings};
use crate::sqlite::journal::{self, Detail, Kind, Place};
use crate::sqlite::local::{
    Local, Tx, load_tables, schema_is_known, schema_version, set_heal, store_tables,
};
use crate::sqlite::state::Problem;
use crate::sqlite::{brake, first, private, state, status_view};

const CHOSEN: &str = "chosen_tables";
const CHOSEN_OVER: &str = "chosen_over";

/// What to track, from the configuration; `tables` replaces the configured globs where it is not empty.
pub fn settings(config: &Config, tables: &[String]) -> TrackSettings {
    TrackSettings {
        include: if tables.is_empty() {
            config.local.tables.clone()
        } else {
            tables.to_vec()
        },
        exclude: config.local.exclude.clone(),
        privacy: config
            .tables
            .iter()
            .map(|(name, t)| (name.clone(), table_privacy(t)))
            .collect(),
        types: config
            .tables
            .iter()
            .filter(|(_, t)| !t.types.is_empty())
            .map(|(name, t)| (name.clone(), t.types.clone()))
            .collect(),
    }
}

fn table_privacy(t: &TableConfig) -> TablePrivacy {
    TablePrivacy {
        level: t.privacy,
        column: t.privacy_column.clone(),
        redact: t.redact.clone(),
    }
}

/// Installs capture for the tables found; rows of tables that were not tracked before are queued.
/// Returns the tables whose triggers were missing though they were tracked.
pub fn install(
    tx: &Tx<'_>,
    found: &Introspection,
    settings: &TrackSettings,
) -> Result<Vec<String>> {
    state::set(tx, "settings", &format!("{settings:?}"))?;
    let unfit: Vec<Problem> = found.refused.iter().map(Problem::from).collect();
    state::set_unfit(tx, &unfit)?;
    let known = load_tables(tx)?;
    let moved = brake::schema_changed(tx)?;
    let before: Vec<String> = known.iter().map(|k| k.table.name.clone()).collect();
    let installed = capture::install(tx, &found.tables)?;
    store_tables(tx, &found.tables)?;
    let was_bare = |t: &String| before.contains(t);
    if moved || installed.changed.iter().any(was_bare) {
        // What stood there at init may have another shape by now.
        first::give_up(tx)?;
    }
    let late = ledger::arrange(tx, &found.tables, &known, &installed.changed)?;
    status_view::install(tx, &found.tables)?;
    for t in &found.tables {
        match known.iter().find(|k| k.table.name == t.name) {
            None => {
                let end = first::log_end(tx)?;
                if capture::snapshot_rows(tx, t)? > 0 {
                    state::set_number(tx, "listed_at", now_ms())?;
                    first::keep(tx, t, end)?;
                }
            }
            // What the settings now keep here was perhaps sent under the former ones.
            Some(k)
                if t.rows.is_some() && (&k.table.rows, k.table.privacy) != (&t.rows, t.privacy) =>
            {
                let n = private::judge_again(tx, t)?;
                tracing::warn!(
                    table = t.name,
                    rows = n,
                    "the privacy settings changed; rows are judged again"
                );
            }
            Some(_) => {}
        }
    }
    if moved || !installed.changed.is_empty() {
        for t in &found.tables {
            let held = brake::hold_logged(tx, t)?;
            if held > 0 {
                tell::held(&t.name, held);
            }
        }
    }
    let mut bare: Vec<String> = installed
        .changed
        .into_iter()
        .filter(|t| before.contains(t))
        .collect();
    bare.extend(late.iter().cloned());
    for t in &bare {
        set_heal(tx, t, true)?;
        let why = if late.contains(t) {
            "REPLACE may have evicted rows unseen; the table is compared"
        } else {
            "its triggers were missing; the table is compared"
        };
        let told = Detail {
            code: Some("SYNC-009".to_owned()),
            message: Some(why.to_owned()),
            ..Detail::default()
        };
        journal::record(
            tx,
            now_ms(),
            Kind::CaptureHealed,
            Place::Table(t),
            None,
            &told,
        )?;
    }
    // Read after our own statements: they move it too.
    state::set_number(tx, "schema_version", schema_version(tx)?)?;
    Ok(bare)
}

/// The settings of the configuration, with the choice of an earlier `init --tables`.
pub fn current(local: &Local, config: &Config) -> Result<TrackSettings> {
    Ok(settings(config, &stored_choice(local, config)?))
}

/// The choice of an earlier `init --tables`. It stands over the configuration that it was made over: who
/// writes other globs there or into the environment since then means them.
pub fn stored_choice(local: &Local, config: &Config) -> Result<Vec<String>> {
    if !local.is_initialised()? {
        return Ok(Vec::new());
    }
    let over = state::get(local.conn(), CHOSEN_OVER)?;
    if over.is_some_and(|over| over != globs(&config.local.tables)) {
        return Ok(Vec::new());
    }
    Ok(state::get(local.conn(), CHOSEN)?
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default())
}

/// Keeps the choice of an `init --tables`.
pub fn store_choice(tx: &Tx<'_>, config: &Config, tables: &[String]) -> Result<()> {
    state::set(tx, CHOSEN, &globs(tables))?;
    state::set(tx, CHOSEN_OVER, &globs(&config.local.tables))
}

fn globs(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

/// Whether capture was installed for this schema and for these settings: what became private in the
/// configuration must not leave any more.
pub fn is_current(local: &Local, config: &Config) -> Result<bool> {
    let wanted = format!("{:?}", current(local, config)?);
    Ok(schema_is_known(local.conn())?
        && state::get(local.conn(), "settings")?.as_deref() == Some(&wanted))
}

/// Looks at the schema again and reinstalls capture. Tables that vanished are only left out: a missing
/// table never means deleted rows.
pub fn reinstall(local: &mut Local, config: &Config) -> Result<()> {
    let settings = current(local, config)?;
    let tx = local.begin()?;
    // Who changed the configuration is told at once; who changed the schema is not there to be told.
    let configured = state::get(&tx, "settings")?.as_deref() != Some(&format!("{settings:?}"));
    let found = if configured {
        introspect::tables(&tx, &settings)?
    } else {
        introspect::tables_that_fit(&tx, &settings)?
    };
    let before = load_tables(&tx)?;
    for e in &found.refused {
        tracing::warn!(code = e.code.as_str(), table = e.table, error = %e.message, remedy = %e.remedy, "table stops syncing");
    }
    for k in &before {
        let named = |e: &Error| e.table.as_deref() == Some(&k.table.name);
        if !found.tables.iter().any(|t| t.name == k.table.name) && !found.refused.iter().any(named)
        {
            tracing::warn!(
                code = "SYNC-009",
                table = k.table.name,
                "the table is not tracked any more: it is gone from the app's schema, or left out by the \
                 configuration; its rows on the remote stay"
            );
        }
    }
    let bare = install(&tx, &found, &settings)?;
    if !bare.is_empty() {
        state::set_number(&tx, "healed_at", super::device::now_ms())?;
    }
    tx.commit().or_fault("installing capture again")?;
    tracing::warn!(
        tables = bare.len(),
        "the app's schema or the settings changed; capture was installed again"
    );
    Ok(())
}
