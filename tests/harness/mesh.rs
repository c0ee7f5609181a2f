//! Several nodes that know one another, and their folder.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::cut::Cuttable;
use crate::node::{Launch, Node};
use crate::wait::wait_for;

const MEET_S: u64 = 60;
const CALM_S: u64 = 90;

/// A mesh. Its nodes end before its folder goes.
#[derive(Debug)]
pub struct Mesh {
    nodes: Vec<Node>,
    folder: TempDir,
    network: Option<Cuttable>,
}

impl Deref for Mesh {
    type Target = Vec<Node>;

    fn deref(&self) -> &Vec<Node> {
        &self.nodes
    }
}

impl DerefMut for Mesh {
    fn deref_mut(&mut self) -> &mut Vec<Node> {
        &mut self.nodes
    }
}

impl Mesh {
    /// `count` nodes, each with the label `n=NUMBER` (from 0); all see all.
    #[track_caller]
    pub fn of(count: usize) -> Mesh {
        Mesh::start(count, None, "")
    }

    /// The same, with these lines in each node's settings file.
    #[track_caller]
    pub fn with_settings(count: usize, settings: &str) -> Mesh {
        Mesh::start(count, None, settings)
    }

    /// The same, each node in a namespace of its own.
    #[track_caller]
    pub fn on(network: Cuttable, count: usize) -> Mesh {
        Mesh::start(count, Some(network), "")
    }

    #[track_caller]
    fn start(count: usize, network: Option<Cuttable>, settings: &str) -> Mesh {
        let mut mesh = Mesh { nodes: Vec::new(), folder: TempDir::new().unwrap(), network };
        let mut token: Option<String> = None;
        for number in 0..count {
            let data = mesh.file(&format!("n{number}"));
            let launch = match &mesh.network {
                Some(network) => Launch::inside(&data, network, number),
                None => Launch::at(&data),
            };
            let launch = launch.with_settings(settings).with(&["--label", &format!("n={number}")]);
            let node = match &token {
                Some(token) => launch.join(token).start(),
                None => launch.start(),
            };
            if token.is_none() && count > 1 {
                token = Some(node.token());
            }
            mesh.nodes.push(node);
        }
        mesh.meet();
        mesh
    }

    /// The network that was given to `on`.
    #[track_caller]
    pub fn network(&self) -> &Cuttable {
        self.network.as_ref().expect("this mesh is not in namespaces")
    }

    /// Waits until every running node sees all as alive.
    #[track_caller]
    pub fn meet(&self) {
        for node in &self.nodes {
            wait_for("all nodes see each other", MEET_S, || {
                let nodes = node.get("/v1/nodes");
                let alive = nodes.body.matches(r#""state":"alive""#).count();
                (alive == self.nodes.len()).then_some(())
            });
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and gives its path as text, for command lines.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Deploys this text through the first node.
    #[track_caller]
    pub fn deploy(&self, text: &str) -> Value {
        let file = self.write("pipeline.toml", text);
        self.nodes[0].cli(&["deploy", "--json", &file]).ok().json()
    }

    /// Waits until the stage has taken so many events and nothing waits in the pipeline; then it
    /// must not be one more.
    #[track_caller]
    pub fn wait_until_through(&self, pipeline: &str, stage: &str, events: u64) {
        let mut last = Value::Null;
        let calm = crate::wait::try_for(CALM_S, || {
            last = self.nodes[0].show(pipeline);
            let stages = last["stages"].as_array()?;
            let actors = || stages.iter().flat_map(|stage| stage["actors"].as_array().unwrap());
            let lag: u64 = actors().map(|actor| actor["lag"].as_u64().unwrap()).sum();
            let stage = stages.iter().find(|shown| shown["stage"] == stage)?;
            let taken = stage["actors"].as_array()?.iter().map(|actor| actor["events_in"].as_u64().unwrap());
            (taken.sum::<u64>() >= events && lag == 0).then_some(())
        });
        assert!(calm.is_some(), "not within {CALM_S} s: {events} events through '{stage}': {last:#}");
    }
}
