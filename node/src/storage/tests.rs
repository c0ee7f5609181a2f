//! The storage against real files in temporary folders.

mod state;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_protocol::effect::{Input, RecoveredLog};
use dunlin_protocol::id::{Epoch, LogId, NodeId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Commit, Inherit, Record};
use dunlin_protocol::mesh::catalog::{CatalogRef, LogName, Share};
use dunlin_protocol::pipeline::manifest::Durability;
use dunlin_protocol::pipeline::plan::{Role, UnitId};
use tempfile::TempDir;

use super::births::{Births, Missing};
use super::log_file::{LogFile, SEGMENT_FILE_BYTES_MAX};
use super::log_view::Logs;
use super::{LogReader, ModuleStore, StateStore, Storage, StorageError, files, recovery};
use crate::inbox::{Inbox, Inputs};

fn name(n: u8) -> LogName {
    LogName::Catalog(NodeId([n; 32]))
}

/// A node's storage with one log, and what it told.
struct Node {
    folder: TempDir,
    storage: Option<Storage>,
    inputs: Inputs,
    log: LogId,
    head: Position,
    records: Vec<Record>,
}

impl Node {
    fn new() -> Node {
        Node::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Node {
        let (inbox, inputs) = Inbox::new();
        let (mut storage, recovery) = Storage::open(folder.path(), inbox).unwrap();
        recovery.for_each(&mut |input| panic!("a new folder holds nothing: {input:?}")).unwrap();
        let log = name(1).id();
        storage.create_log(log, &name(1));
        Node { folder, storage: Some(storage), inputs, log, head: Position::START, records: vec![] }
    }

    /// Stops, lets `damage` at the files, opens again, and gives what recovery told.
    fn reopen(&mut self, damage: impl FnOnce(&Path)) -> (RecoveredLog, Vec<Record>) {
        self.storage.take().unwrap().stop();
        damage(&self.log_folder());
        let (inbox, inputs) = Inbox::new();
        let (storage, recovery) = Storage::open(self.folder.path(), inbox).unwrap();
        (self.storage, self.inputs) = (Some(storage), inputs);
        let (mut logs, mut records) = (vec![], vec![]);
        recovery
            .for_each(&mut |input| match input {
                Input::Recovered(log) => logs.push(log),
                Input::Replay { records: chunk, .. } => records.extend(chunk),
                other => panic!("{other:?}"),
            })
            .unwrap();
        assert_eq!(logs.len(), 1);
        (logs.remove(0), records)
    }

    fn log_folder(&self) -> PathBuf {
        self.folder.path().join("logs").join(self.log.to_string())
    }

    fn storage(&mut self) -> &mut Storage {
        self.storage.as_mut().unwrap()
    }

    fn reader(&self) -> LogReader {
        self.storage.as_ref().unwrap().reader()
    }

    /// The record that comes next, a commit that puts its own number under `key`.
    fn next(&mut self, padding: usize) -> Record {
        let seq = self.head.seq.next();
        let changes = vec![
            Change {
                key: Bytes::from(format!("k{}", seq.0 % 4)),
                value: Some(Bytes::from(seq.0.to_string())),
            },
            Change { key: Bytes::from_static(b"padding"), value: Some(Bytes::from(vec![1; padding])) },
        ];
        let record =
            Record::after(self.head, Epoch(1), &Body::Commit(Commit { state: changes, ..Commit::default() }));
        self.head = record.position();
        self.records.push(record.clone());
        record
    }

    fn persist(&mut self, count: usize, padding: usize, durability: Durability) {
        let log = self.log;
        let mut answered = Seq(0);
        for _ in 0..count {
            let record = self.next(padding);
            if let Some(Input::Persisted { seq, .. }) = self.storage().persist(log, vec![record], durability)
            {
                answered = seq;
            }
        }
        let head = self.head.seq;
        if answered < head {
            self.wait_for(|input| matches!(input, Input::Persisted { seq, .. } if *seq == head));
        }
    }

    fn wait_for(&mut self, wanted: impl Fn(&Input) -> bool) -> Input {
        loop {
            let input = self.inputs.blocking_recv().expect("the storage lives");
            self.storage().heard(&input);
            if wanted(&input) {
                return input;
            }
            assert!(!matches!(input, Input::PersistFailed { .. }), "{input:?}");
        }
    }
}

fn segment(folder: &Path, first: u64) -> PathBuf {
    files::numbered(folder, Seq(first), files::SEGMENT)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&bytes).unwrap();
}

