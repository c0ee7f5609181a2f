//! The `file` sink: one event per line, exactly once.
//!
//! A call writes its lines, syncs them, and puts the file's new length into the actor's state, so
//! that length and frontier are one commit. After opening, and whenever staged state was thrown
//! away, the file is cut back to the committed length before anything is written: what a lost
//! commit had written goes, and comes again.
//!
//! Before the first commit there is no length yet. A small file `sinks/ACTOR` in the data folder
//! then holds the length that was found, so that lines of somebody else (an earlier deploy, the
//! user) that were there before are kept and appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_operators::operator::{Handled, Operator, State};
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::id::Name;
use dunlin_protocol::time::Time;

use super::line::write_line;
use super::sink::SinkPlace;
use crate::crash::{self, Point};

/// The committed length, as decimal text.
const LENGTH: &[u8] = b"length";

#[derive(Debug)]
pub struct FileSink {
    name: Name,
    path: PathBuf,
    base: PathBuf,
    /// The same file of the sink whose place this one took.
    base_before: Option<PathBuf>,
    /// None: not opened yet, or what is in the file is in doubt.
    open: Option<Open>,
}

/// The file, exactly `length` bytes long when nobody else touches it.
#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl FileSink {
    pub fn new(name: &Name, path: &str, place: &SinkPlace) -> FileSink {
        FileSink {
            name: name.clone(),
            // An absolute path replaces the folder.
            path: place.data_folder.join(path),
            base: place.data_folder.join("sinks").join(place.actor.to_string()),
            base_before: place.follows.map(|before| place.data_folder.join("sinks").join(before.to_string())),
            open: None,
        }
    }

    /// Leaves the file as long as it was, or (with the handle dropped) to be cut on the next call.
    fn append(&mut self, text: &[u8], state: &mut dyn State) -> Result<(), String> {
        // A handle that is not the file any more goes first, and its lock with it.
        let held = self.open.take().filter(|open| still_there(open, &self.path));
        let mut open = match held {
            Some(open) => open,
            None => self.reopen(state)?,
        };
        if let Err(why) = write_synced(&mut open, text) {
            // Cut at once so that a full disk holds no half of a batch; should even that fail, the
            // next call opens the file anew and cuts it then.
            if open.file.set_len(open.length).is_ok() {
                self.open = Some(open);
            }
            return Err(format!("cannot write to '{}' ({why}): make room there", self.path.display()));
        }
        open.length += text.len() as u64;
        state.put(LENGTH, Bytes::from(open.length.to_string()));
        self.open = Some(open);
        Ok(())
    }

    /// Opens the file and cuts it to the committed length.
    fn reopen(&self, state: &mut dyn State) -> Result<Open, String> {
        let shown = self.path.display();
        let committed = match state.get(LENGTH) {
            None => None,
            Some(text) => Some(decimal(&text).ok_or_else(|| {
                "holds a length in its state that is no number: remove and deploy the pipeline again"
                    .to_string()
            })?),
        };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(|why| {
                format!("cannot make the folder of '{shown}' ({why}): make it, or name another path")
            })?;
        }
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&self.path).map_err(|why| {
                format!(
                    "cannot open '{shown}' ({why}): allow this node's user to write it, or name another path"
                )
            })?;
        // Two writers would each cut what the other wrote.
        file.try_lock().map_err(|why| {
            format!("cannot have '{shown}' for itself ({why}): let each sink write a file of its own")
        })?;
        let found = file.metadata().map_err(|why| format!("cannot look at '{shown}' ({why})"))?.len();
        let length = match committed {
            Some(length) => {
                // Best effort: a base that stays behind is never read while there is a length.
                let _ = fs::remove_file(&self.base);
                length
            }
            None => self.first_length(found).map_err(|why| {
                format!("cannot note its beginning in '{}' ({why}): make room there", self.base.display())
            })?,
        };
        if found < length {
            return Err(format!(
                "has committed {length} bytes of '{shown}' but finds {found}: put the file back as it was, or remove \
                 and deploy the pipeline to write it anew"
            ));
        }
        let cut = || {
            file.set_len(length)?;
            file.sync_all()?;
            // The file's name must be as durable as its bytes.
            sync_folder(&self.path)
        };
        cut().map_err(|why| format!("cannot cut '{shown}' back to its committed {length} bytes ({why})"))?;
        Ok(Open { file, length })
    }

    /// The length from which a sink without any commit writes on: what it noted the first time.
    fn first_length(&self, found: u64) -> io::Result<u64> {
        // A torn note (no full stop) is older than any line that this sink wrote.
        if let Some(length) = noted(&self.base)? {
            return Ok(length);
        }
        // What the sink before this one wrote without committing it comes again.
        let before = self.base_before.as_deref().map(noted).transpose()?.flatten();
        let found = before.filter(|length| *length <= found).unwrap_or(found);
        if let Some(folder) = self.base.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut note = File::create(&self.base)?;
        note.write_all(format!("{found}.").as_bytes())?;
        note.sync_all()?;
        sync_folder(&self.base)?;
        Ok(found)
    }
}

