//! The `file` source: CSV with a header line, or JSON lines; a line's number is its sequence.
//!
//! The file is read to its end and then looked at every second, as `tail -f` does: whole lines
//! that were appended are events too. A last line without an end is taken once the file stood
//! still for a look and the line is a whole event; what is written behind it later on the same
//! line is passed over. A file that is missing, was cut or was replaced is opened anew until it
//! can be read, and read on from the line that comes next: lines are told apart by number alone.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dunlin_protocol::pipeline::manifest::Pace;
use dunlin_protocol::time::Span;

use super::feed::{Batch, Feed, PublishDoor};
use super::lines::{Found, Lines};
use super::pace::{Metronome, Stopped};
use super::rows::{Format, too_long};

/// How often the file is looked at when it has ended or cannot be read.
const LOOK: Span = Span::seconds(1);
/// Lines between two looks at the bell while known lines are passed over.
const CHECK_EVERY: u64 = 4096;

/// Runs until it is stopped.
pub fn run<D: PublishDoor>(feed: &mut Feed<D>, path: &Path, pace: Pace) -> Stopped {
    let mut said = String::new();
    loop {
        match read(feed, path, pace) {
            Halt::Stopped => return Stopped,
            Halt::Trouble(sentence) => {
                feed.counts().set_trouble(Some(sentence.clone()));
                // The same trouble is said once, not every second.
                if said != sentence {
                    tracing::warn!(source = %feed.shown(), next_line = feed.next(), "{sentence}");
                    said = sentence;
                }
                if feed.wait(LOOK).is_err() {
                    return Stopped;
                }
            }
        }
    }
}

/// Why reading ended.
enum Halt {
    Stopped,
    /// A sentence; the file is opened anew.
    Trouble(String),
}

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Halt {
        Halt::Stopped
    }
}

fn read<D: PublishDoor>(feed: &mut Feed<D>, path: &Path, pace: Pace) -> Halt {
    match Reading::open(path, pace).and_then(|mut reading| reading.follow(feed)) {
        Ok(never) => match never {},
        Err(halt) => halt,
    }
}

struct Reading<'a> {
    path: &'a Path,
    lines: Lines<BufReader<File>>,
    /// Device and inode of the open file.
    identity: (u64, u64),
    /// Unknown until the first line was seen.
    format: Option<Format>,
    csv: bool,
    metronome: Option<Metronome>,
    /// The number of the last whole line of data; a header is none.
    line: u64,
    batch: Batch,
}

impl<'a> Reading<'a> {
    fn open(path: &'a Path, pace: Pace) -> Result<Reading<'a>, Halt> {
        let unreadable = |why: std::io::Error| {
            Halt::Trouble(format!(
                "the source's file '{}' cannot be read ({why}): put it there; it is tried again every second",
                path.display()
            ))
        };
        // Asked first: opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is no regular file")));
        }
        let file = File::open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let (format, csv) = match extension.as_deref() {
            Some("csv") => (None, true),
            Some("json" | "jsonl" | "ndjson") => (Some(Format::Json), false),
            Some(_) | None => (None, false),
        };
        Ok(Reading {
            path,
            lines: Lines::new(BufReader::with_capacity(64 << 10, file)),
            identity: (about.dev(), about.ino()),
            format,
            csv,
            metronome: match pace {
                Pace::Fast => None,
                Pace::Times(times) => Some(Metronome::new(times)),
            },
            line: 0,
            batch: Batch::default(),
        })
    }

    fn trouble(&self, why: &str) -> Halt {
        Halt::Trouble(format!(
            "the source's file '{}' {why}; it is read again every second",
            self.path.display()
        ))
    }

    fn follow<D: PublishDoor>(&mut self, feed: &mut Feed<D>) -> Result<std::convert::Infallible, Halt> {
        let mut still_since = None;
        loop {
            let found =
                self.lines.advance().map_err(|why| self.trouble(&format!("cannot be read ({why})")))?;
            match found {
                Found::Line | Found::TooLong if self.format.is_none() => self.begin(found, feed)?,
                Found::Line | Found::TooLong => self.take(found, feed)?,
                Found::End => {
                    feed.publish(&mut self.batch)?;
                    feed.counts().set_trouble(None);
                    if still_since == Some(self.lines.offset()) {
                        self.take_unended(feed)?;
                    }
                    still_since = Some(self.lines.offset());
                    feed.wait(LOOK)?;
                    self.same_file()?;
                }
            }
        }
    }

