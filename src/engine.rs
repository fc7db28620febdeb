//! The service inside another program.
//!
//! [`Engine`] is a handle. The work is done by a thread with a runtime of its own, for work on the
//! file blocks (a commit waits for the disk, a write for the app's lock) and must not hold up the
//! executor of the program around it. Everything the handle asks goes the way that another process
//! would take, through the file; so whatever holds for the commands holds here.
//!
//! Must never install a signal handler, a logger or a panic hook: the process belongs to somebody else.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http;
use crate::report::{InitReport, ModeReport, NoProgress, NowReport, StatusReport};
use crate::sync::Observer;
use crate::sync::ops::{self, NowOptions};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How the service ended; `None` while it runs.
type Ended = Option<Result<()>>;

/// A device kept in sync inside this process: what `tidewater run` is as a program.
///
/// A clone is another handle to the same engine. When the last one is dropped the engine stops as
/// after [`stop`](Engine::stop), without anyone waiting for it.
///
/// One engine or service runs per SQLite file; a second one is refused with SYNC-010, in this process
/// as in another. All commands of the program work beside a running engine, `tidewater status` and
/// `tidewater now` among them.
///
/// The methods are async and need a tokio runtime around them. The work itself runs on a thread of the
/// engine's own, so a busy disk never holds up that runtime. Log lines go to the program's own
/// [`tracing`] subscriber, if it has one.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    stop: CancellationToken,
    ended: watch::Receiver<Ended>,
    /// Stops the engine when the last handle goes.
    _guard: DropGuard,
}

impl Engine {
    /// Prepares the SQLite file: installs capture, makes workspace and mirrors, and arranges the upload
    /// of the rows that are there.
    ///
    /// Needed once per file, and safe every time: what is there stays, what is missing is made, and a
    /// table that was added since is tracked from then on. Works offline; what needs the server is
    /// done at first contact. The file has to exist, with its tables. No configuration file is written.
    pub async fn init(config: &Config) -> Result<InitReport> {
        config.check()?;
        let config = config.clone();
        apart(move || async move { ops::install(&config, &NoProgress).await }).await
    }

    /// Starts the service. Returns once it holds the device, whether or not the server is in reach.
    ///
    /// Fails with SYNC-010 where another instance holds the device, with SYNC-012 where the file cannot
    /// be used or [`init`](Engine::init) was never called, and with SYNC-013 where the configuration is
    /// not possible.
    pub async fn start(config: Config) -> Result<Engine> {
        config.check()?;
        let config = Arc::new(config);
        let stop = CancellationToken::new();
        let (ended, end) = watch::channel(None);
        let (ready, is_ready) = oneshot::channel();
        let engine = Engine {
            inner: Arc::new(Inner {
                config: Arc::clone(&config),
                stop: stop.clone(),
                ended: end,
                _guard: stop.clone().drop_guard(),
            }),
        };
        std::thread::Builder::new()
            .name("tidewater".to_owned())
            .spawn(move || {
                let told = Ready(Mutex::new(Some(ready)));
                let service = |monitor| ops::run(&config, false, stop, &told, monitor);
                let done = runtime().and_then(|r| r.block_on(http::beside(&config, service)));
                // Before `told` goes: whoever waits for it then finds how it ended.
                ended.send_replace(Some(done));
            })
            .map_err(|e| no_thread(&e))?;
        match is_ready.await {
            Ok(()) => Ok(engine),
            Err(_) => match engine.ended().await {
                Err(e) => Err(e),
                Ok(()) => Err(stopped()),
            },
        }
    }

    /// Ends the service: the batch in hand is finished, the device is let go. What is queued stays
    /// queued in the file. Every handle may call it, any number of times; all get the same answer, which
    /// is an error only where the service had failed by itself.
    pub async fn stop(&self) -> Result<()> {
        self.inner.stop.cancel();
        self.ended().await
    }

    /// Waits until the service has ended, by [`stop`](Engine::stop) or because the file cannot be used
    /// any more. A server that is away never ends it.
    pub async fn ended(&self) -> Result<()> {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::new(
                Code::LocalUnusable,
                "the engine ended unexpectedly",
                "start it again; nothing is lost",
            )),
        }
    }

    /// Syncs at once, even when paused or waiting for the server to return: all that was committed before
    /// the call is sent, and everything that others wrote before is here when it returns.
    ///
    /// Fails with SYNC-001 where the server is out of reach; nothing is lost then.
    pub async fn sync_now(&self) -> Result<NowReport> {
        let config = self.running()?;
        apart(move || async move { ops::now(&config, &NowOptions::default(), &NoProgress).await })
            .await
    }

    /// How things stand: what waits, what failed, whether the server answers, and what a person should
    /// know of. Takes up to six seconds where the server does not answer.
    pub async fn status(&self) -> Result<StatusReport> {
        let config = Arc::clone(&self.inner.config);
        apart(move || async move { ops::status(&config).await }).await
    }

    /// Lets changes queue in the file until [`resume`](Engine::resume). Survives restarts;
    /// [`sync_now`](Engine::sync_now) works in spite of it.
    pub async fn pause(&self) -> Result<ModeReport> {
        let config = Arc::clone(&self.inner.config);
        apart(move || async move { ops::pause(&config) }).await
    }

    /// Goes on after [`pause`](Engine::pause); the server is tried at once.
    pub async fn resume(&self) -> Result<ModeReport> {
        let config = Arc::clone(&self.inner.config);
        apart(move || async move { ops::resume(&config) }).await
    }

    /// The configuration, where the engine still runs.
    fn running(&self) -> Result<Arc<Config>> {
        if self.inner.stop.is_cancelled() || self.inner.ended.borrow().is_some() {
            return Err(stopped());
        }
        Ok(Arc::clone(&self.inner.config))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("device", &self.inner.config.device.name)
            .field("running", &self.running().is_ok())
            .finish()
    }
}

/// Tells whoever waits for the start.
struct Ready(Mutex<Option<oneshot::Sender<()>>>);

impl Observer for Ready {
    fn ready(&self) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            // Nobody waits any more where the start was given up; the engine then stops by itself.
            let _ = waiting.send(());
        }
    }
}

/// Runs work that blocks, on a thread where it may.
async fn apart<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    tokio::task::spawn_blocking(move || runtime()?.block_on(work()))
        .await
        .unwrap_or_else(|e| {
            Err(Error::new(
                Code::LocalUnusable,
                format!("the work was broken off: {e}"),
                "try again; nothing is lost",
            ))
        })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| no_thread(&e))
}

fn no_thread(e: &std::io::Error) -> Error {
    Error::new(
        Code::Configuration,
        format!("the engine's thread cannot be started: {e}"),
        "check the limits that this process runs under",
    )
}

fn stopped() -> Error {
    Error::new(
        Code::AnotherInstance,
        "the engine was stopped",
        "start a new one with `Engine::start`",
    )
}
