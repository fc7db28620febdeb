//! From the connection settings to a connection.
//!
//! Owns the order in which the places of a server are tried, the deadline of each attempt (name
//! look-up, connection, TLS, login and the question who is there), and what is said when none of them
//! will do. With several places the one that takes writes is looked for at every new connection, so
//! that it is found wherever it has moved to.

use super::fault::fault;
use super::{Options, PgRemote, tls, workspace};
use crate::config::{ChannelBinding, Conn, Host, Session, SslMode, Target};
use crate::error::{Code, Disposition, Error, Result};
use deadpool_postgres::Connect;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The remote behind connection settings; nothing is connected yet.
pub fn connect(conn: &Conn, device: &str, options: Options) -> Result<PgRemote> {
    let dialer = Arc::new(Dialer::new(conn, device)?);
    PgRemote::new(dialer, options)
}

/// What is done with a notification: its payload.
pub type Heard = Arc<dyn Fn(&str) + Send + Sync>;

/// One place of the server, ready to be tried.
struct Way {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    target: Target,
}

/// Makes connections.
pub struct Dialer {
    ways: Vec<Way>,
    conn: Conn,
    /// Why the last attempt of the pool failed: its own error type is the driver's and holds no words
    /// of ours.
    why: Mutex<Option<Error>>,
}

impl Dialer {
    fn new(conn: &Conn, device: &str) -> Result<Dialer> {
        let ways = conn
            .targets
            .iter()
            .map(|target| {
                Ok(Way {
                    config: config(conn, target, device),
                    tls: tls::connector(conn, target.ssl)?,
                    target: target.clone(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Dialer {
            ways,
            conn: conn.clone(),
            why: Mutex::new(None),
        })
    }

    /// The settings.
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Why the pool got no connection.
    pub fn take_reason(&self) -> Option<Error> {
        self.why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether a new connection is asked who is there. A single place is taken as it is: whatever is
    /// done with it says soon enough where it cannot be written.
    fn asks(&self) -> bool {
        self.ways.len() > 1 || self.conn.session != Session::Any
    }

    /// A connection, with the task that keeps it: the connection ends with its client or its task,
    /// whichever goes first. `options` are settings that the session begins with.
    pub async fn dial(
        &self,
        options: Option<&str>,
        heard: Option<&Heard>,
    ) -> Result<(Client, JoinHandle<()>)> {
        let mut errors = Vec::new();
        for way in shuffled(self.ways.iter().collect(), self.conn.load_balance) {
            let addresses = match self.in_time(&way.target, addresses(&way.target)).await {
                Ok(found) => shuffled(found, self.conn.load_balance),
                Err(e) => {
                    errors.push(e);
                    continue;
                }
            };
            for address in addresses {
                match self.attempt(way, address, options, heard).await {
                    Ok(connected) => return Ok(connected),
                    // As libpq: a login that is refused here is not tried on the others.
                    Err(e) if e.sqlstate.as_deref().is_some_and(|s| s.starts_with("28")) => {
                        return Err(e);
                    }
                    Err(e) => errors.push(e),
                }
            }
        }
        Err(none_of(errors))
    }

    async fn attempt(
        &self,
        way: &Way,
        address: Option<IpAddr>,
        options: Option<&str>,
        heard: Option<&Heard>,
    ) -> Result<(Client, JoinHandle<()>)> {
        let mut config = way.config.clone();
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(options) = options {
            config.options(options);
        }
        let work = async {
            let what = format!("connecting to {}", self.conn.display_target(&way.target));
            let (client, mut connection) = config.connect(way.tls.clone()).await.map_err(|e| {
                tls::explain(&e, &what).unwrap_or_else(|| {
                    let mut error = fault(&e, &what);
                    // Whatever a server says before the login is done, no item is at fault.
                    if error.code != Code::RemoteNotUsable {
                        error.code = Code::Connection;
                    }
                    error
                })
            })?;
            let heard = heard.cloned();
            let task = Task(Some(tokio::spawn(async move {
                loop {
                    match poll_fn(|cx| connection.poll_message(cx)).await {
                        Some(Ok(AsyncMessage::Notification(n))) => {
                            if let Some(heard) = &heard {
                                heard(n.payload());
                            }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(e)) => {
                            tracing::debug!(error = %e, "a connection ended");
                            return;
                        }
                        None => return,
                    }
                }
            })));
            if self.asks() {
                must_take_writes(&client, self.conn.session, &what).await?;
            }
            Ok((client, task.keep()))
        };
        self.in_time(&way.target, work).await
    }

    /// The deadline of one step of an attempt.
    async fn in_time<T>(
        &self,
        target: &Target,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.conn.connect_timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::new(
                Code::Connection,
                format!(
                    "connecting to {}: no answer within {} s",
                    self.conn.display_target(target),
                    limit.as_secs_f32()
                ),
                "check host, port and network; nothing is lost, it is tried again",
            )),
        }
        .map_err(|e| e.with_disposition(Disposition::Unreached))
    }
}

/// The pool's way to the dialer that the remote keeps too.
pub struct Shared(pub Arc<Dialer>);

impl Connect for Shared {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> Pin<
        Box<
            dyn Future<
                    Output = std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error>,
                > + Send
                + '_,
        >,
    > {
        Box::pin(async move {
            match self.0.dial(None, None).await {
                Ok(connected) => Ok(connected),
                Err(e) => {
                    *self.0.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    // The driver's errors are its own to make: one without a host always fails. The
                    // reason is read from `why`.
                    let (client, connection) = tokio_postgres::Config::new().connect(NoTls).await?;
                    Ok((client, tokio::spawn(async move { drop(connection.await) })))
                }
            }
        })
    }
}

/// Ends a connection's task unless it is kept: a login that nobody uses must not stay.
struct Task(Option<JoinHandle<()>>);

impl Task {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// The driver's settings for one place.
fn config(conn: &Conn, target: &Target, device: &str) -> tokio_postgres::Config {
    let mut pg = tokio_postgres::Config::new();
    match &target.host {
        Host::Tcp(host) => pg.host(host),
        Host::Socket(folder) => pg.host_path(folder),
    };
    pg.port(target.port)
        .user(&conn.user)
        .dbname(&conn.dbname)
        .keepalives(conn.keepalives.on)
        .application_name(format!("tidewater/{} {device}", env!("CARGO_PKG_VERSION")));
    if let Some(idle) = conn.keepalives.idle {
        pg.keepalives_idle(idle);
    }
    if let Some(interval) = conn.keepalives.interval {
        pg.keepalives_interval(interval);
    }
    if let Some(count) = conn.keepalives.count {
        pg.keepalives_retries(count);
    }
    if let Some(timeout) = conn.keepalives.user_timeout {
        pg.tcp_user_timeout(timeout);
    }
    if let Some(password) = &target.password {
        pg.password(password.expose());
    }
    // With the connectors of `tls` the driver's `Require` verifies whatever was asked for.
    pg.ssl_mode(match target.ssl {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            tokio_postgres::config::SslMode::Require
        }
    });
    pg.channel_binding(match conn.channel_binding {
        ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
        ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
        ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
    });
    pg
}

/// The addresses of a place, looked up anew each time: the primary may have moved. A socket has none.
async fn addresses(target: &Target) -> Result<Vec<Option<IpAddr>>> {
    let name = match (&target.host, target.address) {
        (_, Some(address)) => return Ok(vec![Some(address)]),
        (Host::Socket(_), None) => return Ok(vec![None]),
        (Host::Tcp(name), None) => name,
    };
    let unknown = |why: String| {
        Error::new(
            Code::Connection,
            format!("looking up the host {name}: {why}"),
            "check the host name and the network; nothing is lost, it is tried again",
        )
    };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), target.port))
        .await
        .map_err(|e| unknown(e.to_string()))?
        .collect();
    if found.is_empty() {
        return Err(unknown("it has no address".to_owned()));
    }
    Ok(found.into_iter().map(|a| Some(a.ip())).collect())
}

