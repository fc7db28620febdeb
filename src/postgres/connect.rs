//! From the connection settings to the driver's.

use super::{Options, PgRemote, tls};
use crate::config::{Conn, Host, SslMode};
use crate::error::Result;

/// The remote behind connection settings; nothing is connected yet.
pub fn connect(conn: &Conn, device: &str, options: Options) -> Result<PgRemote> {
    let mut pg = tokio_postgres::Config::new();
    match &conn.host {
        Host::Tcp(host) => pg.host(host),
        Host::Socket(folder) => pg.host_path(folder),
    };
    pg.port(conn.port)
        .user(&conn.user)
        .dbname(&conn.dbname)
        .connect_timeout(conn.connect_timeout)
        .keepalives(true)
        .application_name(format!("tidewater/{} {device}", env!("CARGO_PKG_VERSION")));
    if let Some(password) = &conn.password {
        pg.password(password.expose());
    }
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
