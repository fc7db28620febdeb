//! Where the two sides are put together: the configured connection becomes a remote. The only file of
//! this layer that knows PostgreSQL.

use crate::config::{Config, Conn, Host, SslMode};
use crate::error::Result;
use crate::model::Table;
use crate::postgres::{Options, PgRemote, tls};

/// The remote of a configuration; nothing is connected yet.
pub fn remote(config: &Config) -> Result<PgRemote> {
    let conn = config.conn()?;
    let mut pg = settings(conn);
    pg.application_name(format!(
        "tidewater/{} {}",
        env!("CARGO_PKG_VERSION"),
        config.device.name
    ));
    let timeout = config.remote.connect_timeout;
    pg.connect_timeout(timeout);
    let options = Options {
        schema: config.remote.schema.clone(),
        pool_size: config.remote.pool_size,
        connect_timeout: timeout,
        statement_timeout: config.remote.statement_timeout,
    };
    match conn.ssl {
        SslMode::Disable => {
            pg.ssl_mode(tokio_postgres::config::SslMode::Disable);
            PgRemote::new(pg, tokio_postgres::NoTls, options)
        }
        SslMode::VerifyFull => {
            pg.ssl_mode(tokio_postgres::config::SslMode::Require);
            PgRemote::new(pg, tls::connector(conn)?, options)
        }
    }
}

/// What `init --dry-run` prints for the remote.
pub fn dry_run(config: &Config, tables: &[Table]) -> Vec<String> {
    crate::postgres::dry_run(&config.remote.schema, tables)
}
