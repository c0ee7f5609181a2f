//! The binary under test and the guest functions, built when they are missing or older than their
//! sources.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The `dunlin` beside the test executable, unless `DUNLIN_TESTS_PROGRAM` names another. Built by
/// itself: within the workspace's tests the core has bugs planted (`dunlin-protocol/mutations`), which
/// must not be in the program under test. So our own crates are compiled twice; dependencies are not, as
/// long as no development dependency adds features to them.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = env::var_os("DUNLIN_TESTS_PROGRAM") {
            return PathBuf::from(program);
        }
        let profile = profile_folder();
        let program = profile.join(format!("dunlin{}", env::consts::EXE_SUFFIX));
        let built = fs::metadata(&program).and_then(|data| data.modified());
        let sources = ["protocol", "node", "Cargo.toml"].map(|part| newest(&repository().join(part)));
        if built.is_ok_and(|built| sources.into_iter().flatten().all(|source| source <= built)) {
            return program;
        }
        let mut cargo = cargo();
        cargo.args(["build", "--locked", "--package", "dunlin", "--bin", "dunlin"]).current_dir(repository());
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "dunlin itself did not build: cargo's reason is above");
        program
    })
}

/// A function of `examples/functions` as a component: `guest("count")`.
pub fn guest(name: &str) -> PathBuf {
    static GUESTS: OnceLock<PathBuf> = OnceLock::new();
    let folder = GUESTS.get_or_init(|| {
        // Where the example pipelines look for them, and where the node's build put the first.
        let functions = repository().join("examples/functions");
        let mut cargo = cargo();
        cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--target-dir", "target"]);
        cargo.current_dir(&functions);
        // What is meant for the build outside.
        for variable in
            ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"]
        {
            cargo.env_remove(variable);
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
        assert!(cargo.status().unwrap().success(), "the guests did not build: cargo's reason is above");
        functions.join("target/wasm32-wasip2/release")
    });
    folder.join(name).with_extension("wasm")
}

/// What the cargo that runs this test said of this package is taken out: build scripts look at it
/// (ring's does), and half of the dependencies would be compiled again.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (variable, _) in env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if variable.to_str().is_some_and(of_package) {
            cargo.env_remove(variable);
        }
    }
    cargo
}

/// `target/debug`: two above `target/debug/deps/it-…`.
fn profile_folder() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf()
}

/// When the youngest file under a path was changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let data = fs::metadata(path).ok()?;
    if data.is_file() {
        return data.modified().ok();
    }
    let entries = fs::read_dir(path).ok()?;
    entries.filter_map(|entry| newest(&entry.ok()?.path())).max()
}
