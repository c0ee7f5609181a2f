//! `/v1/status`, `/v1/nodes`, `/metrics`, `/healthz`, `/readyz`: how the node is.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response as HttpResponse;
use dunlin_protocol::rpc::{Request, Response, Status};

use super::door::unexpected;
use super::http::{Api, text};
use super::json::{NodeJson, StatusJson};
use super::problem::Problem;

/// A core that takes longer to say how it is, is not ready.
const READY_DEADLINE: Duration = Duration::from_secs(2);
const PLAIN: &str = "text/plain; charset=utf-8";

async fn ask_status(api: &Api) -> Result<Status, Problem> {
    match api.door.ask(Request::Status).await? {
        Response::Status(status) => Ok(status),
        other => Err(unexpected(&other).into()),
    }
}

pub async fn status(State(api): State<Api>) -> Result<Json<StatusJson>, Problem> {
    Ok(Json(StatusJson::from(&ask_status(&api).await?)))
}

pub async fn nodes(State(api): State<Api>) -> Result<Json<Vec<NodeJson>>, Problem> {
    match api.door.ask(Request::Nodes).await? {
        Response::Nodes(nodes) => Ok(Json(nodes.iter().map(NodeJson::from).collect())),
        other => Err(unexpected(&other).into()),
    }
}

pub async fn metrics(State(api): State<Api>) -> Result<HttpResponse, Problem> {
    let status = ask_status(&api).await?;
    let metrics = &api.door.metrics;
    metrics.gauge("peers").set(status.peers.into());
    metrics.gauge("pipelines").set(status.pipelines.into());
    metrics.gauge("rss_bytes").set(status.rss_bytes);
    metrics.gauge("disk_bytes").set(status.disk_bytes);
    metrics.gauge("uptime_seconds").set(status.uptime_ms / 1000);
    metrics.gauge("troubles").set(status.troubles.len() as u64);
    metrics.gauge("requests_open").set(api.door.doors.open() as u64);
    Ok(text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.to_prometheus()))
}

/// The process runs and serves.
pub async fn healthz() -> HttpResponse {
    text(StatusCode::OK, PLAIN, "ok\n".to_string())
}

/// The node serves, its mesh knows it, and the core answers: requests make sense.
pub async fn readyz(State(api): State<Api>) -> HttpResponse {
    if !*api.open.borrow() {
        return unready();
    }
    let answer = api.door.doors.one_within(Request::Status, READY_DEADLINE).await;
    match answer {
        Response::Status(_) => text(StatusCode::OK, PLAIN, "ready\n".to_string()),
        _ => unready(),
    }
}

fn unready() -> HttpResponse {
    text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ready\n".to_string())
}