/// One that holds these records takes its place, whole or not at all.
#[test]
fn a_damaged_log_is_written_anew() {
    let mut node = Node::new();
    node.persist(5, 100, Durability::Disk);
    let flip = |folder: &Path| {
        let segment = files::numbered(folder, Seq(1), files::SEGMENT);
        let mut bytes = fs::read(&segment).unwrap();
        bytes[200] ^= 1;
        fs::write(&segment, bytes).unwrap();
    };
    let (found, _) = node.reopen(flip);
    assert!(found.damage.is_some());
    assert_eq!(found.noted, Some(node.head));
    let (log, records) = (node.log, node.records.clone());
    node.storage().write_anew(log, records.clone());
    node.wait_for(|input| matches!(input, Input::Persisted { seq: Seq(5), .. }));
    assert_eq!(node.reader().read(log, Seq(1), 1 << 20).unwrap(), records);
    // It goes on behind them, also after a restart.
    node.persist(2, 100, Durability::Disk);
    let (found, replayed) = node.reopen(|_| {});
    assert_eq!((found.damage, found.head), (None, node.head));
    assert_eq!(replayed, node.records);

    // A crash between the two names: the new one is whole and wins.
    let (found, _) = node.reopen(flip);
    assert!(found.damage.is_some());
    let records = node.records.clone();
    node.storage().write_anew(log, records);
    node.wait_for(|input| matches!(input, Input::Persisted { .. }));
    let (found, replayed) = node.reopen(|folder| {
        let whole = folder.with_extension("whole");
        fs::rename(folder, &whole).unwrap();
        fs::create_dir(folder).unwrap();
        for name in ["name", "note"] {
            fs::copy(whole.join(name), folder.join(name)).unwrap();
        }
        fs::create_dir(files::temporary(folder)).unwrap();
    });
    assert_eq!((found.damage, found.head), (None, node.head));
    assert_eq!(replayed, node.records);
    let left = fs::read_dir(node.folder.path().join("logs")).unwrap().count();
    assert_eq!(left, 1, "nothing is left beside it");
}

#[test]
fn every_class_is_there_after_a_restart() {
    for durability in [Durability::Memory, Durability::Page, Durability::Disk] {
        let mut node = Node::new();
        node.persist(20, 100, durability);
        let (log, records) = node.reopen(|_| {});
        assert_eq!((log.name, log.head, log.first, log.damage), (name(1), node.head, Seq(1), None));
        assert_eq!(records, node.records);
        node.persist(5, 10, durability);
        let (_, records) = node.reopen(|_| {});
        assert_eq!(records, node.records);
    }
}

#[test]
fn segments_roll_and_are_read_across() {
    let mut node = Node::new();
    node.persist(5, 6_000_000, Durability::Page);
    assert!(files::list(&node.log_folder(), files::SEGMENT).unwrap().len() > 1);
    let reader = node.reader();
    let mut next = Seq(1);
    let mut read = vec![];
    loop {
        let records = reader.read(node.log, next, 1).unwrap();
        let Some(last) = records.last() else { break };
        next = last.seq.next();
        read.extend(records);
    }
    assert_eq!(read, node.records);
    let (_, records) = node.reopen(|_| {});
    assert_eq!(records, node.records);
}

#[test]
fn memory_is_read_back_at_once() {
    let mut node = Node::new();
    node.persist(50, 10_000, Durability::Memory);
    assert_eq!(node.reader().read(node.log, Seq(50), 1).unwrap(), node.records[49..]);
    let log = node.log;
    node.storage().read(log, dunlin_protocol::effect::ReadId(7), Seq(1), 1);
    let input = node.wait_for(|input| matches!(input, Input::Read { .. }));
    let Input::Read { outcome, .. } = input else { unreachable!() };
    assert_eq!(outcome.unwrap(), node.records[..1]);
}

