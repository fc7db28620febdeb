//! The server as this login finds it.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::Table;
use crate::remote::{Examined, MirrorState, Remote};
use crate::report::Check;
use crate::sqlite::local::Local;
use crate::sqlite::state;
use crate::sync::connect;
use crate::sync::device::now_ms;

/// What is checked here, after `connection` itself.
const NAMES: &[&str] = &[
    "tls",
    "server_version",
    "primary",
    "pooler",
    "privileges",
    "workspace",
    "schema",
    "clock",
];

/// A clock that is further off is a fault (SYNC-006), ms.
const OFFSET_MAX: i64 = 60_000;

/// Without a remote all of it is unchecked; one that is configured and does not answer is a fault.
pub async fn checks(
    config: &Config,
    local: Option<&Local>,
    tables: &[Table],
    checks: &mut Vec<Check>,
) {
    let Some(conn) = &config.remote.conn else {
        checks.push(Check::advice(
            "connection",
            "not checked: no remote is configured",
            "set [remote] url",
        ));
        unreached(local, "no remote is configured", checks);
        return;
    };
    let asked_at = now_ms();
    let answer = match connect::remote(config) {
        Ok(remote) => {
            let found = remote.examine(tables).await;
            found.map(|e| (remote, e))
        }
        Err(e) => Err(e),
    };
    match answer {
        Ok((remote, e)) => {
            let message = format!("{} as {}", conn.display(), e.login);
            checks.push(Check::fine("connection", message));
            let offset = e.now_ms - (asked_at + now_ms()) / 2;
            reached(config, &e, checks);
            checks.push(workspace(config, local, &remote, &e).await);
            schema(&e, tables, checks);
            checks.push(clock(offset, ""));
        }
        Err(e) if e.is_offline() => {
            checks.push(Check::fault("connection", e.message, e.remedy));
            unreached(local, "the server is out of reach", checks);
        }
        Err(e) => {
            checks.push(Check::fault("connection", e.message, e.remedy));
            unreached(local, "the server does not answer the questions", checks);
        }
    }
}

fn unreached(local: Option<&Local>, why: &str, checks: &mut Vec<Check>) {
    let stored = local.and_then(|l| l.is_initialised().ok().filter(|i| *i).and(Some(l)));
    let offset = stored.and_then(|l| state::get(l.conn(), "clock_offset_ms").ok().flatten());
    for name in NAMES {
        checks.push(match offset.as_deref().and_then(|o| o.parse().ok()) {
            Some(offset) if *name == "clock" => {
                clock(offset, ", when the server was last in reach")
            }
            _ => Check::unchecked(name, why),
        });
    }
}

fn clock(offset: i64, when: &str) -> Check {
    let message = format!("{:+} ms off the server's{when}", -offset);
    if offset.abs() > OFFSET_MAX {
        let remedy =
            "set the clock (SYNC-006); edits are stamped with the corrected time meanwhile";
        Check::fault("clock", message, remedy)
    } else {
        Check::fine("clock", message)
    }
}

fn reached(config: &Config, e: &Examined, checks: &mut Vec<Check>) {
    let is_local = config
        .remote
        .conn
        .as_ref()
        .is_some_and(|c| c.targets.iter().all(|t| t.host.is_local()));
    checks.push(match &e.tls {
        Some(how) => Check::fine("tls", how),
        None if is_local => Check::fine("tls", "not encrypted; nothing leaves this machine"),
        None => Check::advice(
            "tls",
            "not encrypted: rows and the login's proof cross the network in the open",
            "use sslmode=verify-full in [remote] url",
        ),
    });
    checks.push(if e.version_is_enough {
        Check::fine("server_version", &e.server_version)
    } else {
        Check::fault(
            "server_version",
            format!(
                "PostgreSQL {}; tidewater needs 14 or later",
                e.server_version
            ),
            "upgrade the server",
        )
    });
    checks.push(if e.standby {
        Check::fault("primary", "the server is a standby in recovery", "point [remote] url at the primary")
    } else if e.read_only {
        Check::fault(
            "primary",
            "transactions are read-only for this login",
            "point [remote] url at the primary, or reset default_transaction_read_only for the role or database",
        )
    } else {
        Check::fine("primary", "writable")
    });
    checks.push(match &e.between {
        Some(what) => Check::fine("pooler", what),
        None => Check::fine("pooler", "none seen"),
    });
    for (what, cure) in &e.lacks {
        checks.push(Check::fault(
            "privileges",
            what,
            format!("have its owner run: {cure}"),
        ));
    }
    if e.lacks.is_empty() {
        checks.push(Check::fine(
            "privileges",
            format!("{} may do what is needed", e.login),
        ));
    }
}

/// The workspace, and whether it is the one and in the state that this file knows.
async fn workspace<R: Remote>(
    config: &Config,
    local: Option<&Local>,
    remote: &R,
    e: &Examined,
) -> Check {
    let name = &config.remote.schema;
    let Some(protocol) = e.protocol else {
        return if e.lacks.is_empty() {
            Check::fine(
                "workspace",
                format!("{name} is not made yet: the first sync makes it"),
            )
        } else {
            Check::unchecked("workspace", "privileges are missing")
        };
    };
    if !e.speaks {
        return Check::fault(
            "workspace",
            format!("{name} speaks protocol {protocol}, which this program does not know"),
            "upgrade tidewater on this device; nothing is lost meanwhile",
        );
    }
    match stands(local, remote).await {
        Ok(()) => Check::fine("workspace", format!("{name}, protocol {protocol}")),
        Err(e) => Check::fault("workspace", format!("{}: {}", e.code, e.message), e.remedy),
    }
}

async fn stands<R: Remote>(local: Option<&Local>, remote: &R) -> Result<()> {
    let Some(local) = local else { return Ok(()) };
    if !local.is_initialised()? {
        return Ok(());
    }
    let Some(known) = state::identity(local.conn())? else {
        return Ok(());
    };
    let head = remote.head(&state::device_id(local.conn())?).await?;
    if head.identity == known {
        return Ok(());
    }
    Err(Error::new(
        Code::RemoteWentBack,
        "it is another server, timeline, database or workspace than this file knows",
        "see docs/recovery.md: the server was restored, failed over or replaced",
    ))
}

fn schema(e: &Examined, tables: &[Table], checks: &mut Vec<Check>) {
    if e.mirrors.is_empty() && !tables.is_empty() {
        checks.push(Check::unchecked("schema", "the mirrors cannot be read"));
        return;
    }
    let before = checks.len();
    for (name, state) in &e.mirrors {
        if let MirrorState::Unfit(error) = state {
            let message = format!("{name}: {}", error.message);
            checks.push(Check::fault("schema", message, &error.remedy));
        }
    }
    if !e.bare.is_empty() {
        checks.push(Check::fault(
            "schema",
            format!(
                "the triggers of {} are off or gone on the server",
                e.bare.join(", ")
            ),
            "`alter table ... enable trigger all` there, then `tidewater verify --repair`",
        ));
    }
    if checks.len() > before {
        return;
    }
    let absent = e
        .mirrors
        .values()
        .filter(|m| **m == MirrorState::Absent)
        .count();
    let wider = e
        .mirrors
        .values()
        .filter(|m| matches!(m, MirrorState::Fits(missing) if !missing.is_empty()))
        .count();
    let mut message = format!("mirrors that fit: {}", e.mirrors.len() - absent);
    if absent > 0 {
        message.push_str(&format!("; {absent} are made at the next sync"));
    }
    if wider > 0 {
        message.push_str(&format!("; {wider} get new columns then"));
    }
    checks.push(Check::fine("schema", message));
}
