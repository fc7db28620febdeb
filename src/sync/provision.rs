//! `provision`: what an administrator does once for a workspace, and once for each new device.
//!
//! A password is made here, told once in the answer, and kept nowhere.

use super::connect;
use crate::config::{Config, Secret};
use crate::error::{Code, Error, Result};
use crate::report::{ProvisionReport, Provisioned};
use std::io::Read;

/// See `ops::provision`.
pub async fn provision(config: &Config, devices: &[String]) -> Result<ProvisionReport> {
    let schema = &config.remote.schema;
    let conn = config.conn()?.display();
    let made = connect::provision(config, devices, password).await?;
    Ok(ProvisionReport {
        schema: schema.clone(),
        owner: made.0,
        devices: made
            .1
            .into_iter()
            .map(|(login, new)| Provisioned {
                url: url(&conn, &login.role, new.then(|| login.password.expose())),
                name: login.device,
                login: login.role,
                created: new,
            })
            .collect(),
    })
}

/// The server's address with another login.
fn url(conn: &str, login: &str, password: Option<&str>) -> String {
    let password = password.map(|p| format!(":{p}")).unwrap_or_default();
    let (scheme, rest) = conn.split_once("://").unwrap_or(("postgres", conn));
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{login}{password}@{host}")
}

/// 192 bits from the operating system, in hexadecimal: nothing in it needs quoting anywhere.
fn password() -> Result<Secret> {
    let mut bytes = [0_u8; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(|e| {
            Error::new(
                Code::Configuration,
                format!("the system gives no random numbers: {e}"),
                "make /dev/urandom readable",
            )
        })?;
    let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_keeps_everything_but_the_login() {
        assert_eq!(
            url(
                "postgres://admin@db:5432/app?sslmode=disable",
                "team_a",
                Some("pw")
            ),
            "postgres://team_a:pw@db:5432/app?sslmode=disable"
        );
        assert_eq!(url("postgres://db/app", "a", None), "postgres://a@db/app");
    }

    #[test]
    fn no_two_passwords_are_alike() {
        let (a, b) = (password().expect("one"), password().expect("another"));
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.expose().len(), 48);
    }
}
