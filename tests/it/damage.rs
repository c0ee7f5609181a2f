//! Damage on a disk: a torn tail is cut, everything else is said, never served and never cut away;
//! what is only a copy is made again.
//!
//! One node is filled and stopped; every test damages a copy of its folder and starts a node there.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dunlin_tests::{Launch, Mesh, Node, dunlin, guest, program, wait_for};
use serde_json::Value;
use tempfile::TempDir;

use crate::counting::number;

const EVENTS: u64 = 3000;
/// Bytes of a segment's header and of a frame's head (see `protocol/src/log/segment.rs`).
const HEADER: u64 = 72;
const FRAME: u64 = 40;

/// A stopped node's folder, and the logs in it.
struct Filled {
    folder: TempDir,
    source: String,
    seen: String,
}

/// Snapshots come early: the retention is small.
fn pipeline() -> String {
    let count = guest("count");
    format!(
        r#"
name      = "whole"
retention = {{ bytes = "256KiB" }}
[source.events]
key = "k"
[stage.seen]
from = ["events"]
key  = "k"
wasm = "{}"
[placement.seen]
shares = 1
"#,
        count.display()
    )
}

fn lines(from: u64, to: u64) -> String {
    let filling = "x".repeat(100);
    (from..to).map(|n| format!("{{\"k\":\"K{}\",\"n\":{n},\"x\":\"{filling}\"}}\n", n % 5)).collect()
}

fn log_of(node: &Node, stage: &str) -> String {
    let shown = node.show("whole");
    let stages = shown["stages"].as_array().unwrap();
    let stage = stages.iter().find(|shown| shown["stage"] == stage).unwrap();
    stage["actors"][0]["actor"].as_str().unwrap().to_string()
}

fn filled() -> &'static Filled {
    static FILLED: OnceLock<Filled> = OnceLock::new();
    FILLED.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let mut node = Launch::at(&folder.path().join("node")).start();
        let file = folder.path().join("whole.toml");
        fs::write(&file, pipeline()).unwrap();
        node.cli(&["deploy", &file.display().to_string()]).ok();
        // Many requests, so that there are many records; the second half comes behind a snapshot.
        for part in 0..30 {
            let (from, to) = (part * EVENTS / 30, (part + 1) * EVENTS / 30);
            let sequence = (from + 1).to_string();
            let headers = [("producer", "p"), ("sequence", sequence.as_str())];
            wait_for("the node takes events", 30, || {
                let answer = node.post("/v1/streams/whole/events", &headers, &lines(from, to));
                assert!([200, 429].contains(&answer.status), "{answer:?}");
                (answer.status == 200).then_some(())
            });
        }
        assert_eq!(counted(&node), EVENTS);
        let (source, seen) = (log_of(&node, "events"), log_of(&node, "seen"));
        let snapshots = |log: &str| files(&log_folder(node.data(), log), "snap").len();
        wait_for("both logs have a snapshot", 30, || {
            (snapshots(&source) > 0 && snapshots(&seen) > 0).then_some(())
        });
        node.stop();
        Filled { folder, source, seen }
    })
}

/// Waits for the counts to be whole.
#[track_caller]
fn counted(node: &Node) -> u64 {
    let mut sum = 0;
    dunlin_tests::try_for(30, || {
        let answer = node.get("/v1/state/whole/seen");
        let entries: Vec<Value> =
            (answer.status == 200).then(|| serde_json::from_str(&answer.body).unwrap())?;
        sum = entries.iter().map(|entry| number(&entry["value"])).sum();
        (sum >= EVENTS).then_some(())
    });
    sum
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => _ = fs::copy(entry.path(), to).unwrap(),
        }
    }
}

