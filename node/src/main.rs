//! The one binary: `dunlin`.

use std::process::ExitCode;

use dunlin::cli::{self, Wiring};
use dunlin::{daemon, functions};

fn main() -> ExitCode {
    cli::main(Wiring {
        run: daemon::run,
        token: daemon::token,
        connect: cli::connect_mesh,
        clean_wasm: functions::CLEAN_GUEST,
    })
}