#[test]
fn torn_tail_is_cut_exactly() {
    let mut node = Node::new();
    node.persist(5, 100, Durability::Disk);
    let whole = fs::metadata(segment(&node.log_folder(), 1)).unwrap().len();
    let (log, records) = node.reopen(|folder| {
        let mut file = OpenOptions::new().append(true).open(segment(folder, 1)).unwrap();
        file.write_all(&[7; 1000]).unwrap();
    });
    assert_eq!((log.damage, records), (None, node.records.clone()));
    assert_eq!(fs::metadata(segment(&node.log_folder(), 1)).unwrap().len(), whole);
    node.persist(1, 10, Durability::Disk);
}

#[test]
fn flip_in_the_middle_is_reported_and_nothing_behind_it_served() {
    let mut node = Node::new();
    node.persist(9, 100, Durability::Disk);
    let path = segment(&node.log_folder(), 1);
    let length = fs::metadata(&path).unwrap().len();
    let (log, records) = node.reopen(|folder| flip(&segment(folder, 1), length / 2));
    assert!(log.damage.unwrap().contains("is damaged in segment 1"));
    assert!(!records.is_empty() && records.len() < 9);
    assert_eq!(records, node.records[..records.len()]);
    assert_eq!(fs::metadata(&path).unwrap().len(), length, "kept as it is");
    let id = node.log;
    let record = node.next(1);
    assert_eq!(node.storage().persist(id, vec![record], Durability::Disk), None);
    let input = node.inputs.blocking_recv().unwrap();
    assert!(matches!(input, Input::PersistFailed { full: false, .. }), "{input:?}");
}

#[test]
fn damaged_note_cuts_nothing() {
    let mut node = Node::new();
    node.persist(3, 100, Durability::Disk);
    let (log, records) = node.reopen(|folder| fs::write(folder.join("note"), b"rubbish").unwrap());
    assert_eq!((log.damage, records), (None, node.records.clone()));
    let (log, _) = node.reopen(|folder| {
        fs::write(folder.join("note"), b"rubbish").unwrap();
        OpenOptions::new().append(true).open(segment(folder, 1)).unwrap().write_all(&[1]).unwrap();
    });
    assert!(log.damage.is_some(), "without a note everything counts as synced");
}

#[test]
fn missing_segment_is_damage() {
    let mut node = Node::new();
    node.persist(5, 6_000_000, Durability::Disk);
    let (log, records) = node.reopen(|folder| fs::remove_file(segment(folder, 1)).unwrap());
    assert!(log.damage.is_some());
    assert!(records.is_empty());
}

#[test]
fn second_daemon_is_told_so() {
    let node = Node::new();
    let error = Storage::open(node.folder.path(), Inbox::new().0).unwrap_err();
    assert!(error.to_string().contains("in use by another running node"), "{error}");
}

#[test]
fn newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("format"), "dunlin data 2\n").unwrap();
    let error = Storage::open(folder.path(), Inbox::new().0).unwrap_err();
    assert!(matches!(error, StorageError::NewerFormat { found: 2, .. }), "{error}");
    fs::write(folder.path().join("format"), "hello").unwrap();
    assert!(matches!(Storage::open(folder.path(), Inbox::new().0), Err(StorageError::NotOurs { .. })));
}

#[test]
fn snapshot_and_truncate_survive_a_restart() {
    let mut node = Node::new();
    node.persist(6, 6_000_000, Durability::Page);
    let (log, at) = (node.log, node.records[4].position());
    node.storage().truncate(log, Seq(6));
    node.storage().snapshot(log, at, Bytes::from_static(b"fold"));
    let done = node.wait_for(|input| matches!(input, Input::Snapshotted { .. }));
    assert_eq!(done, Input::Snapshotted { log, at, outcome: Ok(()) });
    assert!(segment(&node.log_folder(), 1).exists(), "nothing goes before a snapshot covers it");
    node.storage().truncate(log, Seq(6));
    let (found, records) = node.reopen(|_| {});
    assert!(!segment(&node.log_folder(), 1).exists());
    assert_eq!((found.snapshot, found.damage), (Some((at, Bytes::from_static(b"fold"))), None));
    assert!(found.first > Seq(1));
    assert_eq!(records, node.records[5..]);
    assert!(matches!(node.reader().read(log, Seq(1), 1), Err(StorageError::Gone { .. })));
}

