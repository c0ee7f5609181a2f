//! What `show` answers.

use dunlin_protocol::id::NodeId;
use dunlin_protocol::pipeline::manifest::Durability;
use dunlin_protocol::rpc::{ActorStatus, FanOut, GivenUp, Shown, StageStatus, Superseded};
use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::{BadJson, GivenUpJson, bad, parsed, pipeline_state, pipeline_word};

#[derive(Debug, Serialize, Deserialize)]
pub struct ShownJson {
    pub pipeline: String,
    pub revision: String,
    pub state: String,
    pub durability: String,
    pub copies: u8,
    pub stages: Vec<StageJson>,
    /// Deploys on the other side of a cut that lost to the one that stands.
    #[serde(default)]
    pub superseded: Vec<SupersededJson>,
    /// What nodes that were given up left behind: what is lost, and what may come again.
    #[serde(default)]
    pub given_up: Vec<GivenUpJson>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SupersededJson {
    pub revision: String,
    /// Where it was deployed.
    pub node: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StageJson {
    pub stage: String,
    #[serde(default)]
    pub from: Vec<String>,
    /// How its stream goes to the nodes that tap it: `direct` or `gossip`; none if it has no stream.
    #[serde(default)]
    pub fan_out: Option<String>,
    /// The nodes that get it by gossip now.
    #[serde(default)]
    pub gossip_nodes: u32,
    pub actors: Vec<ActorJson>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ActorJson {
    pub actor: String,
    pub node: String,
    pub keepers: Vec<String>,
    pub epoch: u64,
    pub committed: u64,
    pub events_in: u64,
    pub events_out: u64,
    pub lag: u64,
    pub watermark: Option<String>,
    pub parked: u64,
    pub dead: u64,
    #[serde(default)]
    pub rejected: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl From<&Shown> for ShownJson {
    fn from(shown: &Shown) -> Self {
        ShownJson {
            pipeline: shown.pipeline.to_string(),
            revision: shown.revision.to_string(),
            state: pipeline_word(shown.state).to_string(),
            durability: shown.durability.to_string(),
            copies: shown.copies,
            stages: shown.stages.iter().map(StageJson::from).collect(),
            superseded: shown.superseded.iter().map(SupersededJson::from).collect(),
            given_up: Vec::new(),
        }
    }
}

impl ShownJson {
    pub fn with(self, given_up: &[GivenUp]) -> ShownJson {
        ShownJson { given_up: given_up.iter().map(GivenUpJson::from).collect(), ..self }
    }
}

impl From<&Superseded> for SupersededJson {
    fn from(superseded: &Superseded) -> Self {
        SupersededJson { revision: superseded.revision.to_string(), node: superseded.node.to_string() }
    }
}

impl SupersededJson {
    fn to_rpc(&self) -> Result<Superseded, BadJson> {
        Ok(Superseded { revision: parsed("digest", &self.revision)?, node: parsed("node id", &self.node)? })
    }
}

impl From<&StageStatus> for StageJson {
    fn from(stage: &StageStatus) -> Self {
        let (fan_out, gossip_nodes) = match stage.fan_out {
            None => (None, 0),
            Some(FanOut::Direct) => (Some("direct".to_string()), 0),
            Some(FanOut::Gossip { nodes }) => (Some("gossip".to_string()), nodes),
        };
        StageJson {
            stage: stage.stage.clone(),
            from: stage.from.clone(),
            fan_out,
            gossip_nodes,
            actors: stage.actors.iter().map(ActorJson::from).collect(),
        }
    }
}

impl From<&ActorStatus> for ActorJson {
    fn from(actor: &ActorStatus) -> Self {
        ActorJson {
            actor: actor.actor.to_string(),
            node: actor.node.to_string(),
            keepers: actor.keepers.iter().map(NodeId::to_string).collect(),
            epoch: actor.epoch,
            committed: actor.committed,
            events_in: actor.events_in,
            events_out: actor.events_out,
            lag: actor.lag,
            watermark: actor.watermark.map(Time::to_rfc3339),
            parked: actor.parked,
            dead: actor.dead,
            rejected: actor.rejected,
            trouble: actor.trouble.clone(),
        }
    }
}

impl ShownJson {
    pub fn into_rpc(self) -> Result<Shown, BadJson> {
        let durability = match self.durability.as_str() {
            "memory" => Durability::Memory,
            "page" => Durability::Page,
            "disk" => Durability::Disk,
            other => return Err(bad("durability", other)),
        };
        Ok(Shown {
            pipeline: parsed("name", &self.pipeline)?,
            revision: parsed("digest", &self.revision)?,
            state: pipeline_state(&self.state)?,
            durability,
            copies: self.copies,
            stages: self.stages.into_iter().map(StageJson::into_rpc).collect::<Result<_, _>>()?,
            superseded: self.superseded.iter().map(SupersededJson::to_rpc).collect::<Result<_, _>>()?,
        })
    }
}

impl StageJson {
    fn into_rpc(self) -> Result<StageStatus, BadJson> {
        let actors = self.actors.into_iter().map(ActorJson::into_rpc).collect::<Result<_, _>>()?;
        let fan_out = match self.fan_out.as_deref() {
            None => None,
            Some("direct") => Some(FanOut::Direct),
            Some("gossip") => Some(FanOut::Gossip { nodes: self.gossip_nodes }),
            Some(other) => return Err(bad("fan-out", other)),
        };
        Ok(StageStatus { stage: self.stage, from: self.from, fan_out, actors })
    }
}

impl ActorJson {
    fn into_rpc(self) -> Result<ActorStatus, BadJson> {
        let watermark = match &self.watermark {
            None => None,
            Some(text) => Some(Time::parse(text).ok_or_else(|| bad("time", text))?),
        };
        Ok(ActorStatus {
            actor: parsed("log id", &self.actor)?,
            node: parsed("node id", &self.node)?,
            keepers: self.keepers.iter().map(|id| parsed("node id", id)).collect::<Result<_, _>>()?,
            epoch: self.epoch,
            committed: self.committed,
            events_in: self.events_in,
            events_out: self.events_out,
            lag: self.lag,
            watermark,
            parked: self.parked,
            dead: self.dead,
            rejected: self.rejected,
            trouble: self.trouble,
        })
    }
}
