//! Builds the guests that the node carries (the demo's and the bench's), so that `cargo build` of it is all
//! that it takes.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The demo's and the bench's; the others in `examples/functions` are built by whoever uses them.
const GUESTS: [&str; 2] = ["clean", "relay"];

const TARGET: &str = "wasm32-wasip2";

fn main() -> Result<(), Box<dyn Error>> {
    if let Err(why) = fetch_target() {
        // One line of cargo's own, in the place of a debug print of an error.
        println!("cargo::error={why}");
        return Ok(());
    }
    let node = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let functions = node.join("../examples/functions");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../protocol/wit");
    for file in ["Cargo.toml", "Cargo.lock"].into_iter().chain(GUESTS) {
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
    for guest in GUESTS {
        let built = target.join(TARGET).join("release").join(guest).with_extension("wasm");
        std::fs::copy(built, out.join(guest).with_extension("wasm"))?;
    }
    Ok(())
}

/// Makes sure that the toolchain can build guests. `rust-toolchain.toml` brings the target; a
/// toolchain that was there before (a system's own, one chosen by hand) may not have it.
fn fetch_target() -> Result<(), String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let installed = || {
        let asked = Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
        let folder = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
        folder.is_ok_and(|folder| !folder.is_empty() && Path::new(&folder).is_dir())
    };
    if installed() {
        return Ok(());
    }
    let fetched = Command::new("rustup").args(["target", "add", TARGET]).output();
    if installed() {
        return Ok(());
    }
    let why = match fetched {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
        Err(error) => format!("rustup does not run: {error}"),
    };
    Err(format!(
        "the toolchain lacks the target {TARGET}, which the guest functions are built for, and it could not be \
         fetched ({why}); run `rustup target add {TARGET}` for this toolchain and build again"
    ))
}

fn build(functions: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(GUESTS.iter().flat_map(|guest| ["--package", guest]))
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
    Err("a guest function did not build; cargo's reason is above".to_string().into())
}
