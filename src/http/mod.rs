//! The endpoint: `/metrics`, `/healthz`, `/readyz` and the status page, while `run` lives.
//!
//! A face like `cli`: it knows `sync::view` and nothing of either database. It only reads, answers to known
//! names alone (`hosts`), and shows names, codes and numbers, never a key or a value of a row. A look blocks a
//! thread of its own and never the service. The one failure that a person sees is a port that cannot be
//! opened (SYNC-013); afterwards nothing here stops the service. The only importer of `axum`.

mod hosts;
mod page;

use crate::config::{Config, HostPort, Metrics};
use crate::error::{Code, Error, Result};
use crate::metrics::{CONTENT_TYPE, Monitor};
use crate::sync::ops;
use crate::sync::view::View;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hosts::Hosts;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests in hand may take once the service has stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A port that is open.
struct Endpoint {
    listener: TcpListener,
    hosts: Hosts,
}

/// What a request is answered from.
struct Face {
    view: View,
    hosts: Hosts,
}

impl Endpoint {
    /// Opens the port; `None` where the endpoint is turned off.
    async fn open(config: &Metrics) -> Result<Option<Endpoint>> {
        let Some(listen) = &config.listen else {
            return Ok(None);
        };
        let listener = TcpListener::bind((listen.host.as_str(), listen.port.unwrap_or(0)))
            .await
            .map_err(|e| not_opened(listen, &e))?;
        Ok(Some(Endpoint {
            listener,
            hosts: Hosts::new(config),
        }))
    }

    /// Answers until `stop`, and then for a moment what is in hand.
    async fn serve(self, view: View, stop: CancellationToken) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!("metrics and status at http://{address}/");
        }
        let face = Face {
            view,
            hosts: self.hosts,
        };
        let router = Router::new().fallback(answer).with_state(Arc::new(face));
        let stopped = stop.clone();
        let served = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stopped.cancelled().await });
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = served => if let Err(e) = served {
                tracing::warn!(error = %e, "the metrics endpoint ended");
            },
            () = too_long => {}
        }
    }
}

/// Runs a service, and its endpoint for as long as it lives.
pub async fn beside<F>(config: &Config, service: impl FnOnce(Arc<Monitor>) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let monitor = Arc::new(Monitor::new()?);
    let view = View::new(config, Arc::clone(&monitor))?;
    let endpoint = match Endpoint::open(&config.metrics).await {
        Ok(endpoint) => endpoint,
        // The other program is the service of this very device, and that is what has to be said.
        Err(e) => return Err(ops::not_held(config).err().unwrap_or(e)),
    };
    let over = CancellationToken::new();
    let served = endpoint.map(|e| tokio::spawn(e.serve(view, over.clone())));
    let done = service(monitor).await;
    over.cancel();
    if let Some(served) = served {
        // It has its own deadline, and nobody is told of answers that were not given.
        let _ = served.await;
    }
    done
}

/// SYNC-013.
fn not_opened(listen: &HostPort, e: &std::io::Error) -> Error {
    let why = match e.kind() {
        std::io::ErrorKind::AddrInUse => "another program uses the port".to_owned(),
        _ => e.to_string(),
    };
    Error::new(
        Code::Configuration,
        format!("[metrics] listen = \"{listen}\" cannot be opened: {why}"),
        "give this device another port under [metrics] listen, or \"\" to go without the endpoint",
    )
}

async fn answer(State(face): State<Arc<Face>>, request: Request) -> Response {
    if !face.hosts.answers(request.uri(), request.headers()) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this name is not known here; add it to [metrics] allowed_hosts\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/metrics" | "/readyz" | "/" => {
            // The file may be locked: not on a thread that others need.
            let look = tokio::task::spawn_blocking(move || match path.as_str() {
                "/metrics" => metrics(&face.view),
                "/readyz" => ready(&face.view),
                _ => page(&face.view),
            });
            look.await
                .unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed\n"))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; there are /, /metrics, /healthz and /readyz\n",
        ),
    }
}

fn metrics(view: &View) -> Response {
    match view.scrape() {
        Ok(body) => typed(StatusCode::OK, CONTENT_TYPE, body),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{e}\n")),
    }
}

fn ready(view: &View) -> Response {
    match view.ready() {
        Ok(()) => text(StatusCode::OK, "ready\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
    }
}

fn page(view: &View) -> Response {
    let body = page::render(&view.picture());
    let mut response = typed(StatusCode::OK, "text/html; charset=utf-8", body);
    // Nothing is loaded and nothing runs, whatever a table's name holds.
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn text(status: StatusCode, body: &str) -> Response {
    typed(status, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, body).into_response()
}
