//! The HTTP door: paths, the bearer token, limits. What a path does is in its group's file.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::door::Door;
use super::problem::Problem;
use super::{letters, members, observe, pipelines, streams};

/// Bytes beyond a limit that are read and dropped before the answer. Beyond: the connection ends.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// Connections at once. Beyond: new ones wait in the system's queue until one ends.
const CONNECTIONS_MAX: usize = 4096;
/// A request's head has to be here by then, or the connection ends: nobody holds one by saying nothing.
/// Longer than clients keep connections for their next request.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// After the system could not give a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What every handler shares.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub door: Door,
    pub open: watch::Receiver<bool>,
    bearer: Arc<blake3::Hash>,
}

/// Every path of this version. `bearer` is the token that all but the health paths ask for.
/// `open` becomes true once the node serves and its mesh knows it.
pub fn router(door: Door, bearer: &str, open: watch::Receiver<bool>) -> Router {
    let api = Api { door, open, bearer: Arc::new(blake3::hash(bearer.as_bytes())) };
    let guarded = Router::new()
        .route("/v1/status", get(observe::status))
        .route("/v1/nodes", get(observe::nodes))
        .route("/v1/nodes/given-up", get(members::given_up))
        .route("/v1/nodes/{node}", delete(members::remove))
        .route("/v1/tokens/rotate", post(members::rotate))
        .route("/metrics", get(observe::metrics))
        .route("/v1/pipelines", get(pipelines::list))
        .route("/v1/pipelines/{name}", get(pipelines::show).put(pipelines::deploy).delete(pipelines::remove))
        .route("/v1/pipelines/{name}/dead-letters", get(letters::list))
        .route("/v1/pipelines/{name}/dead-letters/replay", post(letters::replay))
        .route("/v1/pipelines/{name}/dead-letters/drop", post(letters::drop))
        .route("/v1/pipelines/{name}/history", get(|| not_yet("the history of revisions")))
        .route("/v1/pipelines/{name}/rollback", post(|| not_yet("going back to an earlier revision")))
        .route("/v1/modules", put(pipelines::put_module))
        .route("/v1/modules/{digest}", get(pipelines::has_module))
        .route("/v1/streams/{pipeline}/{stream}", get(streams::tail).post(streams::publish))
        .route("/v1/state/{pipeline}/{stage}", get(streams::state))
        .route("/v1/state/{pipeline}/{stage}/{*key}", get(streams::state_of_key))
        .route("/openapi.json", get(|| not_yet("the OpenAPI document")))
        .route("/", get(|| not_yet("the dashboard")))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), bearer_only))
        .with_state(api.clone());
    Router::new()
        .route("/healthz", get(observe::healthz))
        .route("/readyz", get(observe::readyz))
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
        .merge(guarded)
}

/// Serves until `stop`. Close the [`Doors`](super::answers::Doors) too, or open tails hold it up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = &mut stop => break,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            // The system has no more to give, or the client left in between: others still wait.
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // How it ended is the client's affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
    Ok(())
}

async fn bearer_only(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    // Hashes are compared, in constant time (blake3 says so): how long it takes tells nothing.
    match given {
        Some(token) if blake3::hash(token.as_bytes()) == *api.bearer => next.run(request).await,
        Some(_) | None => {
            api.door.metrics.count("http_unauthorized", 1);
            Problem::unauthorized().into_response()
        }
    }
}

async fn not_yet(what: &'static str) -> Problem {
    Problem::not_yet(format!("{what} is not there yet"))
}

async fn no_such_path(request: Request) -> Problem {
    Problem::no_such_path(request.uri().path())
}

async fn wrong_method(request: Request) -> Response {
    Problem::wrong_method(request.method().as_str(), request.uri().path()).into_response()
}

/// The body in full, or 413 beyond `limit`.
///
/// What is too much is still taken off the connection, within reason: a client that is sending
/// reads no answer, and would see a broken connection in the place of a sentence.
pub(super) async fn body(what: &str, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut parts = body.into_data_stream();
    let mut taken = BytesMut::new();
    let mut length = 0;
    while let Some(part) = parts.next().await {
        // A client that went away reads no answer.
        let part =
            part.map_err(|_| Problem::invalid("the request broke off before its end: send it again"))?;
        length += part.len();
        if length <= limit {
            taken.extend_from_slice(&part);
        } else if length > limit + DISCARD_BYTES_MAX {
            break;
        }
    }
    if length > limit { Err(Problem::too_large(what, limit)) } else { Ok(taken.freeze()) }
}

/// Plain text with its media type.
pub(super) fn text(status: StatusCode, media_type: &'static str, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, media_type)], text).into_response()
}