    /// The first line: a CSV's header, or the first JSON line.
    fn begin<D: PublishDoor>(&mut self, found: Found, feed: &mut Feed<D>) -> Result<(), Halt> {
        let text = self.lines.text();
        if !self.csv && Format::is_json(text) {
            self.format = Some(Format::Json);
            return self.take(found, feed);
        }
        if found == Found::TooLong {
            return Err(self.trouble(
                "begins with a line that is too long for a header: it is neither CSV nor JSON lines",
            ));
        }
        let format =
            Format::csv(text).map_err(|why| self.trouble(&format!("has no usable header ({why})")))?;
        // Otherwise each of its lines would be turned away, for the same reason.
        if let Some(missing) = format.lacks(feed.source()) {
            return Err(self.trouble(&format!("has no column '{missing}', which the source names")));
        }
        self.format = Some(format);
        Ok(())
    }

    /// A whole line of data.
    fn take<D: PublishDoor>(&mut self, found: Found, feed: &mut Feed<D>) -> Result<(), Halt> {
        self.line += 1;
        if self.line < feed.next() {
            if self.line.is_multiple_of(CHECK_EVERY) {
                feed.check()?;
            }
            return Ok(());
        }
        let Some(format) = &self.format else { return Ok(()) };
        let event = match found {
            Found::TooLong => Err(too_long()),
            Found::Line | Found::End => format.event(self.lines.text(), feed.source(), feed.now()),
        };
        match event {
            Err(why) => {
                let header = u64::from(matches!(format, Format::Csv(_)));
                self.batch.reject(self.line, self.line + header, &why);
            }
            Ok(None) => self.batch.blank(self.line),
            Ok(Some(event)) => {
                self.keep_time(event.time, feed)?;
                if self.batch.is_full_for(event.weight()) {
                    feed.publish(&mut self.batch)?;
                }
                // An acknowledgement may have told of more lines than were sent.
                if self.line >= feed.next() {
                    self.batch.event(self.line, event);
                }
            }
        }
        if self.batch.is_full_for(0) {
            feed.publish(&mut self.batch)?;
        }
        Ok(())
    }

    /// Waits for the event's beat; what came before it does not wait with it.
    fn keep_time<D: PublishDoor>(
        &mut self,
        time: dunlin_protocol::time::Time,
        feed: &mut Feed<D>,
    ) -> Result<(), Halt> {
        let Some(metronome) = &mut self.metronome else { return Ok(()) };
        if metronome.due_in(time, feed.now()) == Span(0) {
            return Ok(());
        }
        feed.publish(&mut self.batch)?;
        let rest = metronome.due_in(time, feed.now());
        if rest > Span(0) {
            feed.wait(rest)?;
        }
        Ok(())
    }

    /// The last line has no end and nothing came behind it for a look.
    fn take_unended<D: PublishDoor>(&mut self, feed: &mut Feed<D>) -> Result<(), Halt> {
        let text = self.lines.text();
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        // A JSON file of a single line has not said yet that it is one.
        let guessed = (self.format.is_none() && !self.csv).then_some(Format::Json);
        let Some(format) = self.format.as_ref().or(guessed.as_ref()) else { return Ok(()) };
        if !matches!(format.event(text, feed.source(), feed.now()), Ok(Some(_))) {
            return Ok(());
        }
        self.format = Some(format.clone());
        self.take(Found::Line, feed)?;
        feed.publish(&mut self.batch)?;
        self.lines.take_unended();
        Ok(())
    }

    fn same_file(&self) -> Result<(), Halt> {
        let about = fs::metadata(self.path).map_err(|why| self.trouble(&format!("has gone ({why})")))?;
        if (about.dev(), about.ino()) != self.identity || about.len() < self.lines.offset() {
            return Err(
                self.trouble("was cut or replaced: its lines go on behind the last number that was taken")
            );
        }
        Ok(())
    }
}
