//! Nodes for as long as a command lasts (`demo`, `bench`): real processes of this very program, on this machine.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use dunlin_protocol::rpc::{Liveness, Request, Response};
use serde::Deserialize;

use super::client::Client;
use super::http_client::HttpClient;
use super::inspect::wrong_answer;
use crate::data_folder;

const READY_DEADLINE: Duration = Duration::from_secs(30);
/// The members see each other by then.
const MEET_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Set when the user asks to stop.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    what: &'static str,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM from now on. `what` is interrupted, for sentences.
    pub fn listen(what: &'static str) -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt { asked: Arc::default(), what };
        let flag = Arc::clone(&interrupt.asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                #[cfg(unix)]
                {
                    use tokio::signal::unix::{SignalKind, signal};
                    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
                        tokio::select! {
                            _ = tokio::signal::ctrl_c() => {}
                            _ = terminate.recv() => {}
                        }
                    }
                }
                #[cfg(not(unix))]
                let _ = tokio::signal::ctrl_c().await;
                flag.store(true, Ordering::Relaxed);
            });
        });
        Ok(interrupt)
    }

    /// An error once the user asked to stop.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.asked.load(Ordering::Relaxed) {
            true => bail!("the {} was interrupted; its nodes are stopped and its files removed", self.what),
            false => Ok(()),
        }
    }

    /// A pause that ends early with an error when the user asks to stop.
    pub fn pause(&self, length: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + length;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_AGAIN));
        }
    }
}

/// What `dunlin run` prints when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    node: String,
    http: String,
    listen: Vec<String>,
}

/// One running node.
#[derive(Debug)]
struct Node {
    id: String,
    http: String,
    listen: Vec<String>,
    data: PathBuf,
    process: Child,
}

/// How one is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// A token: it joins that mesh.
    pub join: Option<&'a str>,
    /// `key=value`
    pub label: Option<&'a str>,
    /// It looks for no others on the local network.
    pub apart: bool,
    /// Nodes that tap a stream from which on it goes by gossip; none: as usual.
    pub gossip_from: Option<NonZeroUsize>,
}

/// The nodes and their folder. Dropping it stops them and removes everything.
#[derive(Debug)]
pub struct Children {
    program: PathBuf,
    folder: PathBuf,
    nodes: Vec<Node>,
    interrupt: Interrupt,
}

impl Children {
    pub fn new(interrupt: Interrupt) -> anyhow::Result<Children> {
        let what = interrupt.what;
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let folder = std::env::temp_dir().join(format!("dunlin-{what}-{}-{nanos}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder).with_context(|| {
            format!(
                "the {what} cannot make its folder {}: set TMPDIR to one that can be written",
                folder.display()
            )
        })?;
        Ok(Children { program, folder, nodes: Vec::new(), interrupt })
    }

