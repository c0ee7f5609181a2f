//! A network that a test made itself and may cut: one network namespace for each node, and one for
//! the test, joined by a bridge. Nothing of it touches the machine's own network.
//!
//! ```text
//! namespace of the test: bridge 10.213.0.254
//!    |              |              |
//!  node 0         node 1         node 2      (a namespace each)
//!  10.213.0.1     10.213.0.2     10.213.0.3
//! ```
//!
//! A cut is a blackhole route: packets go nowhere, and nobody is told. The test itself reaches every
//! node at any time.

use std::env;
use std::process::{self, Command};
use std::thread;

/// Tells a test that it runs inside, and the name of its namespaces.
const INSIDE: &str = "DUNLIN_TESTS_INSIDE";

/// The namespaces of one mesh.
#[derive(Debug)]
pub struct Cuttable {
    name: String,
    nodes: usize,
}

impl Cuttable {
    /// Only in a process of its own, in the test's namespace, is there a network: the calling test is
    /// run once more there, and has passed when that has. So the value is none in the first process,
    /// and where namespaces cannot be had, which is said on stderr.
    #[track_caller]
    pub fn of(nodes: usize) -> Option<Cuttable> {
        if let Ok(name) = env::var(INSIDE) {
            return Some(Cuttable { name, nodes });
        }
        let network = Cuttable { name: format!("dunlin{}", process::id()), nodes };
        match network.make() {
            Ok(()) => {
                let test = thread::current().name().expect("a test's thread has its name").to_string();
                let status = Command::new("ip")
                    .args(["netns", "exec", &network.hub()])
                    .arg(env::current_exe().unwrap())
                    .args([&test, "--exact", "--nocapture"])
                    .env(INSIDE, &network.name)
                    .status();
                network.remove();
                assert!(status.unwrap().success(), "{test} failed inside its network: its reason is above");
            }
            Err(why) => {
                network.remove();
                eprintln!(
                    "not checked: network namespaces cannot be had here ({why}); run as root, with iproute2"
                );
            }
        }
        None
    }

    fn make(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "addr", "add", "10.213.0.254/24", "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for node in 0..self.nodes {
            let (space, port) = (self.space(node), format!("port{node}"));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge"])?;
            ip(&["-n", &hub, "link", "set", &port, "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/24", self.address(node)), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// What was made of it.
    fn remove(&self) {
        for space in (0..self.nodes).map(|node| self.space(node)).chain([self.hub()]) {
            // It may never have been made.
            let _ = ip(&["netns", "del", &space]);
        }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// The namespace of a node.
    pub(crate) fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    pub(crate) fn address(&self, node: usize) -> String {
        format!("10.213.0.{}", node + 1)
    }

    /// Nothing goes from one node to the other any more.
    #[track_caller]
    pub fn cut_one_way(&self, from: usize, to: usize) {
        ip(&["-n", &self.space(from), "route", "add", "blackhole", &self.address(to)]).unwrap();
    }

    #[track_caller]
    pub fn heal_one_way(&self, from: usize, to: usize) {
        ip(&["-n", &self.space(from), "route", "del", "blackhole", &self.address(to)]).unwrap();
    }

    #[track_caller]
    pub fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    #[track_caller]
    pub fn heal(&self, one: usize, other: usize) {
        self.heal_one_way(one, other);
        self.heal_one_way(other, one);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|why| format!("ip: {why}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}
