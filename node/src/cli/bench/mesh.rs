//! The nodes under load: processes of this program, or a mesh that was named.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use dunlin_protocol::id::Name;
use dunlin_protocol::rpc::{Liveness, Request, Response};
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::machine;
use crate::cli::WrongUsage;
use crate::cli::children::{Children, Interrupt, Start};
use crate::cli::client::{Client, ConnectMultiaddr, Target, TargetArguments, ask_patiently};
use crate::cli::inspect::wrong_answer;
use crate::network::RpcClient;

/// A mesh to measure. Dropping it stops the nodes that it started, by their processes.
pub struct Mesh {
    /// None: they are somebody else's.
    children: Option<Children>,
    /// Each member's multiaddr; the publisher's node is the first.
    addresses: Vec<String>,
    token: String,
    /// For deploys and questions.
    pub client: Box<dyn Client>,
    pub runtime: Arc<Runtime>,
    pub interrupt: Interrupt,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Mesh {
    /// The mesh that `--node` names, or `nodes` own ones, each with the label `bench=NUMBER`.
    pub fn open(
        target: &TargetArguments,
        connect: ConnectMultiaddr,
        nodes: usize,
        gossip_from: Option<NonZeroUsize>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Mesh> {
        // The driver's own work is small beside the nodes': one thread for it all.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let interrupt = Interrupt::listen("bench")?;
        match target.node {
            None => Mesh::start(Arc::new(runtime), interrupt, nodes, gossip_from, bar),
            Some(_) => Mesh::named(Arc::new(runtime), interrupt, target, connect),
        }
    }

    fn start(
        runtime: Arc<Runtime>,
        interrupt: Interrupt,
        nodes: usize,
        gossip_from: Option<NonZeroUsize>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Mesh> {
        let mut children = Children::new(interrupt.clone())?;
        let mut token = None;
        for number in 1..=nodes {
            bar.set_message(format!("starting node {number}"));
            let label = format!("bench={number}");
            children.start(Start {
                join: token.as_deref(),
                label: Some(&label),
                apart: true,
                gossip_from,
            })?;
            if token.is_none() {
                token = Some(children.token()?);
            }
        }
        bar.set_message("the nodes meet");
        let client = children.client()?;
        children.meet(&client)?;
        Ok(Mesh {
            addresses: children.addresses(),
            token: token.unwrap_or_default(),
            children: Some(children),
            client: Box::new(client),
            runtime,
            interrupt,
        })
    }

    fn named(
        runtime: Arc<Runtime>,
        interrupt: Interrupt,
        target: &TargetArguments,
        connect: ConnectMultiaddr,
    ) -> anyhow::Result<Mesh> {
        let (address, token) = member(target)?;
        let client = connect(&address, &token)?;
        let nodes = match ask_patiently(&*client, Request::Nodes)? {
            Response::Nodes(nodes) => nodes,
            other => return Err(wrong_answer(&other)),
        };
        let mut addresses = vec![address];
        for node in nodes {
            let id = node.node.to_string();
            let known = addresses.iter().any(|address| address.ends_with(&id));
            if let Some(other) = node.addresses.into_iter().next()
                && node.state == Liveness::Alive
                && !known
            {
                addresses.push(other);
            }
        }
        Ok(Mesh { children: None, addresses, token, client, runtime, interrupt })
    }

    pub fn nodes(&self) -> usize {
        self.addresses.len()
    }

    /// Whether the nodes carry the labels `bench=NUMBER`.
    pub fn is_own(&self) -> bool {
        self.children.is_some()
    }

    /// A connection of its own to member `number`, counted from 0; beyond the last it is the last.
    pub fn connect(&self, number: usize) -> anyhow::Result<RpcClient> {
        let address = self.addresses.get(number).or(self.addresses.last()).context("there is no node")?;
        Ok(self.runtime.block_on(RpcClient::connect(address, &self.token))?)
    }

    /// An error when a node has ended or the user asked to stop.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match &mut self.children {
            Some(children) => children.check(),
            None if self.interrupt.asked() => {
                bail!("the bench was interrupted; what it deployed is removed from the mesh")
            }
            None => Ok(()),
        }
    }

    pub fn remove(&self, pipeline: &Name) -> anyhow::Result<()> {
        ask_patiently(&*self.client, Request::Remove { pipeline: pipeline.clone() })?;
        Ok(())
    }

    fn processes(&self) -> Vec<u32> {
        self.children.as_ref().map(Children::processes).unwrap_or_default()
    }

    /// Seconds that each node has used so far; none of somebody else's nodes.
    pub fn cpu_seconds(&self) -> Option<Vec<f64>> {
        let processes = self.processes();
        let seconds: Option<Vec<f64>> = processes.into_iter().map(machine::cpu_seconds).collect();
        seconds.filter(|seconds| !seconds.is_empty())
    }

    pub fn resident_bytes(&self) -> Vec<u64> {
        self.processes().into_iter().filter_map(machine::resident_bytes).collect()
    }
}

/// The multiaddr and the token that `--node` and `--token` say.
pub fn member(target: &TargetArguments) -> anyhow::Result<(String, String)> {
    if let Some(node) = target.node.as_deref().filter(|node| !node.starts_with('/')) {
        return Err(WrongUsage(format!(
            "bench publishes and reads over libp2p, not over HTTP: in the place of --node {node} name the multiaddr of a \
             member ('dunlin nodes --json' prints them, /ip4/…/tcp/…/p2p/…) and with --token a token of its mesh ('dunlin \
             token' prints one)"
        ))
        .into());
    }
    match target.resolve()? {
        Target::Multiaddr { address, token } => Ok((address, token)),
        Target::Http { address, .. } => bail!("{address} is no multiaddr: report this"),
    }
}
