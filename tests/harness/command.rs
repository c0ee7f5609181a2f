//! Client commands: run as a user runs them, with a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::program::program;
use crate::wait::try_for;

/// Commands end by themselves long before; one that hangs is ended after this.
const DEADLINE_S: u64 = 120;

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
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
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
        let stdout = Some(gather(process.stdout.take().unwrap()));
        let stderr = Some(gather(process.stderr.take().unwrap()));
        Running { command: words.join(" "), process, stdout, stderr }
    }

    /// Whether it is still at work.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub fn wait(mut self, seconds: u64) -> Output {
        let ended: Option<ExitStatus> = try_for(seconds, || self.process.try_wait().unwrap());
        if ended.is_none() {
            let _ = self.process.kill();
        }
        let text = |thread: &mut Option<JoinHandle<String>>| thread.take().unwrap().join().unwrap();
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
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

fn gather(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
