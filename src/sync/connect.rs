//! Where the two sides are put together: the configured connection becomes a remote. The only file of
//! this layer that knows PostgreSQL.

use crate::config::{Config, Secret};
use crate::error::Result;
use crate::model::Table;
use crate::postgres::provision::Login;
use crate::postgres::{self, Options, PgRemote};
use crate::remote::Standing;

/// The remote of a configuration; nothing is connected yet.
pub fn remote(config: &Config) -> Result<PgRemote> {
    let options = Options {
        schema: config.remote.schema.clone(),
        pool_size: config.remote.pool_size,
        connect_timeout: config.remote.connect_timeout,
        statement_timeout: config.remote.statement_timeout,
    };
    postgres::connect(config.conn()?, &config.device.name, options)
}

/// What `init --dry-run` prints for the remote.
pub fn dry_run(config: &Config, tables: &[Table], standing: Option<&Standing>) -> Vec<String> {
    postgres::dry_run(&config.remote.schema, tables, standing)
}

/// What `provision --dry-run` prints.
pub fn provision_statements(config: &Config, devices: &[String]) -> Result<Vec<String>> {
    let schema = &config.remote.schema;
    let logins = devices
        .iter()
        .map(|d| postgres::provision::login(schema, d))
        .collect::<Result<Vec<_>>>()?;
    let owner = postgres::provision::owner(schema)?;
    Ok(postgres::provision::statements(schema, &owner, &logins))
}

/// Makes the roles of a workspace: the owner's name, and each login with whether it is new.
pub async fn provision(
    config: &Config,
    devices: &[String],
    password: fn() -> Result<Secret>,
) -> Result<(String, Vec<(Login, bool)>)> {
    let schema = &config.remote.schema;
    let owner = postgres::provision::owner(schema)?;
    let logins = devices
        .iter()
        .map(|d| {
            Ok(Login {
                device: d.clone(),
                role: postgres::provision::login(schema, d)?,
                password: password()?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let fresh = postgres::provision::provision(&remote(config)?, &owner, &logins).await?;
    Ok((owner, logins.into_iter().zip(fresh).collect()))
}
