//! `/v1/tokens`: who may come in.

use axum::Json;
use axum::extract::State;
use dunlin_protocol::rpc::{Request, Response};
use dunlin_protocol::wire::handshake::Secret;

use super::door::unexpected;
use super::http::Api;
use super::json::TokensRotatedJson;
use super::problem::Problem;

/// Answered when it stands; members that have not heard of it are named in the answer.
pub async fn rotate(State(api): State<Api>) -> Result<Json<TokensRotatedJson>, Problem> {
    match api.door.ask(Request::RotateTokens { salt: Secret(rand::random()) }).await? {
        Response::TokensRotated(rotated) => Ok(Json(TokensRotatedJson::from(&rotated))),
        other => Err(unexpected(&other).into()),
    }
}
