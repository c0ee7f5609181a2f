//! Client commands: run as a user runs them, with a deadline.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::program::program;
use crate::wait::try_for;

/// Commands end by themselves long before; one that hangs is ended after this.
const DEADLINE_S: u64 = 240;

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    pub command: String,
    /// None: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Itself, when the exit code was 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code, Some(0), "dunlin {}\n{}{}", self.command, self.stdout, self.stderr);
        self
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|why| panic!("dunlin {}: {why}: {self:?}", self.command))
    }

    /// A JSON object per line.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs `dunlin` to its end.
#[track_caller]
pub fn dunlin<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    Running::start(arguments, &[]).wait(DEADLINE_S)
}

/// A command under way. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    command: String,
    process: Child,
    stdout: Gathered,
    stderr: Gathered,
}

impl Running {
    pub fn start<S: AsRef<OsStr>>(arguments: &[S], input: &[u8]) -> Running {
        let words: Vec<String> = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy().chars().take(200).collect())
            .collect();
        let mut process = Command::new(program())
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        let input = input.to_vec();
        // The command may end without reading it all.
        thread::spawn(move || _ = stdin.write_all(&input));
        let stdout = Gathered::from(process.stdout.take().unwrap());
        let stderr = Gathered::from(process.stderr.take().unwrap());
        Running { command: words.join(" "), process, stdout, stderr }
    }

    /// Whether it is still at work.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// What it has written to stderr by now.
    pub fn said(&self) -> String {
        self.stderr.text()
    }

    #[track_caller]
    pub fn wait(mut self, seconds: u64) -> Output {
        let ended: Option<ExitStatus> = try_for(seconds, || self.process.try_wait().unwrap());
        if ended.is_none() {
            let _ = self.process.kill();
        }
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        let Some(status) = ended else {
            panic!("dunlin {} did not end within {seconds} s\n{stdout}{stderr}", self.command)
        };
        Output { command: self.command.clone(), code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// What a process writes, read as it comes: a full pipe would stop it.
#[derive(Debug)]
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Gathered {
    fn from(mut pipe: impl Read + Send + 'static) -> Gathered {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = bytes.clone();
        let thread = thread::spawn(move || {
            let mut piece = [0; 8 << 10];
            loop {
                match pipe.read(&mut piece) {
                    Err(why) if why.kind() == ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return,
                    Ok(read) => into.lock().unwrap().extend_from_slice(&piece[..read]),
                }
            }
        });
        Gathered { bytes, thread: Some(thread) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Waits for the end of it.
    fn whole(&mut self) -> String {
        self.thread.take().unwrap().join().unwrap();
        self.text()
    }
}
