//! The one binary: `dunlin`.

use std::process::ExitCode;

use dunlin::cli::client::Failure;
use dunlin::cli::{self, Wiring};

fn main() -> ExitCode {
    cli::main(Wiring {
        run: |_| anyhow::bail!("this build has no daemon: build it with one"),
        token: |_, _| anyhow::bail!("this build has no mesh: build it with one"),
        connect: |address, _| {
            let why = "this build speaks HTTP only".to_string();
            Err(Failure::Unreachable { address: address.to_string(), why })
        },
        clean_wasm: b"",
    })
}