/// Refuses a server that would not take what is sent to it.
async fn must_take_writes(client: &Client, session: Session, what: &str) -> Result<()> {
    let sql = "select pg_is_in_recovery(), current_setting('default_transaction_read_only')";
    let answer = client
        .simple_query(sql)
        .await
        .map_err(|e| fault(&e, what))?;
    let is = |i: usize, on: &str| {
        answer
            .iter()
            .any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(i) == Some(on)))
    };
    let refused = if is(0, "t") {
        workspace::standby_error()
    } else if is(1, "on") && session != Session::Primary {
        workspace::read_only_error()
    } else {
        return Ok(());
    };
    Err(Error {
        message: format!("{what}: {}", refused.message),
        ..refused
    })
}

/// One error for all places. The primary may be behind one that did not answer, so that the answer is
/// "unusable" only where every place was reached.
fn none_of(mut errors: Vec<Error>) -> Error {
    let first = errors
        .iter()
        .position(|e| e.code == Code::Connection)
        .unwrap_or(0);
    if errors.is_empty() {
        return Error::new(
            Code::Connection,
            "no host is named",
            "name the server in [remote] url",
        )
        .with_disposition(Disposition::Unreached);
    }
    if let [_] = errors.as_slice() {
        return errors.remove(0);
    }
    // A host with several addresses says the same of each.
    let mut all: Vec<&str> = errors.iter().map(|e| e.message.as_str()).collect();
    all.dedup();
    let message = all.join("; ");
    let mut error = errors.swap_remove(first);
    error.message = message;
    error
}

/// The items in a random order where that is asked for.
fn shuffled<T>(mut items: Vec<T>, random: bool) -> Vec<T> {
    if random {
        for i in (1..items.len()).rev() {
            let drawn = ulid::Ulid::generate().random() % (i as u128 + 1);
            items.swap(i, usize::try_from(drawn).unwrap_or(i));
        }
    }
    items
}
