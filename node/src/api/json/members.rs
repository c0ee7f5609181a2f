//! What rotating tokens and giving a node up answer.

use dunlin_protocol::id::Name;
use dunlin_protocol::rpc::{GivenUp, NodeRemoved, TokensRotated};
use serde::{Deserialize, Serialize};

use super::{BadJson, parsed};

/// What a rotation of tokens answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensRotatedJson {
    pub rotations: u32,
    /// Members that have not heard of it: they take tokens of before until they do.
    pub unheard: Vec<String>,
}

impl From<&TokensRotated> for TokensRotatedJson {
    fn from(rotated: &TokensRotated) -> Self {
        let unheard = rotated.unheard.iter().map(ToString::to_string).collect();
        TokensRotatedJson { rotations: rotated.rotations, unheard }
    }
}

impl TokensRotatedJson {
    pub fn into_rpc(self) -> Result<TokensRotated, BadJson> {
        let unheard = self.unheard.iter().map(|node| parsed("node id", node));
        Ok(TokensRotated { rotations: self.rotations, unheard: unheard.collect::<Result<_, BadJson>>()? })
    }
}

/// What giving a node up answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemovedJson {
    pub node: String,
    pub removed: bool,
    /// Members that have not heard of it: they listen to the node until they do.
    pub unheard: Vec<String>,
    pub given_up: Vec<GivenUpJson>,
}

/// What a node that was given up leaves behind in one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUpJson {
    pub pipeline: Name,
    pub node: String,
    /// Sources whose events entered there too: what no other node had read of them is lost.
    pub lost: Vec<Name>,
    /// Sources whose files were read there: nobody reads them on.
    pub ended: Vec<Name>,
    /// Stages and sinks that start anew elsewhere; what came out of them before may come again.
    pub anew: Vec<AnewJson>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnewJson {
    pub stage: Name,
    /// None: nobody was there to take it.
    pub node: Option<String>,
}

impl From<&NodeRemoved> for NodeRemovedJson {
    fn from(removed: &NodeRemoved) -> Self {
        NodeRemovedJson {
            node: removed.node.to_string(),
            removed: true,
            unheard: removed.unheard.iter().map(ToString::to_string).collect(),
            given_up: removed.given_up.iter().map(GivenUpJson::from).collect(),
        }
    }
}

impl NodeRemovedJson {
    pub fn into_rpc(self) -> Result<NodeRemoved, BadJson> {
        let unheard = self.unheard.iter().map(|node| parsed("node id", node));
        Ok(NodeRemoved {
            node: parsed("node id", &self.node)?,
            unheard: unheard.collect::<Result<_, BadJson>>()?,
            given_up: self.given_up.into_iter().map(GivenUpJson::into_rpc).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&GivenUp> for GivenUpJson {
    fn from(given_up: &GivenUp) -> Self {
        let anew = given_up.anew.iter();
        GivenUpJson {
            pipeline: given_up.pipeline.clone(),
            node: given_up.node.to_string(),
            lost: given_up.lost.clone(),
            ended: given_up.ended.clone(),
            anew: anew
                .map(|(stage, node)| AnewJson {
                    stage: stage.clone(),
                    node: node.map(|node| node.to_string()),
                })
                .collect(),
        }
    }
}

impl GivenUpJson {
    pub fn into_rpc(self) -> Result<GivenUp, BadJson> {
        let node = |node: Option<String>| node.map(|node| parsed("node id", &node)).transpose();
        let anew = self.anew.into_iter().map(|anew| Ok((anew.stage, node(anew.node)?)));
        Ok(GivenUp {
            pipeline: self.pipeline,
            node: parsed("node id", &self.node)?,
            lost: self.lost,
            ended: self.ended,
            anew: anew.collect::<Result<_, BadJson>>()?,
        })
    }
}
