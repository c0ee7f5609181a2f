//! A file system with little room (tmpfs), where this user may mount one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: &str = "size=192m";

/// A small file system of its own; gone with the value.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount.
    pub fn mount(at: &Path) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Disk(at.to_path_buf()))
    }

    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
