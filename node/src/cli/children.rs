//! Nodes for as long as a command lasts (`demo`, `bench`): real processes of this very program, on this machine.
//!
//! They go with the command, however it ends. Asked to stop, it stops them and removes their folder. Killed, it lets
//! go of two things: the other end of each node's standard input, at which the node ends by itself, and the lock of
//! the folder, by which the next such command knows that nobody needs it any more and removes it.

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
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::client::Client;
use super::http_client::HttpClient;
use super::inspect::wrong_answer;
use super::output::note;
use crate::data_folder;

const READY_DEADLINE: Duration = Duration::from_secs(30);
/// The members see each other by then.
const MEET_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The name of every folder: `dunlin-WHAT-PROCESS-NANOSECONDS.nodes`.
const PREFIX: &str = "dunlin-";
const SUFFIX: &str = ".nodes";

/// Set when the user asks to stop.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    what: &'static str,
}

impl Interrupt {
    /// Listens for Ctrl-C, SIGTERM and SIGHUP from now on. `what` is interrupted, for sentences.
    pub fn listen(what: &'static str) -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt { asked: Arc::default(), what };
        let flag = Arc::clone(&interrupt.asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        #[cfg(unix)]
        let mut signals = {
            let _within = runtime.enter();
            Signals::new().context("signals cannot be listened for")?
        };
        thread::spawn(move || {
            runtime.block_on(async {
                #[cfg(unix)]
                signals.any().await;
                #[cfg(not(unix))]
                let _ = tokio::signal::ctrl_c().await;
                flag.store(true, Ordering::Relaxed);
            });
        });
        Ok(interrupt)
    }

    /// Whether the user asked to stop.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// An error once the user asked to stop.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.asked() {
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

/// Ctrl-C, SIGTERM, and SIGHUP unless it was ignored already: `nohup` does so, and means it.
#[cfg(unix)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Within a runtime.
    fn new() -> std::io::Result<Signals> {
        let hangup = match hangup_is_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    async fn any(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// By `/proc`, so on Linux only; elsewhere it counts as not ignored.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1, so the mask's lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
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
    folder: Folder,
    nodes: Vec<Node>,
    interrupt: Interrupt,
}

impl Children {
    pub fn new(interrupt: Interrupt) -> anyhow::Result<Children> {
        let what = interrupt.what;
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let parent = std::env::temp_dir();
        for left in sweep(&parent) {
            note(&format!("removed {}: whoever started its nodes was killed", left.display()));
        }
        let folder = Folder::new(&parent, what).with_context(|| {
            format!(
                "the {what} cannot make a folder in {}: set TMPDIR to one that can be written",
                parent.display()
            )
        })?;
        Ok(Children { program, folder, nodes: Vec::new(), interrupt })
    }

    /// Starts a node and waits until it is ready.
    pub fn start(&mut self, start: Start<'_>) -> anyhow::Result<()> {
        let (number, what) = (self.nodes.len() + 1, self.interrupt.what);
        let data = self.folder.path.join(format!("n{number}"));
        let log = self.folder.path.join(format!("n{number}.log"));
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg("--data")
            .arg(&data)
            .args(["--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
            // It stays open for as long as this process is there, and nothing is ever written.
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("the {what} cannot write its log"))?);
        if let Some(token) = start.join {
            command.args(["--join", token]);
        }
        if let Some(label) = start.label {
            command.args(["--label", label]);
        }
        if start.apart || start.gossip_from.is_some() {
            let config = self.folder.path.join("node.toml");
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
                let log = self.folder.path.join(format!("n{number}.log"));
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
        let _ = fs::remove_dir_all(&self.folder.path);
    }
}

/// Where the nodes have their data. It is locked while this process lives.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    #[cfg(unix)]
    _lock: File,
}

impl Folder {
    fn new(parent: &Path, what: &str) -> std::io::Result<Folder> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = parent.join(format!("{PREFIX}{what}-{}-{nanos}{SUFFIX}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            // Under another name until it is locked: nobody may take it for one that was left.
            let unlocked = path.with_extension("new");
            builder.create(&unlocked)?;
            let lock = File::open(&unlocked)?;
            // Where folders cannot be locked, nobody can, and it is nobody's to remove.
            let _ = lock.try_lock();
            fs::rename(&unlocked, &path)?;
            Ok(Folder { path, _lock: lock })
        }
        #[cfg(not(unix))]
        builder.create(&path).map(|()| Folder { path })
    }
}

/// Removes what commands left that were killed: this user's folders that nobody has locked. Answers with their names.
#[cfg(unix)]
fn sweep(parent: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid().as_raw();
    let mut removed = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = is_folders_name(&entry.file_name().to_string_lossy())
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == user);
        // Its nodes may still be ending: what cannot be removed now is left to the next one.
        if ours
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
            && fs::remove_dir_all(entry.path()).is_ok()
        {
            removed.push(entry.path());
        }
    }
    removed
}

#[cfg(unix)]
fn is_folders_name(name: &str) -> bool {
    let middle = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).unwrap_or_default();
    let parts: Vec<&str> = middle.split('-').collect();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts.as_slice(), [_, process, nanos] if number(process) && number(nanos))
}

#[cfg(not(unix))]
fn sweep(_: &Path) -> Vec<PathBuf> {
    Vec::new()
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_nobody_holds_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let held = Folder::new(parent.path(), "bench").unwrap();
        fs::write(held.path.join("n1.log"), "at work").unwrap();
        let left = Folder::new(parent.path(), "demo").unwrap();
        fs::create_dir(left.path.join("n1")).unwrap();
        fs::write(left.path.join("n1/mesh"), "nobody's").unwrap();
        let unlocked = left.path.clone();
        drop(left);
        let foreign = parent.path().join("dunlin-data");
        fs::create_dir(&foreign).unwrap();
        assert_eq!(sweep(parent.path()), [unlocked]);
        let stays: Vec<PathBuf> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(stays.len() == 2 && stays.contains(&held.path) && stays.contains(&foreign), "{stays:?}");
        assert!(held.path.join("n1.log").exists());
    }
}
