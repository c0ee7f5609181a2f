//! One real node.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dunlin::crash::Point;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{Output, Running, dunlin};
use crate::cut::Cuttable;
use crate::http::{self, Answer};
use crate::program::program;
use crate::wait::{try_for, wait_for};

const READY_S: u64 = 60;
const STOP_S: u64 = 20;
/// Lines of a node's log that are printed when its test fails.
const LAST_LINES: usize = 40;

/// How a node is started, each time.
#[derive(Debug, Clone)]
pub struct Launch {
    pub data: PathBuf,
    arguments: Vec<String>,
    /// The network namespace that it runs in, if not the test's.
    space: Option<String>,
}

impl Launch {
    /// Ports are the system's choice, on loopback; nodes of other tests are not looked for.
    pub fn at(data: &Path) -> Launch {
        let config = data.with_extension("toml");
        fs::write(&config, "mdns = false\n").unwrap();
        let words = ["--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--config"];
        let mut arguments: Vec<String> = words.map(str::to_string).to_vec();
        arguments.push(config.display().to_string());
        Launch { data: data.to_path_buf(), arguments, space: None }
    }

    /// In the namespace of this node's number.
    pub fn inside(data: &Path, network: &Cuttable, number: usize) -> Launch {
        let config = data.with_extension("toml");
        // Its clients are in another namespace.
        fs::write(&config, "mdns = false\nhttp_open = true\n").unwrap();
        let address = network.address(number);
        let (http, listen) = (format!("{address}:0"), format!("/ip4/{address}/tcp/0"));
        let config = config.display().to_string();
        let words = ["--http", &http, "--listen", &listen, "--config", &config];
        let arguments = words.map(str::to_string).to_vec();
        Launch { data: data.to_path_buf(), arguments, space: Some(network.space(number)) }
    }

    /// Adds lines to its settings file.
    pub fn with_settings(self, lines: &str) -> Launch {
        let config = self.data.with_extension("toml");
        let before = fs::read_to_string(&config).unwrap();
        fs::write(&config, before + lines).unwrap();
        self
    }

    pub fn with(mut self, arguments: &[&str]) -> Launch {
        self.arguments.extend(arguments.iter().map(|word| word.to_string()));
        self
    }

    pub fn join(self, token: &str) -> Launch {
        self.with(&["--join", token])
    }

    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = Node {
            id: String::new(),
            http: String::new(),
            listen: Vec::new(),
            bearer: String::new(),
            printed: Arc::default(),
            process: None,
            launch: self,
        };
        node.start();
        node
    }
}

/// A running node (or a stopped one, to be started again). Dropping it ends it.
#[derive(Debug)]
pub struct Node {
    pub id: String,
    /// `127.0.0.1:40123`
    pub http: String,
    /// Multiaddrs, with the peer id.
    pub listen: Vec<String>,
    pub bearer: String,
    launch: Launch,
    process: Option<Child>,
    /// What it wrote to stdout behind the ready line.
    printed: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts it again in its folder, with the same arguments.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts it without waiting, so that several can start at once.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// Starts it to die by itself, as `kill -9` does, when it comes to this point for the `count`th
    /// time. Only debug builds know how.
    pub fn launch_doomed(&mut self, point: Point, count: u64) {
        self.launch_with(&[("DUNLIN_CRASH_AT", &format!("{}:{count}", point.label()))]);
    }