fn log_folder(data: &Path, log: &str) -> PathBuf {
    data.join("logs").join(log)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    found.sort();
    found
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn bytes(path: &Path, at: u64, count: usize) -> Vec<u8> {
    let mut file = fs::File::open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    let mut bytes = vec![0; count];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn flip(path: &Path, at: u64) {
    let byte = bytes(path, at, 1)[0];
    overwrite(path, at, &[byte ^ 0x10]);
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Where the frames of a segment begin.
fn frames(segment: &Path) -> Vec<u64> {
    let (mut at, end) = (HEADER, length(segment));
    let mut found = Vec::new();
    while at < end {
        found.push(at);
        at += FRAME + u64::from(u32::from_le_bytes(bytes(segment, at, 4).try_into().unwrap()));
    }
    found
}

/// A copy of the filled node's folder.
struct Patient {
    folder: TempDir,
    data: PathBuf,
    segment: PathBuf,
    note: PathBuf,
    source: PathBuf,
    seen: PathBuf,
}

impl Patient {
    fn new() -> Patient {
        let filled = filled();
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("node");
        copy(&filled.folder.path().join("node"), &data);
        let (source, seen) = (log_folder(&data, &filled.source), log_folder(&data, &filled.seen));
        let segment = files(&source, "seg").remove(0);
        let note = source.join("note");
        Patient { folder, data, segment, note, source, seen }
    }

    fn start(&self) -> Node {
        Launch::at(&self.data).start()
    }

    /// It starts, and nothing is missing; new events are taken.
    #[track_caller]
    fn is_whole(&self, what: &str, said: &str) {
        let node = self.start();
        assert_eq!(counted(&node), EVENTS, "{what}");
        assert!(node.logged().contains(said), "{what}: not said '{said}'\n{}", node.logged());
        let sequence = (EVENTS + 1).to_string();
        let headers = [("producer", "p"), ("sequence", sequence.as_str())];
        let answer = node.post("/v1/streams/whole/events", &headers, &lines(EVENTS, EVENTS + 1));
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert_eq!(number(&answer.json()["acknowledged"]), 1, "{what}");
        assert!(!node.logged().contains("panicked"), "{what}");
    }

    /// The source's log is said to be damaged, not served, not written, and left byte by byte as it is.
    #[track_caller]
    fn source_is_barred(&self, what: &str) {
        let before = everything(&self.source);
        let node = self.start();
        let shown = node.show("whole");
        let said = shown.to_string();
        assert!(said.contains("damaged") || said.contains("missing"), "{what}: {shown:#}");
        assert!(node.logged().contains("ERROR"), "{what}: the log says it too");
        let began = std::time::Instant::now();
        let refused = node.cli(&["publish", "whole/events", &self.file()]);
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(
            refused.stderr.contains("damaged") || refused.stderr.contains("missing"),
            "{what}: {refused:?}"
        );
        assert!(began.elapsed().as_secs() < 15, "{what}: a publisher is told, not kept waiting");
        let tail = node.cli(&["tail", "whole/events"]);
        assert_eq!(tail.code, Some(1), "{what}: {tail:?}");
        assert_eq!(tail.stdout, "", "{what}: nothing of it is served");
        assert!(tail.stderr.contains("damaged"), "{what}: {tail:?}");
        // What is beside it goes on.
        assert_eq!(counted(&node), EVENTS, "{what}");
        assert!(!node.logged().contains("panicked"), "{what}");
        drop(node);
        let node = self.start();
        assert!(node.show("whole").to_string().contains("trouble"), "{what}");
        drop(node);
        assert!(everything(&self.source) == before, "{what}: the files are as they were");
    }

    fn file(&self) -> String {
        let path = self.folder.path().join("one.jsonl");
        fs::write(&path, lines(0, 1)).unwrap();
        path.display().to_string()
    }
}

/// Every file of a folder with its bytes.
fn everything(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_torn_tail_is_cut_and_nothing_else() {
    for (what, garbage) in [
        ("half a frame's head", vec![7; 20]),
        ("a head without its body", Vec::new()),
        ("a record of zeroes", vec![0; 300]),
        ("noise", (0..900u32).map(|n| (n * 37 % 251) as u8).collect()),
    ] {
        let patient = Patient::new();
        let end = length(&patient.segment);
        let first = frames(&patient.segment)[0];
        let garbage = if garbage.is_empty() { bytes(&patient.segment, first, 45) } else { garbage };
        overwrite(&patient.segment, end, &garbage);
        patient.is_whole(what, "a torn tail was cut");
    }
}

#[test]
fn damage_before_the_synced_end_is_said_and_left_as_it_is() {
    type Damage = fn(&Patient);
    fn middle(patient: &Patient) -> u64 {
        let frames = frames(&patient.segment);
        frames[frames.len() / 2]
    }
    let damages: &[(&str, Damage)] = &[
        ("a segment's magic", |it| flip(&it.segment, 2)),
        ("a segment's first number", |it| flip(&it.segment, 30)),
        ("a record's length", |it| flip(&it.segment, middle(it))),
        ("a record's checksum", |it| flip(&it.segment, middle(it) + 5)),
        ("a record's hash", |it| flip(&it.segment, middle(it) + 30)),
        ("a record's body", |it| flip(&it.segment, middle(it) + FRAME + 50)),
        ("the last record's body", |it| flip(&it.segment, frames(&it.segment).pop().unwrap() + FRAME + 9)),
        ("a block of zeroes", |it| overwrite(&it.segment, middle(it), &[0; 512])),
        ("a cut", |it| cut(&it.segment, middle(it))),
        ("an empty segment", |it| cut(&it.segment, 0)),
        ("no segment", |it| fs::remove_file(&it.segment).unwrap()),
        ("both notes and a torn tail", |it| {
            flip(&it.note, 20);
            flip(&it.note, 532);
            overwrite(&it.segment, length(&it.segment), &[7; 20]);
        }),
    ];
    for (what, damage) in damages {
        let patient = Patient::new();
        damage(&patient);
        patient.source_is_barred(what);
    }
}

/// Taken away, or lost: nothing begins anew under its name. That is said until the folder is back.
#[test]
fn a_log_whose_folder_is_gone_is_missed_until_it_is_back() {
    let patient = Patient::new();
    let away = patient.folder.path().join("away");
    fs::rename(&patient.source, &away).unwrap();
    for _ in 0..2 {
        let node = patient.start();
        let said = "the log of 'events' of pipeline 'whole' was on this disk and its folder is gone";
        for told in [node.logged(), node.show("whole").to_string(), node.cli(&["status"]).ok().stdout] {
            assert!(told.contains(said), "{told}");
        }
        let refused = node.cli(&["publish", "whole/events", &patient.file()]);
        assert_eq!((refused.code, refused.stderr.contains(said)), (Some(1), true), "{refused:?}");
        assert_eq!(counted(&node), EVENTS, "what is beside it goes on");
        assert!(!patient.source.exists());
    }
    fs::rename(&away, &patient.source).unwrap();
    patient.is_whole("the folder is back", "");
}

#[test]
fn a_damaged_note_loses_nothing() {
    for (what, places) in
        [("the first slot", &[20_u64][..]), ("the second slot", &[532]), ("both slots", &[20, 532])]
    {
        let patient = Patient::new();
        places.iter().for_each(|at| flip(&patient.note, *at));
        let said = if places.len() == 2 { "everything on the disk counts as synced" } else { "" };
        patient.is_whole(what, said);
    }
    let patient = Patient::new();
    fs::remove_file(&patient.note).unwrap();
    patient.is_whole("no note", "everything on the disk counts as synced");
}

#[test]
fn a_damaged_snapshot_is_made_up_for_by_the_log() {
    for folder in [|it: &Patient| it.source.clone(), |it: &Patient| it.seen.clone()] {
        for at in [3, 100] {
            let patient = Patient::new();
            for snapshot in files(&folder(&patient), "snap") {
                flip(&snapshot, at.min(length(&snapshot) - 1));
            }
            patient.is_whole("a snapshot's bytes", "a snapshot is not used");
        }
    }
}

#[test]
fn the_state_store_is_rebuilt_from_its_log_whatever_became_of_it() {
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all(&path, found),
                false => found.push(path),
            }
        }
    }
    type Damage = fn(&Path);
    let damages: &[(&str, Damage)] = &[
        ("gone", |state| fs::remove_dir_all(state).unwrap()),
        ("every file cut in half", |state| {
            let mut files = Vec::new();
            all(state, &mut files);
            files.iter().for_each(|file| cut(file, length(file) / 2));
        }),
        ("every file flipped", |state| {
            let mut files = Vec::new();
            all(state, &mut files);
            for file in files.iter().filter(|file| length(file) > 0) {
                (0..length(file)).step_by(97).for_each(|at| flip(file, at));
            }
        }),
        ("every file emptied", |state| {
            let mut files = Vec::new();
            all(state, &mut files);
            files.iter().for_each(|file| cut(file, 0));
        }),
        ("a file in its place", |state| {
            fs::remove_dir_all(state).unwrap();
            fs::write(state, "no folder").unwrap();
        }),
    ];
    for (what, damage) in damages {
        let patient = Patient::new();
        damage(&patient.data.join("state"));
        patient.is_whole(what, "");
    }
}

/// `dunlin run` there has to end by itself, with exit 1 and one sentence.
#[track_caller]
fn refuses_to_start(data: &Path, what: &str, sentence: &str) {
    let mut process = std::process::Command::new(program())
        .args([
            "run",
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--log",
            "error",
            "--data",
        ])
        .arg(data)
        .env("NO_COLOR", "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let ended = dunlin_tests::try_for(15, || process.try_wait().unwrap());
    let _ = process.kill();
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let _ = process.wait();
    let status = ended.unwrap_or_else(|| panic!("{what}: it runs: {stderr}"));
    assert_eq!(status.code(), Some(1), "{what}: {stderr}");
    assert!(stderr.contains(sentence) && !stderr.contains("panicked"), "{what}: {stderr}");
}

#[test]
fn files_that_say_who_a_node_is_are_never_made_up() {
    let cases: &[(&str, &str)] = &[("identity", "damaged"), ("mesh", "damaged"), ("format", "format")];
    for (file, sentence) in cases {
        for damage in [&b"\x00\xff garbage"[..], b""] {
            let patient = Patient::new();
            fs::write(patient.data.join(file), damage).unwrap();
            let what = format!("{file} of {} bytes", damage.len());
            refuses_to_start(&patient.data, &what, sentence);
            assert_eq!(fs::read(patient.data.join(file)).unwrap(), damage, "{what}: left as it is");
        }
    }
    let patient = Patient::new();
    fs::remove_file(patient.data.join("mesh")).unwrap();
    refuses_to_start(&patient.data, "no mesh", "the file 'mesh'");
    let patient = Patient::new();
    fs::write(patient.data.join("format"), "dunlin data 999\n").unwrap();
    refuses_to_start(&patient.data, "a newer format", "in format 999");
    // One copy of a log's name is enough; without both it is said.
    let patient = Patient::new();
    flip(&patient.source.join("name"), 10);
    patient.is_whole("one copy of a name", "");
    let patient = Patient::new();
    let name = patient.source.join("name");
    let half = (length(&name) - 4) / 2;
    flip(&name, 10);
    flip(&name, 10 + half);
    refuses_to_start(&patient.data, "both copies of a name", "nothing says whose log this is");
    // What is only remembered for comfort is found out again.
    let patient = Patient::new();
    for file in ["http", "listen", "addresses"] {
        fs::write(patient.data.join(file), b"\xff\x00 nothing").unwrap();
    }
    patient.is_whole("addresses", "");
}

#[test]
fn a_wiped_folder_is_a_new_node() {
    let mut mesh = Mesh::of(2);
    let old = mesh[1].id.clone();
    let token = mesh[0].token();
    mesh[1].stop();
    fs::remove_dir_all(mesh[1].data()).unwrap();
    // As it would be started by a service: with the same arguments as ever.
    mesh[1].start();
    assert_ne!(mesh[1].id, old, "an identity is never made again");
    let nodes = || {
        let lines = mesh[0].cli(&["nodes", "--json"]).ok().lines();
        lines.iter().map(|line| line["node"].as_str().unwrap().to_string()).collect::<BTreeSet<_>>()
    };
    wait_for("the new node is a member beside the old one", 30, || {
        let nodes = nodes();
        (nodes.contains(&mesh[1].id) && nodes.contains(&old)).then_some(())
    });
    assert!(!token.is_empty());
    assert_eq!(dunlin(&["token", "--data", &mesh[1].data().display().to_string()]).code, Some(0));
}