#[test]
fn removed_log_is_gone() {
    let mut node = Node::new();
    node.persist(2, 10, Durability::Disk);
    let (log, folder) = (node.log, node.log_folder());
    node.storage().remove_log(log);
    node.storage.take().unwrap().stop();
    assert!(!folder.exists());
}

/// The log's note of birth, and what a start misses.
#[test]
fn a_log_that_was_taken_away_is_missed_and_a_removed_one_is_not() {
    let mut node = Node::new();
    node.persist(2, 10, Durability::Disk);
    let others = [name(2), name(3)];
    for other in &others {
        let first = Record::after(Position::START, Epoch(1), &Body::Append(Default::default()));
        node.storage().create_log(other.id(), other);
        assert_eq!(node.storage().persist(other.id(), vec![first], Durability::Disk), None);
        node.wait_for(|input| matches!(input, Input::Persisted { log, .. } if *log == other.id()));
    }
    node.storage().remove_log(others[0].id());
    node.storage.take().unwrap().stop();
    let births = Births::in_folder(node.folder.path());
    let first = name(1);
    let missing = births.compare([(node.log, &first)].into_iter());
    let whose = format!("the catalog log of node {}", NodeId([3; 32]));
    assert_eq!(missing, [Missing { log: others[1].id(), whose, name: None }]);
    // It was said once: such a log is had from the others. A folder from before there were notes gets them.
    assert!(births.compare([(node.log, &first), (others[0].id(), &others[0])].into_iter()).is_empty());
    assert_eq!(births.compare([(node.log, &first)].into_iter()).len(), 1);
}

#[test]
fn an_actors_log_that_was_taken_away_is_missed_at_every_start_until_it_is_back() {
    let folder = TempDir::new().unwrap();
    let births = Births::in_folder(folder.path());
    let unit = UnitId { role: Role::Source, name: "in".parse().unwrap() };
    let born = CatalogRef { node: NodeId([1; 32]), seq: Seq(1) };
    let share = Share::Node(NodeId([1; 32]));
    let log = LogName::Actor { pipeline: "p".parse().unwrap(), born, unit, share };
    births.note(log.id(), &log);
    let whose = "the log of 'in' of pipeline 'p'".to_owned();
    let missing = [Missing { log: log.id(), whose, name: Some(log.clone()) }];
    assert_eq!(births.compare(std::iter::empty()), missing);
    assert_eq!(births.compare(std::iter::empty()), missing);
    assert_eq!(births.compare([(log.id(), &log)].into_iter()), []);
    births.forget(log.id());
    assert_eq!(births.compare(std::iter::empty()), []);
}

/// The log's file as the writer has it, on this thread, so that syncs can be made to fail.
fn file_alone(folder: &Path) -> (Logs, LogFile) {
    let logs = Logs::new(folder);
    let view = logs.get_or_new(name(1).id());
    (logs, LogFile::new(name(1).id(), name(1), view))
}

fn record(after: Position, body: &'static [u8]) -> Record {
    Record::new(Epoch(1), after.seq.next(), after.hash, Bytes::from_static(body))
}

fn append(file: &mut LogFile, record: &Record, durability: Durability) -> Result<(), StorageError> {
    file.stage(std::slice::from_ref(record), durability, false).unwrap();
    file.write().and_then(|()| file.stand()).inspect_err(|_| file.fail())
}

#[test]
fn failed_sync_ends_the_segment_at_its_synced_end() {
    // The first failing sync is the segment's, the second the note's.
    for failing in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (logs, mut file) = file_alone(folder.path());
        let one = record(Position::START, b"one");
        append(&mut file, &one, Durability::Disk).unwrap();
        let length = fs::metadata(segment(&logs.log_folder(name(1).id()), 1)).unwrap().len();
        let lost = record(one.position(), b"lost");
        files::fault::fail_sync_in(failing);
        append(&mut file, &lost, Durability::Disk).unwrap_err();
        assert_eq!(file.head(), one.position());
        assert_eq!(fs::metadata(segment(&logs.log_folder(name(1).id()), 1)).unwrap().len(), length);
        let two = record(one.position(), b"two");
        append(&mut file, &two, Durability::Disk).unwrap();
        assert!(segment(&logs.log_folder(name(1).id()), 2).exists(), "a new segment");
        drop(file);
        let again = Logs::new(folder.path());
        recovery::recover(&again).unwrap();
        let extent = again.get(name(1).id()).unwrap().extent().clone();
        assert_eq!((extent.head, extent.damage), (two.position(), None));
    }
}

