//! `/v1/tokens` and `/v1/nodes/{node}`: who may come in, and who never may again.

use axum::Json;
use axum::extract::State;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::rpc::{Request, Response};
use dunlin_protocol::wire::handshake::Secret;

use super::door::unexpected;
use super::http::Api;
use super::json::{GivenUpJson, NodeRemovedJson, TokensRotatedJson};
use super::parts::Segments;
use super::problem::Problem;

/// Answered when it stands; members that have not heard of it are named in the answer.
pub async fn rotate(State(api): State<Api>) -> Result<Json<TokensRotatedJson>, Problem> {
    match api.door.ask(Request::RotateTokens { salt: Secret(rand::random()) }).await? {
        Response::TokensRotated(rotated) => Ok(Json(TokensRotatedJson::from(&rotated))),
        other => Err(unexpected(&other).into()),
    }
}

/// Gives a node up for good. Answered when it stands, with what is lost and what may come again.
pub async fn remove(
    State(api): State<Api>,
    Segments(node): Segments<String>,
) -> Result<Json<NodeRemovedJson>, Problem> {
    let node: NodeId = node
        .parse()
        .map_err(|_| Problem::invalid(format!("'{node}' is no node's id: take it from GET /v1/nodes")))?;
    match api.door.ask(Request::RemoveNode { node }).await? {
        Response::NodeRemoved(removed) => Ok(Json(NodeRemovedJson::from(&removed))),
        other => Err(unexpected(&other).into()),
    }
}

/// What nodes that were given up left behind.
pub async fn given_up(State(api): State<Api>) -> Result<Json<Vec<GivenUpJson>>, Problem> {
    match api.door.ask(Request::GivenUp { pipeline: None }).await? {
        Response::GivenUp(given_up) => Ok(Json(given_up.iter().map(GivenUpJson::from).collect())),
        other => Err(unexpected(&other).into()),
    }
}
