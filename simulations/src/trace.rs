//! What happened, line by line, and its hash: two runs of one seed must agree on it.

use std::collections::VecDeque;

use dunlin_protocol::time::Time;

/// Lines kept for a failure's report; all of them go into the hash.
const LINES_KEPT: usize = 400;

#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    /// Print every line as it comes.
    pub loud: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { hasher: blake3::Hasher::new(), lines: VecDeque::new(), loud: false }
    }
}

impl Trace {
    pub fn line(&mut self, now: Time, line: String) {
        let line = format!("{:>9} {line}", now.0);
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        let short: String = line.chars().take(300).collect();
        if self.loud {
            eprintln!("{short}");
        }
        self.lines.push_back(short);
        if self.lines.len() > LINES_KEPT {
            self.lines.pop_front();
        }
    }

    /// Bytes that only the hash takes: a message in full.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_string()
    }

    pub fn last_lines(&self, count: usize) -> impl Iterator<Item = &String> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }
}
