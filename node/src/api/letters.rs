//! `/v1/pipelines/{name}/dead-letters`: what a pipeline could not take, and what becomes of it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dunlin_protocol::id::{LetterId, NodeId};
use dunlin_protocol::rpc::{LetterMove, Request, Response};
use serde::Deserialize;

use super::door::unexpected;
use super::http::Api;
use super::json::{DeadLetterJson, LettersMovedJson, NOT_REACHED};
use super::parts::{Fields, Segments};
use super::pipelines::{Limit, name};
use super::problem::Problem;

/// Which letters: one, or as many as `limit` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    id: Option<String>,
    limit: Option<u32>,
}

impl Which {
    fn letter(&self) -> Result<Option<LetterId>, Problem> {
        let letter = self.id.as_deref().map(str::parse::<LetterId>).transpose();
        letter.map_err(|error| Problem::invalid(error.to_string()))
    }
}

/// What the nodes that answer have; those that do not are named in a header.
pub async fn list(
    State(api): State<Api>,
    Segments(pipeline): Segments<String>,
    Fields(which): Fields<Which>,
) -> Result<(HeaderMap, Json<Vec<DeadLetterJson>>), Problem> {
    let (pipeline, letter) = (name(&pipeline)?, which.letter()?);
    let request = Request::DeadLetters { pipeline, letter, limit: Limit::of(which.limit).get() };
    match api.door.ask(request).await? {
        Response::DeadLetters { letters, missed } => {
            let missed: Vec<String> = missed.iter().map(NodeId::to_string).collect();
            let named = Some(missed.join(", ")).filter(|named| !named.is_empty());
            let named = named.and_then(|named| HeaderValue::from_str(&named).ok());
            let headers =
                named.map(|named| (HeaderName::from_static(NOT_REACHED), named)).into_iter().collect();
            Ok((headers, Json(letters.iter().map(DeadLetterJson::from).collect())))
        }
        other => Err(unexpected(&other).into()),
    }
}

pub async fn replay(
    api: State<Api>,
    path: Segments<String>,
    which: Fields<Which>,
) -> Result<Json<LettersMovedJson>, Problem> {
    moved(api, path, which, LetterMove::Replay).await
}

pub async fn drop(
    api: State<Api>,
    path: Segments<String>,
    which: Fields<Which>,
) -> Result<Json<LettersMovedJson>, Problem> {
    moved(api, path, which, LetterMove::Drop).await
}

/// Answered when it is committed; nodes that were not reached are named in the answer.
async fn moved(
    State(api): State<Api>,
    Segments(pipeline): Segments<String>,
    Fields(which): Fields<Which>,
    does: LetterMove,
) -> Result<Json<LettersMovedJson>, Problem> {
    let pipeline = name(&pipeline)?;
    let request = Request::MoveLetters { pipeline: pipeline.clone(), letter: which.letter()?, does };
    match api.door.ask(request).await? {
        Response::LettersMoved(moved) => Ok(Json(LettersMovedJson::new(pipeline, does, &moved))),
        other => Err(unexpected(&other).into()),
    }
}
