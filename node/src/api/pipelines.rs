//! `/v1/pipelines` and `/v1/modules`: what runs, deploying it, taking it away.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use dunlin_protocol::id::{Digest, Name};
use dunlin_protocol::limits::{MANIFEST_BYTES_MAX, MODULE_BYTES_MAX};
use dunlin_protocol::pipeline::manifest::Manifest;
use dunlin_protocol::rpc::{Request, Response};
use serde::Deserialize;

use super::door::unexpected;
use super::http::{self, Api};
use super::json::{DeployedJson, ModuleJson, PipelineJson, RemovedJson, ShownJson};
use super::parts::{Segments, media_type};
use super::problem::Problem;

/// Entries that a list answers with when nobody says how many.
const LIST_DEFAULT: u32 = 1000;
const LIST_MAX: u32 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    limit: Option<u32>,
}

impl Limit {
    pub fn of(limit: Option<u32>) -> Limit {
        Limit { limit }
    }

    pub fn get(&self) -> u32 {
        self.limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MAX)
    }
}

/// A name in a path, or 400.
pub fn name(text: &str) -> Result<Name, Problem> {
    text.parse::<Name>().map_err(|error| Problem::invalid(error.to_string()))
}

pub async fn list(State(api): State<Api>) -> Result<Json<Vec<PipelineJson>>, Problem> {
    match api.door.ask(Request::Pipelines).await? {
        Response::Pipelines(pipelines) => Ok(Json(pipelines.iter().map(PipelineJson::from).collect())),
        other => Err(unexpected(&other).into()),
    }
}

pub async fn show(
    State(api): State<Api>,
    Segments(pipeline): Segments<String>,
) -> Result<Json<ShownJson>, Problem> {
    let pipeline = name(&pipeline)?;
    let shown = match api.door.ask(Request::Show { pipeline: pipeline.clone() }).await? {
        Response::Shown(shown) => ShownJson::from(&shown),
        other => return Err(unexpected(&other).into()),
    };
    match api.door.ask(Request::GivenUp { pipeline: Some(pipeline) }).await? {
        Response::GivenUp(given_up) => Ok(Json(shown.with(&given_up))),
        other => Err(unexpected(&other).into()),
    }
}

/// A manifest, as JSON when the media type says so, else as TOML.
pub async fn deploy(
    State(api): State<Api>,
    Segments(pipeline): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DeployedJson>, Problem> {
    let media = media_type(&headers, &["application/toml", "application/json"])?;
    let bytes = http::body("a pipeline file", body, MANIFEST_BYTES_MAX).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Problem::invalid("the pipeline file is not UTF-8 text: save it as such and send it again")
    })?;
    let parsed = if media == "application/json" {
        Manifest::from_json(text)
    } else {
        Manifest::from_toml(text, "pipeline.toml")
    };
    let manifest = parsed.map_err(|error| Problem::invalid(error.to_string()))?;
    if manifest.name.as_str() != pipeline {
        return Err(Problem::invalid(format!(
            "the path names the pipeline '{pipeline}' and the file '{}': make them the same",
            manifest.name
        )));
    }
    match api.door.ask(Request::Deploy { manifest }).await? {
        Response::Deployed { pipeline, revision, changed, actors } => {
            Ok(Json(DeployedJson { pipeline, revision, changed, actors }))
        }
        other => Err(unexpected(&other).into()),
    }
}

pub async fn remove(
    State(api): State<Api>,
    Segments(pipeline): Segments<String>,
) -> Result<Json<RemovedJson>, Problem> {
    match api.door.ask(Request::Remove { pipeline: name(&pipeline)? }).await? {
        Response::Removed { pipeline } => Ok(Json(RemovedJson { pipeline, removed: true })),
        other => Err(unexpected(&other).into()),
    }
}

pub async fn put_module(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ModuleJson>, Problem> {
    media_type(&headers, &["application/wasm"])?;
    let bytes = http::body("a module", body, MODULE_BYTES_MAX).await?;
    Ok(Json(ModuleJson { digest: api.door.put_module(bytes).await? }))
}

pub async fn has_module(
    State(api): State<Api>,
    Segments(digest): Segments<String>,
) -> Result<Json<ModuleJson>, Problem> {
    let digest = digest.parse::<Digest>().map_err(|error| Problem::invalid(error.to_string()))?;
    if !api.door.shelf.has(&digest) {
        return Err(Problem::unknown(format!(
            "module {digest} is not on this node: upload it with PUT /v1/modules"
        )));
    }
    Ok(Json(ModuleJson { digest }))
}
