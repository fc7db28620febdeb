//! `devices`: the workspace's devices, found by id or name.
//!
//! Works without a file too: an administrator has the server alone.

use super::connect;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::remote::{Member, Remote};
use crate::report::{self, DevicesReport, Time};
use crate::sqlite::local::Local;
use crate::sqlite::state;

/// See `ops::devices`.
pub async fn list(config: &Config) -> Result<DevicesReport> {
    let members = members(config, &connect::remote(config)?).await?;
    Ok(report(members, this(config).as_deref()))
}

/// See `ops::retire`.
pub async fn retire(config: &Config, wanted: &str) -> Result<DevicesReport> {
    let remote = connect::remote(config)?;
    let member = find(members(config, &remote).await?, wanted)?;
    if this(config).as_deref() == Some(member.id.as_str()) {
        return Err(Error::new(
            Code::Configuration,
            "this is the device itself, which the next sync would bring back",
            "run it on another device, or with `--db` left out where an administrator has no file",
        ));
    }
    remote.retire(&member.id).await?;
    after(config, &remote, &member.id).await
}

/// See `ops::revoke`.
pub async fn revoke(config: &Config, wanted: &str) -> Result<DevicesReport> {
    let remote = connect::remote(config)?;
    let member = find(members(config, &remote).await?, wanted)?;
    remote.revoke(&member.id).await?;
    after(config, &remote, &member.id).await
}

async fn after(config: &Config, remote: &impl Remote, id: &str) -> Result<DevicesReport> {
    let mut members = members(config, remote).await?;
    members.retain(|m| m.id == id);
    Ok(report(members, this(config).as_deref()))
}

async fn members(config: &Config, remote: &impl Remote) -> Result<Vec<Member>> {
    remote.devices(config.retention.tombstone_days).await
}

/// The id of this device; `None` where there is no file or it was never initialised.
fn this(config: &Config) -> Option<String> {
    let local = Local::open(config.path().ok()?).ok()?;
    if !local.is_initialised().ok()? {
        return None;
    }
    state::device_id(local.conn()).ok()
}

fn report(members: Vec<Member>, this: Option<&str>) -> DevicesReport {
    let devices = members
        .into_iter()
        .map(|m| report::Member {
            this: this == Some(m.id.as_str()),
            id: m.id,
            name: m.name,
            version: m.version,
            state: m.state,
            login: m.login,
            joined_at: Time::from_ms(m.registered_at),
            last_seen: Time::from_ms(m.last_seen),
            behind_rows: m.behind_rows.map(|n| u64::try_from(n).unwrap_or(0)),
            behind_seconds: m.behind_seconds,
        })
        .collect();
    DevicesReport { devices }
}

/// The one device that is meant: by its id, its name, or a beginning of either that no other one has.
fn find(members: Vec<Member>, wanted: &str) -> Result<Member> {
    let upper = wanted.to_ascii_uppercase();
    let tries: [&dyn Fn(&Member) -> bool; 4] = [
        &|m| m.id == upper,
        &|m| m.name == wanted,
        &|m| m.id.starts_with(&upper),
        &|m| m.name.starts_with(wanted),
    ];
    for fits in tries {
        let found: Vec<&Member> = members.iter().filter(|m| fits(m)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|m| m.id.as_str()).collect();
                return Err(Error::new(
                    Code::Configuration,
                    format!("{wanted:?} means {} devices: {}", ids.len(), ids.join(", ")),
                    "give the whole id, or more of it",
                ));
            }
        }
    }
    Err(Error::new(
        Code::Configuration,
        format!("no device has the id or the name {wanted:?}"),
        "list them with `tidewater devices`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, name: &str) -> Member {
        Member {
            id: id.into(),
            name: name.into(),
            version: String::new(),
            state: "active".into(),
            login: None,
            registered_at: 0,
            last_seen: 0,
            behind_rows: None,
            behind_seconds: None,
        }
    }

    #[test]
    fn a_device_is_found_by_what_no_other_one_has() {
        let all = vec![
            member("01JA", "laptop"),
            member("01JB", "laptop-2"),
            member("01KC", "phone"),
        ];
        let id = |wanted: &str| find(all.clone(), wanted).map(|m| m.id).ok();
        assert_eq!(id("01JB").as_deref(), Some("01JB"));
        assert_eq!(id("01k").as_deref(), Some("01KC"));
        assert_eq!(id("laptop").as_deref(), Some("01JA"));
        assert_eq!(id("laptop-").as_deref(), Some("01JB"));
        assert_eq!(id("ph").as_deref(), Some("01KC"));
        assert_eq!((id("lap"), id("01J"), id("x")), (None, None, None));
    }
}
