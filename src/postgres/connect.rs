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
    pg.ssl_mode(tls::mode(conn));
    match conn.ssl {
        SslMode::Disable => PgRemote::new(conn, pg, tokio_postgres::NoTls, options),
        SslMode::VerifyFull => PgRemote::new(conn, pg, tls::connector(conn)?, options),
    }
}
