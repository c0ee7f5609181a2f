//! A disk without space: said in one sentence, nothing lost, and the node goes on by itself.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_tests::{Launch, wait_for};

use crate::counting::{Ledger, number, pipeline};
use crate::small_disk::Disk;

const FREE_BYTES: u64 = 3 << 20;

#[test]
fn a_full_disk_is_said_and_the_node_goes_on_when_there_is_space() {
    let folder = tempfile::TempDir::new().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("small")) else {
        eprintln!("not checked: this user may not mount a small file system");
        return;
    };
    let mut node = Launch::at(&folder.path().join("small/data")).start();
    let file = folder.path().join("pipeline.toml");
    fs::write(&file, pipeline("full", "")).unwrap();
    node.cli(&["deploy", &file.display().to_string()]).ok();
    fs::write(&file, pipeline("later", "")).unwrap();
    node.cli(&["deploy", &file.display().to_string()]).ok();
    let mut ledger = Ledger::over(11);
    let first = folder.path().join("first.jsonl");
    fs::write(&first, ledger.write(0, 1000)).unwrap();
    node.cli(&["publish", "--producer", "a", "full/events", &first.display().to_string()]).ok();
    ledger.check_counts(&node, "full");

    let ballast = folder.path().join("small/ballast");
    fs::write(&ballast, vec![1; usize::try_from(disk.free_bytes() - FREE_BYTES).unwrap()]).unwrap();
    let second = folder.path().join("second.jsonl");
    fs::write(&second, ledger.write(1, 60_000)).unwrap();
    let second = second.display().to_string();
    let words = ["publish", "--json", "--producer", "b", "full/events", &second];
    let refused = node.cli(&words);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // While a disk is merely behind, a publisher says that it waits.
    let sentences = refused.stderr.trim_end().lines().filter(|line| !line.starts_with("waiting: "));
    assert_eq!(sentences.count(), 1, "{refused:?}");
    assert!(refused.stderr.contains("disk") || refused.stderr.contains("space"), "{refused:?}");
    assert_eq!(node.get("/healthz").status, 200, "it lives");

    // A stream that was never written here: its log cannot be born, and whoever waits for that is told.
    let filled = folder.path().join("small/filled");
    fill(&filled);
    let line = folder.path().join("line.jsonl");
    fs::write(&line, "{\"flight\":\"K1\",\"n\":1}\n").unwrap();
    let line = line.display().to_string();
    let unborn = node.cli(&["publish", "later/events", &line]);
    assert_eq!(unborn.code, Some(1), "{unborn:?}");
    assert!(unborn.stderr.contains("is full and nothing of this request was kept"), "{unborn:?}");

    fs::remove_file(&filled).unwrap();
    fs::remove_file(&ballast).unwrap();
    wait_for("the other stream is taken too", 60, || {
        let published = node.cli(&["publish", "later/events", &line]);
        (published.code == Some(0)).then_some(())
    });
    assert_eq!(node.tail("later/events").len(), 1);
    wait_for("publishing goes on", 60, || {
        let output = node.cli(&words);
        (output.code == Some(0)).then(|| assert_eq!(number(&output.json()["rejected"]), 0))
    });
    ledger.check_counts(&node, "full");
    let ids = ledger.check_order(&node, "full");
    // And what is on the disk now is whole.
    node.stop();
    node.start();
    assert_eq!(ledger.check_order(&node, "full").len(), ids.len());
    ledger.check_counts(&node, "full");
    node.stop();
}

/// Takes all the space that there is. What the node tries to write again holds some of it for a moment, and gives
/// it back: the disk is full once nothing was to be had for longer than it waits between two tries.
fn fill(file: &Path) {
    let mut filling = fs::File::create(file).unwrap();
    let mut last = Instant::now();
    wait_for("the disk stays full", 60, || {
        while filling.write_all(&[1; 512]).is_ok() {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_secs(3)).then_some(())
    });
}

#[test]
fn a_readers_full_disk_holds_up_its_own_stages_and_nothing_is_lost() {
    let folder = tempfile::TempDir::new().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("small")) else {
        eprintln!("not checked: this user may not mount a small file system");
        return;
    };
    let writer = Launch::at(&folder.path().join("writer")).with(&["--label", "n=0"]).start();
    let mut reader =
        Launch::at(&folder.path().join("small/data")).with(&["--label", "n=1"]).join(&writer.token()).start();
    wait_for("they meet", 30, || (number(&writer.status()["peers"]) == 1).then_some(()));
    let text = pipeline("far", "retention = { bytes = \"4MiB\" }")
        .replace("shares = 6", "shares = 2\nlabels = { n = \"1\" }");
    let file = folder.path().join("pipeline.toml");
    fs::write(&file, text).unwrap();
    writer.cli(&["deploy", &file.display().to_string()]).ok();
    let mut ledger = Ledger::over(11);
    let mut part = |name: &str, count| {
        let path = folder.path().join(format!("{name}.jsonl"));
        fs::write(&path, ledger.write(0, count)).unwrap();
        path.display().to_string()
    };
    let whole = part("first", 1000);
    writer.cli(&["publish", "far/events", &whole]).ok();
    wait_for("it flows", 30, || (number(&stage(&reader, "far", "seen")["events_in"]) > 0).then_some(()));

    let ballast = folder.path().join("small/ballast");
    let room = disk.free_bytes() - FREE_BYTES / 8;
    fs::write(&ballast, vec![1; usize::try_from(room).unwrap()]).unwrap();
    // Its disk is full, the writer's is not: publishing goes on until the retention is used up.
    let second = part("second", 60_000);
    let publishing = writer.cli_started(&["publish", "--producer", "p", "far/events", &second], b"");
    wait_for("the reader says that its disk is full", 60, || {
        let status = reader.status().to_string();
        (status.contains("space") || reader.logged().contains("disk_full")).then_some(())
    });
    assert_eq!(reader.get("/healthz").status, 200, "it lives");
    assert_eq!(writer.get("/healthz").status, 200);
    fs::remove_file(&ballast).unwrap();
    publishing.wait(240).ok();
    ledger.check_counts(&writer, "far");
    ledger.check_order(&writer, "far");
    // And what is on the disk now is whole.
    reader.kill();
    reader.start();
    ledger.check_counts(&writer, "far");
    reader.stop();
}

fn stage(node: &dunlin_tests::Node, pipeline: &str, stage: &str) -> serde_json::Value {
    let shown = node.show(pipeline);
    let stages = shown["stages"].as_array().unwrap();
    stages.iter().find(|shown| shown["stage"] == stage).unwrap()["actors"][0].clone()
}