impl Operator for FileSink {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut text = Vec::new();
        batch.iter().for_each(|invoked| write_line(&mut text, &invoked.placed, None));
        self.append(&text, state).map_err(|why| CallError {
            stage: self.name.to_string(),
            reason: format!("the sink '{}' {why}; the events wait", self.name),
            again: Again::Later,
        })?;
        Ok(Handled::default())
    }

    fn forget(&mut self) {
        self.open = None;
    }
}

fn write_synced(open: &mut Open, text: &[u8]) -> io::Result<()> {
    open.file.seek(SeekFrom::Start(open.length))?;
    let half = text.get(..text.len() / 2).unwrap_or_default();
    crash::halfway(Point::HalfSink, || _ = open.file.write_all(half));
    open.file.write_all(text)?;
    open.file.sync_data()?;
    crash::at(Point::AfterSink);
    Ok(())
}

/// Whether the path still names the open file, and nobody changed its length.
fn still_there(open: &Open, path: &Path) -> bool {
    match (open.file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => {
            held.dev() == named.dev() && held.ino() == named.ino() && held.len() == open.length
        }
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

/// The length that a note holds; none when there is no whole note.
fn noted(path: &Path) -> io::Result<Option<u64>> {
    match fs::read(path) {
        Ok(note) => Ok(note.strip_suffix(b".").and_then(decimal)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use dunlin_protocol::id::LogId;

    use dunlin_operators::memory_state::MemoryState;

    use super::super::sink::tests::batch;
    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        state: MemoryState,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: tempfile::tempdir().unwrap(), state: MemoryState::new() }
        }

        fn sink(&self, actor: u8) -> FileSink {
            self.sink_behind(None, actor)
        }

        fn sink_behind(&self, before: Option<u8>, actor: u8) -> FileSink {
            let place = SinkPlace {
                data_folder: self.folder.path().to_path_buf(),
                pipeline: "p".parse().unwrap(),
                actor: LogId([actor; 16]),
                follows: before.map(|before| LogId([before; 16])),
            };
            FileSink::new(&"archive".parse().unwrap(), "out/events.jsonl", &place)
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("out/events.jsonl")
        }

        /// Which events the file holds, in order.
        fn numbers(&self) -> Vec<u64> {
            let text = fs::read_to_string(self.path()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text}");
            let number = |line: &str| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["payload"]["n"].as_u64().unwrap()
            };
            text.lines().map(number).collect()
        }

        #[track_caller]
        fn commits(&mut self, sink: &mut FileSink, events: std::ops::Range<u32>) {
            assert_eq!(sink.handle(&batch(events), Time(0), &mut self.state), Ok(Handled::default()));
        }

        /// A call whose commit never comes.
        #[track_caller]
        fn loses(&mut self, sink: &mut FileSink, events: std::ops::Range<u32>) {
            let mut lost = self.state.clone();
            assert!(sink.handle(&batch(events), Time(0), &mut lost).is_ok());
        }

        #[track_caller]
        fn pauses(&mut self, sink: &mut FileSink, sentence: &str) {
            let error = sink.handle(&batch(0..1), Time(0), &mut self.state).unwrap_err();
            assert_eq!(error.again, Again::Later);
            assert!(error.reason.contains(sentence), "{}", error.reason);
        }
    }

    #[test]
    fn a_lost_commit_is_cut_off_after_a_restart() {
        let mut bench = Bench::new();
        let mut sink = bench.sink(1);
        bench.commits(&mut sink, 0..3);
        bench.loses(&mut sink, 3..5);
        drop(sink);
        let mut sink = bench.sink(1);
        bench.commits(&mut sink, 3..6);
        assert_eq!(bench.numbers(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_discarded_call_is_cut_off() {
        let mut bench = Bench::new();
        let mut sink = bench.sink(1);
        bench.commits(&mut sink, 0..1);
        bench.loses(&mut sink, 1..5);
        sink.forget();
        bench.commits(&mut sink, 1..2);
        assert_eq!(bench.numbers(), [0, 1]);
    }

    #[test]
    fn a_crash_before_the_first_commit_leaves_no_line_twice() {
        let mut bench = Bench::new();
        bench.loses(&mut bench.sink(1), 0..3);
        bench.commits(&mut bench.sink(1), 0..4);
        assert_eq!(bench.numbers(), [0, 1, 2, 3]);
    }

    #[test]
    fn lines_of_an_earlier_deploy_stay() {
        let mut bench = Bench::new();
        bench.commits(&mut bench.sink(1), 0..2);
        bench.state = MemoryState::new();
        bench.loses(&mut bench.sink(2), 10..12);
        bench.commits(&mut bench.sink(2), 10..11);
        assert_eq!(bench.numbers(), [0, 1, 10]);
    }

    #[test]
    fn a_sink_in_the_place_of_one_that_committed_nothing_begins_where_that_began() {
        let mut bench = Bench::new();
        bench.loses(&mut bench.sink(1), 0..2);
        bench.commits(&mut bench.sink_behind(Some(1), 2), 0..3);
        assert_eq!(bench.numbers(), [0, 1, 2]);
    }

    #[test]
    fn a_file_that_lost_bytes_or_its_name_pauses_the_sink() {
        let mut bench = Bench::new();
        let mut sink = bench.sink(1);
        bench.commits(&mut sink, 0..3);
        let whole = fs::read(bench.path()).unwrap();
        fs::write(bench.path(), &whole[..10]).unwrap();
        bench.pauses(&mut sink, "but finds 10");
        fs::remove_file(bench.path()).unwrap();
        bench.pauses(&mut sink, "but finds 0");
        fs::write(bench.path(), whole).unwrap();
        bench.commits(&mut sink, 3..4);
        assert_eq!(bench.numbers(), [0, 1, 2, 3]);
    }

    #[test]
    fn two_sinks_do_not_share_a_file() {
        let mut bench = Bench::new();
        let mut first = bench.sink(1);
        bench.commits(&mut first, 0..1);
        bench.pauses(&mut bench.sink(2), "for itself");
    }

    #[test]
    fn a_failed_write_leaves_nothing_half_done() {
        let mut bench = Bench::new();
        let mut sink = bench.sink(1);
        bench.commits(&mut sink, 0..2);
        // A handle that cannot write stands for a disk that is full.
        let blocked = File::open(bench.path()).unwrap();
        let length = sink.open.take().unwrap().length;
        sink.open = Some(Open { file: blocked, length });
        bench.pauses(&mut sink, "make room");
        bench.commits(&mut sink, 2..3);
        assert_eq!(bench.numbers(), [0, 1, 2]);
    }

    #[test]
    fn a_disk_without_space_is_said_and_survived() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let mut open = Open { file: OpenOptions::new().write(true).open(full).unwrap(), length: 0 };
        let error = write_synced(&mut open, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
