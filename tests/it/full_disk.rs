//! A disk without space: said in one sentence, nothing lost, and the node goes on by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_tests::{Launch, wait_for};

use crate::counting::{Ledger, number, pipeline};

const SIZE: &str = "size=192m";
const FREE_BYTES: u64 = 3 << 20;

/// A small file system of its own; gone with the value.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount.
    fn mount(at: &Path) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Disk(at.to_path_buf()))
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

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

    fs::remove_file(&ballast).unwrap();
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
