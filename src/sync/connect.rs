//! Where the two sides are put together: the configured connection becomes a remote. The only file of
//! this layer that knows PostgreSQL.

use crate::config::Config;
use crate::error::Result;
use crate::model::Table;
use crate::postgres::{self, Options, PgRemote};

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
pub fn dry_run(config: &Config, tables: &[Table]) -> Vec<String> {
    postgres::dry_run(&config.remote.schema, tables)
}
