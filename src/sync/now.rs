//! One sync at once: everything that was committed before it began is sent, and the feed is read to
//! its end.

use super::device::{Device, now_ms};
use super::{first, heal, lock, mount, ops::NowOptions, pull, push, reconcile};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::remote::Remote;
use crate::report::{ErrorReport, NowReport, Progress};
use crate::sqlite::local::Local;
use crate::sqlite::{first as first_rows, queue, request};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a request waits for a service that is busy, unless told.
const PATIENCE: Duration = Duration::from_secs(120);

/// What another process may ask of the service.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub struct Request {
    /// Send.
    pub push: bool,
    /// Receive.
    pub pull: bool,
    /// Ignore waiting times.
    pub force: bool,
}

/// The service's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done(NowReport),
    /// Not done: the error and its exit code.
    Failed(ErrorReport, u8),
}

/// One sync of a device that this process holds. A server that went back in time is met again first.
pub async fn sync<R: Remote>(
    device: &mut Device<R>,
    request: &Request,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<NowReport> {
    match exchange(device, request, stop, progress).await {
        Err(e) if e.code == Code::RemoteWentBack => {
            reconcile::reconcile(device, &e, progress).await?;
            // Once: a server that goes back again meanwhile is dealt with by the next sync.
            exchange(device, request, stop, progress).await
        }
        done => done,
    }
}

async fn exchange<R: Remote>(
    device: &mut Device<R>,
    request: &Request,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<NowReport> {
    let started = Instant::now();
    let mut report = NowReport::default();
    // A rebuilt table has lost its triggers, and then nothing in the log would tell.
    if !heal::is_current(&device.local, &device.config)? {
        device.heal_capture()?;
    }
    let logged = u64::try_from(queue::log_rows(device.local.conn())?).unwrap_or(0);
    if logged > 0 {
        // A push claims the rest of a long log while its first part is on the way. Who meets mirrors for
        // the first time compares, and has all of it in the queue before.
        let most = if request.push && !device.is_unprepared()? {
            push::CLAIMED
        } else {
            usize::try_from(logged).unwrap_or(usize::MAX)
        };
        progress.begin("queueing", Some(logged.min(most as u64)));
        device.claim_some(most, progress)?;
        progress.end();
    }
    device.prepare_if_needed().await?;
    let mut met = false;
    // The second turn sends what a comparison queued; the third is for what that met.
    for turn in 0..3 {
        if request.push {
            let first = first::upload(device, stop, progress).await?;
            report.uploaded += first.uploaded;
            let (ready, _) = queue::waiting(device.local.conn(), now_ms())?;
            let logged = u64::try_from(queue::log_rows(device.local.conn())?).unwrap_or(0);
            progress.begin("sending", Some(ready + logged));
            let pushed = push::drain(device, request.force && turn == 0, stop, progress).await;
            progress.end();
            let pushed = pushed?;
            report.uploaded += pushed.uploaded;
            report.failed += pushed.failed;
            met |= pushed.lost + pushed.same > 0;
            if !request.pull {
                report.conflicts += pushed.conflicts;
            }
        }
        // What met somebody else's version must see it, even when only a push was asked for: until then
        // the next edit of the row would count as concurrent.
        if request.pull || met {
            progress.begin("receiving", None);
            let pulled = pull::drain(device, pull::beside_app(), stop, progress).await;
            progress.end();
            let pulled = pulled?;
            report.downloaded += pulled.downloaded;
            report.failed += pulled.failed;
            if request.pull {
                report.conflicts += pulled.conflicts;
            }
        }
        if !request.push || stop.is_cancelled() || !queue::log_waits(device.local.conn())? {
            break;
        }
    }
    // With nothing to send, a push has asked nobody. Who asks for one wants to know whether the server is
    // there; the service's own turns come every few seconds and do without.
    let idle = !request.pull && report.uploaded + report.failed == 0;
    if idle && !device.heeds_pause && !stop.is_cancelled() {
        device.remote.head(&device.id()?).await?;
    }
    report.pending =
        queue::waiting(device.local.conn(), now_ms())?.1 + first_rows::left(device.local.conn())?;
    if device.cut_short {
        report.pending += u64::try_from(queue::log_rows(device.local.conn())?).unwrap_or(0);
    }
    report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(0);
    Ok(report)
}

/// See `ops::now`: through the running service if there is one, else by itself.
pub async fn now(
    config: &Config,
    opts: &NowOptions,
    force: bool,
    progress: &dyn Progress,
) -> Result<NowReport> {
    let request = Request {
        push: opts.push || !opts.pull,
        pull: opts.pull || !opts.push,
        force,
    };
    let patience = opts.timeout.unwrap_or(PATIENCE);
    let work = by_either(config, &request, progress);
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(
            Code::Connection,
            format!("not finished within {} s", patience.as_secs_f32()),
            "nothing is lost; give it more with --timeout, or look at `tidewater status`",
        )),
    }
}

async fn by_either(
    config: &Config,
    request: &Request,
    progress: &dyn Progress,
) -> Result<NowReport> {
    let path = config.path()?.to_owned();
    // The file first: a wrong path must not leave a lock folder behind.
    let mut local = Local::open(&path)?;
    mount::require_local(config, &path)?;
    local.require_initialised()?;
    let mut asked: Option<i64> = None;
    loop {
        match lock::take(&path, false)? {
            Ok(_held) => {
                // The service that was asked is gone: take the request back and do it here.
                if let Some(id) = asked {
                    request::forget(&mut local, id)?;
                }
                let remote = super::connect::remote(config)?;
                let mut device = Device::new(local, remote, config.clone())?;
                let done = sync(&mut device, request, &CancellationToken::new(), progress).await;
                // What the sync came to is the answer, even where the app's lock keeps us from tidying up.
                let tidied = device
                    .report_problems(done.as_ref().err())
                    .and_then(|()| device.prune_if_due());
                if let Err(e) = tidied {
                    tracing::warn!(code = e.code.as_str(), error = %e.message, "tidying up is left for the next sync");
                }
                return done;
            }
            Err(holder) => {
                if holder.service && asked.is_none() {
                    let json = serde_json::to_string(request).unwrap_or_default();
                    asked = Some(request::ask(&mut local, &json, now_ms())?);
                }
            }
        }
        if let Some(id) = asked
            && let Some(text) = request::answered(&local, id)?
        {
            request::forget(&mut local, id)?;
            return read_answer(&text);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn read_answer(text: &str) -> Result<NowReport> {
    match serde_json::from_str(text) {
        Ok(Answer::Done(report)) => Ok(report),
        Ok(Answer::Failed(e, _)) => Err(error_of(&e)),
        Err(_) => Err(Error::new(
            Code::AnotherInstance,
            "the running service is of another version",
            "restart it with this version",
        )),
    }
}

/// An error that the service told as a document.
fn error_of(e: &ErrorReport) -> Error {
    let code = Code::parse(&e.error.code).unwrap_or(Code::Batch);
    let mut out = Error::new(code, e.error.message.clone(), e.error.remedy.clone());
    out.table.clone_from(&e.error.table);
    out
}
