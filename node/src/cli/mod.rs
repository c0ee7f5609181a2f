//! The command line: what a user types, and what it prints.
//!
//! Results go to stdout, everything else to stderr. Colour, tables that redraw and progress only on
//! a terminal. Exit codes: 0 done, 1 the operation failed (one sentence), 2 wrong usage.

mod arguments;
mod bench;
mod children;
pub mod client;
mod demo;
mod deploy;
mod fares;
mod http_client;
mod inspect;
mod letters;
mod mesh_client;
mod nodes;
mod output;
mod publish;
mod report;
mod running;
mod tail;
mod token;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Command, Invocation, NodesAction, NodesArguments};
pub use arguments::{RunArguments, TokenArguments};
use client::{Client, ConnectMultiaddr, TargetError};
pub use http_client::HttpClient;
pub use mesh_client::connect as connect_mesh;

/// What the command line needs from the rest of the node.
#[derive(Debug, Clone, Copy)]
pub struct Wiring {
    /// The daemon, until it is told to stop.
    pub run: fn(RunArguments) -> anyhow::Result<()>,
    /// A token of the mesh whose node has its data in this folder.
    pub token: fn(&TokenArguments, &std::path::Path) -> anyhow::Result<String>,
    /// The libp2p door.
    pub connect: ConnectMultiaddr,
    /// The demo's guest function.
    pub clean_wasm: &'static [u8],
}

/// Parses the process's arguments and does what they say.
pub fn main(wiring: Wiring) -> ExitCode {
    // clap prints usage errors itself and ends with 2.
    let invocation = Invocation::parse();
    match carry_out(invocation, &wiring) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Said) = error.downcast_ref() {
                return ExitCode::from(1);
            }
            // The terminal may have gone, which no panic should follow.
            output::note(&format!("dunlin: {error:#}"));
            let usage = matches!(
                error.downcast_ref(),
                Some(TargetError::NeedsToken(_) | TargetError::NeedsBearer(_) | TargetError::NeedsNode)
            ) || error.downcast_ref::<WrongUsage>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Everything was said on stderr already; the exit code is 1.
#[derive(Debug, thiserror::Error)]
#[error("the operation failed")]
struct Said;

/// The arguments contradict one another in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// Who reads our output has gone (`dunlin tail | head`): that is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn carry_out(invocation: Invocation, wiring: &Wiring) -> anyhow::Result<()> {
    let Invocation { target, json, command } = invocation;
    let connect =
        || -> anyhow::Result<Box<dyn Client>> { Ok(client::connect(&target.resolve()?, wiring.connect)?) };
    let out = output::Output::new(json);
    match command {
        Command::Run(mut arguments) => {
            arguments.data = target.folder()?;
            (wiring.run)(arguments)
        }
        Command::Demo(arguments) => demo::run(&arguments, wiring.clean_wasm, &out),
        Command::Bench(arguments) => bench::run(&arguments, &target, wiring.connect, &out),
        Command::Token(_) if target.node.is_some() => Err(WrongUsage(
            "a token is made with the mesh key of a member's data folder: run 'dunlin token --data DIR' on that machine, \
             without --node"
                .into(),
        )
        .into()),
        Command::Token(arguments) if arguments.rotate => {
            token::rotate(&*connect()?, || (wiring.token)(&arguments, &target.folder()?), &out)
        }
        Command::Token(arguments) => out.line(&(wiring.token)(&arguments, &target.folder()?)?),
        Command::Nodes(NodesArguments { action: None }) => inspect::nodes(&*connect()?, &out),
        Command::Nodes(NodesArguments { action: Some(NodesAction::Remove { id }) }) => {
            nodes::remove(&*connect()?, &id, &out)
        }
        Command::Status => inspect::status(&*connect()?, &out),
        Command::Pipelines => inspect::pipelines(&*connect()?, &out),
        Command::Show { pipeline } => inspect::show(&*connect()?, pipeline, &out),
        Command::Remove { pipeline } => inspect::remove(&*connect()?, pipeline, &out),
        Command::State(arguments) => inspect::state(&*connect()?, arguments, &out),
        Command::DeadLetters(arguments) => letters::dead_letters(&*connect()?, arguments, &out),
        Command::Report(arguments) => report::report(&*connect()?, &arguments, &out),
        Command::Deploy { file } => deploy::deploy(&*connect()?, &file, &out),
        Command::Publish(arguments) => publish::publish(&*connect()?, arguments, &out),
        Command::Tail(arguments) => tail::tail(&*connect()?, arguments, &out),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Invocation::command(), "dunlin", &mut text);
            out.bytes(&text)
        }
        Command::Diff(_) => not_yet("diff"),
        Command::History(_) => not_yet("history"),
        Command::Rollback(_) => not_yet("rollback"),
        Command::Trace(_) => not_yet("trace"),
        Command::New(_) => not_yet("new"),
    }
}

fn not_yet(what: &str) -> anyhow::Result<()> {
    anyhow::bail!("'dunlin {what}' is not there yet: a later version brings it")
}
