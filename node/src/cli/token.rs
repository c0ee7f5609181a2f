//! `dunlin token --rotate`: every token given before is revoked, and a new one printed.

use dunlin_protocol::rpc::{Request, Response};
use dunlin_protocol::wire::handshake::Secret;

use super::client::{Client, ask_patiently};
use super::inspect::wrong_answer;
use super::output::{Output, note};

/// `token` makes one of what the folder's node knows.
pub fn rotate(
    client: &dyn Client,
    token: impl Fn() -> anyhow::Result<String>,
    out: &Output,
) -> anyhow::Result<()> {
    // What would stand in the way of printing one is found out before anything is revoked.
    token()?;
    let rotated = match ask_patiently(client, Request::RotateTokens { salt: Secret(rand::random()) })? {
        Response::TokensRotated(rotated) => rotated,
        other => return Err(wrong_answer(&other)),
    };
    for node in &rotated.unheard {
        note(&format!("node {node} has not heard of it: it takes tokens of before until it can be reached"));
    }
    out.line(&token()?)
}
