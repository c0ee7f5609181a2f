//! `dunlin nodes remove`: a node that is gone for good, and what it leaves behind.

use dunlin_protocol::id::NodeId;
use dunlin_protocol::rpc::{GivenUp, Request, Response};

use super::client::{Client, ask_patiently};
use super::inspect::wrong_answer;
use super::output::{Output, note};
use crate::api::json::NodeRemovedJson;

/// Ends of ids that are shorter might be meant by mistake.
const ID_END_CHARS_MIN: usize = 6;

pub fn remove(client: &dyn Client, node: &str, out: &Output) -> anyhow::Result<()> {
    let node = named(client, node)?;
    let removed = match ask_patiently(client, Request::RemoveNode { node })? {
        Response::NodeRemoved(removed) => removed,
        other => return Err(wrong_answer(&other)),
    };
    for other in &removed.unheard {
        note(&format!(
            "node {other} has not heard of it: it listens to the removed node until it can be reached"
        ));
    }
    if out.json {
        return out.object(&NodeRemovedJson::from(&removed));
    }
    out.line(&format!("removed node {}; its identity is refused for ever", removed.node))?;
    removed.given_up.iter().flat_map(sentences).try_for_each(|text| out.line(&text))
}

/// The node that is meant: one whose id this is, or the only member whose id ends so.
fn named(client: &dyn Client, text: &str) -> anyhow::Result<NodeId> {
    if let Ok(node) = text.parse() {
        return Ok(node);
    }
    let nodes = match ask_patiently(client, Request::Nodes)? {
        Response::Nodes(nodes) => nodes,
        other => return Err(wrong_answer(&other)),
    };
    let ends = |node: &NodeId| text.len() >= ID_END_CHARS_MIN && node.to_string().ends_with(text);
    let found: Vec<NodeId> = nodes.into_iter().map(|status| status.node).filter(ends).collect();
    match found.as_slice() {
        [node] => Ok(*node),
        _ => anyhow::bail!("'{text}' names no node of this mesh: take the id from 'dunlin nodes'"),
    }
}

/// What is lost and what may come again, in words.
pub fn sentences(given_up: &GivenUp) -> Vec<String> {
    let GivenUp { pipeline, node, lost, ended, anew } = given_up;
    let mut all = Vec::new();
    for source in lost {
        all.push(format!(
            "{pipeline}/{source}: what entered on node {node} and no other node had read is lost, and so are the dead letters of the stages that stood beside it there; publishers that name its log are refused"
        ));
    }
    for source in ended {
        all.push(format!(
            "{pipeline}/{source}: its file was read on node {node}, and nobody reads it on; remove the pipeline and deploy it again to read it elsewhere, from its beginning"
        ));
    }
    for (stage, to) in anew {
        all.push(match to {
            Some(to) => format!(
                "{pipeline}/{stage}: its part of node {node} starts anew on node {to}, from what is kept of its inputs; its state and dead letters there are lost, and what came out of it before may come again"
            ),
            None => format!("{pipeline}/{stage}: its part of node {node} is lost, no node was there to take it"),
        });
    }
    all
}