    /// Starts a node and waits until it is ready.
    pub fn start(&mut self, start: Start<'_>) -> anyhow::Result<()> {
        let (number, what) = (self.nodes.len() + 1, self.interrupt.what);
        let data = self.folder.join(format!("n{number}"));
        let log = self.folder.join(format!("n{number}.log"));
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg("--data")
            .arg(&data)
            .args(["--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("the {what} cannot write its log"))?);
        if let Some(token) = start.join {
            command.args(["--join", token]);
        }
        if let Some(label) = start.label {
            command.args(["--label", label]);
        }
        if start.apart || start.gossip_from.is_some() {
            let config = self.folder.join("node.toml");
            let from = start.gossip_from.map(|from| format!("gossip_from = {from}\n")).unwrap_or_default();
            fs::write(&config, format!("mdns = {}\n{from}", !start.apart))
                .with_context(|| format!("the {what} cannot write a file"))?;
            command.arg("--config").arg(config);
        }
        // Ctrl-C reaches a terminal's whole group; the nodes are stopped by us, in order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn().with_context(|| format!("the {what} cannot start a node"))?;
        // From here on dropping `self` stops it.
        self.nodes.push(Node { id: String::new(), http: String::new(), listen: Vec::new(), data, process });
        let Some(node) = self.nodes.last_mut() else { return Ok(()) };
        let ready = wait_until_ready(&mut node.process, &self.interrupt)
            .with_context(|| format!("node {number} of the {what} did not start{}", last_words(&log)))?;
        node.id = ready.node;
        node.http = ready.http;
        node.listen = ready.listen;
        Ok(())
    }

    /// A token of the mesh, as a user gets it.
    pub fn token(&self) -> anyhow::Result<String> {
        let Some(first) = self.nodes.first() else { bail!("there is no node to ask for a token") };
        let output = Command::new(&self.program).arg("token").arg("--data").arg(&first.data).output()?;
        if !output.status.success() {
            bail!("there is no token: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_string())
    }

    /// A client of the first node.
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        let Some(first) = self.nodes.first() else { bail!("there is no node to talk to") };
        Ok(HttpClient::new(&first.http, &data_folder::read_bearer(&first.data)?))
    }

    /// Waits until every node counts as a member: shares that are placed before would leave one without work.
    pub fn meet(&mut self, client: &HttpClient) -> anyhow::Result<()> {
        let deadline = Instant::now() + MEET_DEADLINE;
        let (mut alive, all) = (0, self.nodes.len());
        while Instant::now() < deadline {
            self.check()?;
            match client.ask(Request::Nodes) {
                Ok(Response::Nodes(nodes)) => {
                    alive = nodes.iter().filter(|node| node.state == Liveness::Alive).count();
                    if alive >= all {
                        return Ok(());
                    }
                }
                Ok(other) => return Err(wrong_answer(&other)),
                Err(failure) => return Err(failure).context("node 1 does not say who is there"),
            }
            self.interrupt.pause(LOOK_AGAIN)?;
        }
        bail!(
            "after {} s only {alive} of {all} nodes see each other: run one by hand to see why",
            MEET_DEADLINE.as_secs()
        )
    }

    /// The nodes' ids, in the order in which they started.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// Where each listens for members and clients: a multiaddr with its id.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|node| node.listen.first().cloned()).collect()
    }

    /// Their processes, in the same order.
    pub fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// An error with its last words when a node has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.interrupt.check()?;
        for (number, node) in (1..).zip(&mut self.nodes) {
            if let Some(status) = node.process.try_wait()? {
                let log = self.folder.join(format!("n{number}.log"));
                bail!(
                    "node {number} of the {} ended by itself ({status}){}",
                    self.interrupt.what,
                    last_words(&log)
                );
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            terminate(&mut node.process);
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        for node in &mut self.nodes {
            while matches!(node.process.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    // It had its time. An error means that it has just ended.
                    let _ = node.process.kill();
                    let _ = node.process.wait();
                    break;
                }
                thread::sleep(LOOK_AGAIN);
            }
        }
        // Nothing more can be done about what cannot be removed.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Asks a process to end cleanly.
fn terminate(process: &mut Child) {
    if !matches!(process.try_wait(), Ok(None)) {
        return;
    }
    #[cfg(unix)]
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_child(process),
        rustix::process::Signal::TERM,
    );
    #[cfg(not(unix))]
    let _ = process.kill();
}

fn wait_until_ready(process: &mut Child, interrupt: &Interrupt) -> anyhow::Result<Ready> {
    let Some(stdout) = process.stdout.take() else { bail!("its output cannot be read") };
    let (sender, lines) = channel();
    thread::spawn(move || {
        // Read to the end: a full pipe would stop the node.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + READY_DEADLINE;
    while Instant::now() < deadline {
        interrupt.check()?;
        match lines.recv_timeout(LOOK_AGAIN) {
            Ok(line) => return serde_json::from_str(&line).with_context(|| format!("it said '{line}'")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("it ended at once"),
        }
    }
    bail!("it was not ready within {} s", READY_DEADLINE.as_secs())
}

/// The last line that a node logged.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}