#[test]
fn failed_sync_writes_unsynced_records_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, mut file) = file_alone(folder.path());
    let one = record(Position::START, b"one");
    let two = record(one.position(), b"two");
    append(&mut file, &one, Durability::Page).unwrap();
    let path = segment(&logs.log_folder(name(1).id()), 1);
    files::fault::fail_sync_in(1);
    append(&mut file, &two, Durability::Disk).unwrap_err();
    let bytes = files::read_bounded(&path, SEGMENT_FILE_BYTES_MAX).unwrap();
    assert_eq!(dunlin_protocol::log::segment::verify(name(1).id(), &bytes), Ok(one.position()));
    append(&mut file, &two, Durability::Disk).unwrap();
    assert_eq!(file.head(), two.position());
}

#[test]
fn what_was_queued_behind_a_failure_goes_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let (_logs, mut file) = file_alone(folder.path());
    let one = record(Position::START, b"one");
    let behind = record(one.position(), b"behind");
    files::fault::fail_sync_in(3);
    append(&mut file, &one, Durability::Disk).unwrap_err();
    let outcome = file.stage(&[behind], Durability::Disk, false);
    assert!(matches!(outcome, Err(super::log_file::NotStaged::Behind)), "{outcome:?}");
    append(&mut file, &one, Durability::Disk).unwrap();
}

/// Only root may mount; elsewhere this says so and checks nothing.
#[test]
fn full_disk_fails_the_persist_and_work_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("not run: a size-limited tmpfs needs root");
        return;
    }
    let ballast = folder.path().join("ballast");
    let mount = Mount(folder.path().to_owned());
    let mut node = Node::in_folder(folder);
    let _mount = mount;
    node.persist(1, 10, Durability::Disk);
    let (log, good) = (node.log, node.head);
    let lost = node.next(2_000_000);
    assert_eq!(node.storage().persist(log, vec![lost], Durability::Disk), None);
    let failed = node.inputs.blocking_recv().unwrap();
    assert!(matches!(failed, Input::PersistFailed { seq: Seq(2), full: true, .. }), "{failed:?}");
    (node.head, node.records) = (good, node.records[..1].to_vec());
    node.persist(1, 100_000, Durability::Disk);
    // What 'memory' acknowledged before the disk was full comes to the disk once there is space.
    node.reader().wait_until_written();
    assert!(fs::write(&ballast, vec![0; 2_000_000]).is_err());
    node.persist(1, 50_000, Durability::Memory);
    fs::remove_file(&ballast).unwrap();
    node.persist(1, 10, Durability::Disk);
    let (found, records) = node.reopen(|_| {});
    assert_eq!((found.damage, records == node.records), (None, true));
}

/// Unmounts whatever the test came to, before the folder below it is removed.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_file_is_as_large_as_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("journal")).unwrap().set_len(64 << 20).unwrap();
    assert!(files::bytes_below(folder.path()) < 1 << 20);
    fs::write(folder.path().join("log"), vec![7; 2 << 20]).unwrap();
    assert!((2 << 20..3 << 20).contains(&files::bytes_below(folder.path())));
}

#[test]
fn module_with_wrong_bytes_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let modules = ModuleStore::open(folder.path()).unwrap();
    let digest = modules.put(b"component").unwrap();
    assert_eq!(modules.get(digest).unwrap().unwrap(), "component");
    fs::write(folder.path().join("modules").join(digest.to_string()), b"componenu").unwrap();
    assert_eq!(modules.get(digest).unwrap(), None);
    assert!(!modules.has(digest));
    assert_eq!(modules.put(b"component").unwrap(), digest);
    assert!(modules.has(digest));
}
