//! Builds the demo's guest function, so that `cargo build` of the node is all that it takes.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The demo's function; the others in `examples/functions` are built by whoever uses them.
const GUEST: &str = "clean";

fn main() -> Result<(), Box<dyn Error>> {
    let node = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let functions = node.join("../examples/functions");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../protocol/wit");
    for file in ["Cargo.toml", "Cargo.lock", GUEST] {
        println!("cargo::rerun-if-changed=../examples/functions/{file}");
    }

    // Where `cargo build` in that folder puts it too, so that the example pipelines find it; a
    // checkout that cannot be written keeps it to itself.
    let shared = functions.join("target");
    let target = match std::fs::create_dir_all(&shared) {
        Ok(()) if !std::fs::metadata(&shared)?.permissions().readonly() => shared,
        Ok(()) | Err(_) => out.join("guests"),
    };
    build(&functions, &target)?;
    let built = target.join("wasm32-wasip2/release").join(GUEST).with_extension("wasm");
    std::fs::copy(built, out.join(GUEST).with_extension("wasm"))?;
    Ok(())
}

fn build(functions: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--package", GUEST])
        .arg("--target-dir")
        .arg(target)
        .current_dir(functions);
    // What is meant for the build outside: its flags, and clippy in the place of rustc.
    for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"] {
        cargo.env_remove(name);
    }
    for name in ["CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    // Set and empty wins over flags in config files too.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
    if cargo.status()?.success() {
        return Ok(());
    }
    Err(format!(
        "the guest function '{GUEST}' did not build (cargo's reason is above); if the target is missing, \
         run `rustup target add wasm32-wasip2`"
    )
    .into())
}