    fn launch_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.process.is_none(), "it runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = match &self.launch.space {
            None => Command::new(program()),
            Some(space) => {
                // It becomes the program: the process is the node's own.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program());
                command
            }
        };
        let process = command
            .arg("run")
            .arg("--data")
            .arg(self.data())
            .args(&self.launch.arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let process = self.process.as_mut().unwrap();
        let printed: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stdout, lines) = (process.stdout.take().unwrap(), printed.clone());
        // Read to the end: a full pipe would stop the node.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let ready = wait_for("the node says that it is ready", READY_S, || {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the node ended at once ({status}): {}", self.last_lines());
            }
            printed.lock().unwrap().first().cloned()
        });
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(ready["ready"], true, "{ready}");
        self.printed = printed;
        self.id = text(&ready["node"]);
        self.http = text(&ready["http"]);
        self.listen = ready["listen"].as_array().unwrap().iter().map(text).collect();
        self.bearer = fs::read_to_string(self.data().join("bearer")).unwrap().trim().to_string();
    }

    pub fn data(&self) -> &Path {
        &self.launch.data
    }

    pub fn log(&self) -> PathBuf {
        self.data().with_extension("log")
    }

    /// How many logs of a pipeline stand on its disk: their `name` files hold the pipeline's name.
    pub fn logs_of(&self, pipeline: &str) -> usize {
        let Ok(folders) = fs::read_dir(self.data().join("logs")) else { return 0 };
        let names = folders.filter_map(|folder| fs::read(folder.ok()?.path().join("name")).ok());
        let theirs = |name: &Vec<u8>| name.windows(pipeline.len()).any(|part| part == pipeline.as_bytes());
        names.filter(theirs).count()
    }

    /// Bytes of the blocks that its data folder takes.
    pub fn disk_in_use(&self) -> u64 {
        disk_in_use(self.data())
    }

    /// Everything that it logged, over all its starts.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// What it printed behind the ready line.
    pub fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap().iter().skip(1).cloned().collect()
    }

    pub fn token(&self) -> String {
        self.cli(&["token"]).ok().stdout.trim().to_string()
    }

    /// A client command for this node.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        dunlin(&self.words(arguments))
    }

    /// A client command that is not waited for.
    pub fn cli_started(&self, arguments: &[&str], input: &[u8]) -> Running {
        Running::start(&self.words(arguments), input)
    }

    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let mut words = vec!["--data".to_string(), self.data().display().to_string()];
        words.extend(arguments.iter().map(|word| word.to_string()));
        words
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::request("GET", &self.http, path, Some(&self.bearer), &[], "")
    }

    #[track_caller]
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::request("POST", &self.http, path, Some(&self.bearer), headers, body)
    }

    /// `dunlin status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.get("/v1/status").json()
    }

    /// `dunlin show PIPELINE --json`.
    #[track_caller]
    pub fn show(&self, pipeline: &str) -> Value {
        self.get(&format!("/v1/pipelines/{pipeline}")).json()
    }

    /// All events of a stream, to the present head.
    #[track_caller]
    pub fn tail(&self, stream: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/streams/{stream}?from=start"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("it does not run"))
    }

    /// Bytes in memory now.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.statm())
    }

    /// Where the system tells its memory.
    pub fn statm(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/statm", self.pid().as_raw_nonzero()))
    }

    /// SIGSTOP: it holds its connections and does nothing.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for the end that was asked for.
    #[track_caller]
    pub fn wait_until_ended(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it does not run");
        let ended = wait_for("the node ends", STOP_S, || process.try_wait().unwrap());
        self.process = None;
        ended
    }

    /// SIGTERM: it has to end with 0. Says how long that took.
    #[track_caller]
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.terminate();
        let status = self.wait_until_ended();
        assert!(status.success(), "{status}");
        began.elapsed()
    }

    /// Whether it died of SIGKILL by now; then it can be started again. Any other end is a failure.
    #[track_caller]
    pub fn was_killed(&mut self) -> bool {
        let process = self.process.as_mut().expect("it does not run");
        let Some(status) = process.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}: {}", self.last_lines());
        self.process = None;
        true
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it does not run");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn last_lines(&self) -> String {
        let text = self.logged();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let pid = Pid::from_child(process);
            // One that was frozen would not hear of its end.
            let _ = kill_process(pid, Signal::CONT);
            let _ = kill_process(pid, Signal::TERM);
            if try_for(5, || process.try_wait().ok().flatten()).is_none() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if thread::panicking() {
            eprintln!("--- the end of the log of {}\n{}", self.data().display(), self.last_lines());
        }
    }
}

/// Bytes in memory of the process of this `statm`; 0 when it is gone.
pub fn resident_bytes(statm: &Path) -> u64 {
    let text = fs::read_to_string(statm).unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// What disappears meanwhile does not count.
fn disk_in_use(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let in_use = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_in_use(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(in_use).sum()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}
