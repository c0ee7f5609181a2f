//! Commands with nodes of their own (`bench`, `demo`) leave neither processes nor files, however they end.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dunlin_tests::{Running, program, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A command with nodes, whose folder is in a folder of the test.
struct Driver {
    process: Child,
    temporary: TempDir,
    nodes: Vec<PathBuf>,
}

impl Driver {
    /// Waits until all three nodes run. `around`: the words of a program that becomes the command.
    fn start(around: &[&str], words: &[&str]) -> Driver {
        let temporary = tempfile::tempdir().unwrap();
        // Whoever runs the tests may have been told to ignore hangups, and what it starts inherits that.
        let process = Command::new("env")
            .arg("--default-signal=HUP")
            .arg(format!("TMPDIR={}", temporary.path().display()))
            .args(around)
            .arg(program())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut driver = Driver { process, temporary, nodes: Vec::new() };
        driver.nodes = wait_for("three nodes run", 60, || {
            let nodes = nodes_of(driver.process.id());
            (nodes.len() == 3).then_some(nodes)
        });
        driver
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Its exit code and what it said.
    fn wait(&mut self) -> (Option<i32>, String) {
        let status = wait_for("the command ends", 60, || self.process.try_wait().unwrap());
        let mut stderr = self.process.stderr.take().unwrap();
        (status.code(), std::io::read_to_string(&mut stderr).unwrap())
    }

    fn wait_until_nodes_end(&self) {
        wait_for("the nodes end", 60, || self.nodes.iter().all(|node| has_ended(node)).then_some(()));
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `/proc/PROCESS` of each child that runs a node.
fn nodes_of(parent: u32) -> Vec<PathBuf> {
    let parent = parent.to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_node = |process: &PathBuf| {
        let words = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        stat(process).get(1) == Some(&parent) && words.split('\0').nth(1) == Some("run")
    };
    processes.filter(is_node).collect()
}

/// Nobody may be there to fetch what it ended with: then it stays in state Z.
fn has_ended(process: &Path) -> bool {
    matches!(stat(process).first().map(String::as_str), None | Some("Z"))
}

/// State, parent, and so on; empty when it is gone.
fn stat(process: &Path) -> Vec<String> {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The name before the bracket may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_string).collect()
}

const LONG: [&str; 4] = ["bench", "idle", "--seconds", "300"];

#[test]
fn a_hangup_ends_all_as_ctrl_c_does() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut driver = Driver::start(&[], &LONG);
        driver.signal(signal);
        let (code, said) = driver.wait();
        assert!(code == Some(1) && said.contains("the bench was interrupted"), "{signal:?} {code:?} {said}");
        assert!(driver.nodes.iter().all(|node| has_ended(node)), "{signal:?}");
        assert_eq!(driver.files(), Vec::<PathBuf>::new(), "{signal:?}");
    }
}

#[test]
fn a_hangup_that_is_ignored_ends_nothing() {
    let mut driver = Driver::start(&["nohup"], &["bench", "idle", "--seconds", "2"]);
    driver.signal(Signal::HUP);
    let (code, said) = driver.wait();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn nodes_of_a_killed_bench_end_and_the_next_one_removes_their_folder() {
    let mut driver = Driver::start(&[], &LONG);
    driver.signal(Signal::KILL);
    assert_eq!(driver.wait().0, None);
    driver.wait_until_nodes_end();
    let left = driver.files();
    assert_eq!(left.len(), 1, "{left:?}");

    let temporary = driver.temporary.path().display().to_string();
    let mut next = Command::new("env");
    next.arg(format!("TMPDIR={temporary}")).arg(program()).args(["bench", "idle", "--seconds", "0.1"]);
    let output = next.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(&left[0].display().to_string()), "{output:?}");
    assert_eq!(driver.files(), Vec::<PathBuf>::new());
}

#[test]
fn nodes_of_a_killed_demo_end() {
    let driver = Driver::start(&[], &["demo"]);
    driver.signal(Signal::KILL);
    driver.wait_until_nodes_end();
}

/// Which is how they know.
#[test]
fn a_node_that_hangs_on_standard_input_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let words = ["run", "--data", &data, "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let words = [&words[..], &["--until-stdin-ends"]].concat();
    // A harness's command has its input at once, and then its end.
    let output = Running::start(&words, b"").wait(60).ok();
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}
