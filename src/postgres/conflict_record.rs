//! A conflict of the workspace, turned to the perspective of one of its two devices.

use super::decode::get;
use crate::error::Result;
use crate::model::{Key, Kind, Op, Policy, Row, Side, Value, kind_of};
use crate::remote::ConflictRecord;
use tokio_postgres::Row as PgRow;

/// A conflict record as the device sees it whose ids, the present and former ones, `is_own` knows.
pub fn conflict(r: &PgRow, is_own: impl Fn(&str) -> bool) -> Result<ConflictRecord> {
    let pushed_device: String = get(r, 7)?;
    let mine = is_own(&pushed_device);
    let (pushed_won, server_device): (bool, String) = (get(r, 6)?, get(r, 8)?);
    let side = |i: usize| -> Result<Option<Row>> {
        Ok(get::<Option<String>>(r, i)?.and_then(|t| Row::from_json(&t).ok()))
    };
    let kind: &str = get(r, 4)?;
    let known = kind != Kind::InsertInsert.as_str();
    let (pushed_op, server_op) = match kind {
        "update_delete" => (Op::Upsert, Op::Delete),
        "delete_update" => (Op::Delete, Op::Upsert),
        _ => (Op::Upsert, Op::Upsert),
    };
    let (pushed_change, server_change): (String, String) = (get(r, 9)?, get(r, 10)?);
    let (pushed_row, server_row) = (side(11)?, side(12)?);
    let (local, remote, local_change, remote_change) = if mine {
        (pushed_row, server_row, pushed_change, server_change)
    } else {
        (server_row, pushed_row, server_change, pushed_change)
    };
    let (local_op, remote_op) = if mine {
        (pushed_op, server_op)
    } else {
        (server_op, pushed_op)
    };
    let winner = if pushed_won == mine {
        Side::Local
    } else {
        Side::Remote
    };
    let pk: String = get(r, 3)?;
    Ok(ConflictRecord {
        id: get(r, 1)?,
        table: get(r, 2)?,
        key: Key::decode(&pk).unwrap_or(Key(vec![Value::Text(pk)])),
        kind: [Kind::KeyCollision, Kind::UniqueCollision]
            .into_iter()
            .find(|k| k.as_str() == kind)
            .unwrap_or_else(|| kind_of(local_op, known, remote_op)),
        policy: Policy::parse(get(r, 5)?).unwrap_or_default(),
        winner,
        local,
        remote,
        local_change,
        remote_change,
        remote_device: if mine { server_device } else { pushed_device },
        detected_at: get(r, 13)?,
    })
}
