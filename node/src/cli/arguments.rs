//! The arguments of every command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dunlin_protocol::id::{LetterId, LogId, Name};
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::rpc::TailFrom;

use super::bench::BenchArguments;
use super::client::{HTTP_DEFAULT, TargetArguments};
use crate::api::streams;

/// A decentralised event mesh: pipelines of lightweight functions that span machines, with no broker
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, disable_help_subcommand = true)]
pub struct Invocation {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Print JSON: one object, or one object per line
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Three real nodes on this machine and a pipeline across them, until all is predicted
    Demo(DemoArguments),
    /// Run a node: a new mesh, or the one in --data, or with --join the one that a token names
    Run(RunArguments),
    /// Print a token with which other nodes join
    Token(TokenArguments),
    /// The members, their state, what runs where
    Nodes(NodesArguments),
    /// The health of the node asked
    Status,
    /// Validate a pipeline file, upload its modules, place it, wait until it runs
    Deploy {
        /// The pipeline file (TOML; JSON when it ends in .json)
        file: PathBuf,
    },
    /// The pipelines of the mesh
    Pipelines,
    /// A pipeline's graph, placement, rates, lag, watermarks, errors
    Show { pipeline: Name },
    /// End a pipeline everywhere and free its disk
    Remove { pipeline: Name },
    /// Publish one JSON object per line and wait for the acknowledgement
    Publish(PublishArguments),
    /// Print a stream's events as JSON lines
    Tail(TailArguments),
    /// Look into a stage's keyed state
    State(StateArguments),
    /// Events that a pipeline could not take
    DeadLetters(DeadLettersArguments),
    /// Draw what a learning stage said and what came true: an HTML file
    Report(ReportArguments),
    /// Measure this build: an open-loop load driver with nodes of its own
    Bench(BenchArguments),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// What a deploy would change (not there yet)
    #[command(hide = true)]
    Diff(Later),
    /// A pipeline's revisions (not there yet)
    #[command(hide = true)]
    History(Later),
    /// Go back to an earlier revision (not there yet)
    #[command(hide = true)]
    Rollback(Later),
    /// An event's way across stages and nodes (not there yet)
    #[command(hide = true)]
    Trace(Later),
    /// A function project that builds (not there yet)
    #[command(hide = true)]
    New(Later),
}

/// Whatever stands behind a command that a later version brings.
#[derive(Debug, Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Real fares (observed_at,flight,departure,price); without it a seeded simulator
    #[arg(long, value_name = "FILE")]
    pub fares: Option<PathBuf>,
}

/// What `dunlin run` is told. The folder comes from the global `--data`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// The data folder: `--data`, or the platform's.
    #[arg(skip)]
    pub data: PathBuf,
    /// Listen for members here, /ip4/…/tcp/… or /ip4/…/udp/…/quic-v1; may be repeated
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub listen: Vec<String>,
    /// Listen for clients here; port 0 picks one and keeps it [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Join the mesh of this token
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// A label by which stages are placed, key=value; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Read settings from this file; arguments go before it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What goes to the log on stderr: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log: Option<String>,
    /// End when standard input ends: whoever started the node holds the other end, and is gone then
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

impl RunArguments {
    /// Where clients are listened for when neither arguments nor settings say.
    pub const HTTP_DEFAULT: &str = HTTP_DEFAULT;
}

#[derive(Debug, Clone, Args)]
pub struct TokenArguments {
    /// How long the token is good for: 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time_span)]
    pub expires: Duration,
    /// First revoke every token that was given before; members stay
    #[arg(long)]
    pub rotate: bool,
}

#[derive(Debug, Args)]
pub struct NodesArguments {
    #[command(subcommand)]
    pub action: Option<NodesAction>,
}

#[derive(Debug, Subcommand)]
pub enum NodesAction {
    /// Give a node up that is gone for good: it is refused for ever, and what lived on it starts anew
    Remove {
        /// Its id as `dunlin nodes` prints it, or the end of it
        #[arg(value_name = "NODE")]
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// PIPELINE/SOURCE
    #[arg(value_parser = place)]
    pub source: Place,
    /// Lines of JSON; - is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Send as this producer: running the same file again adds only what is missing
    #[arg(long, value_name = "NAME")]
    pub producer: Option<Name>,
    /// The log that holds the producer's earlier lines, as `publish --json` names it: through whatever
    /// node, what is missing is added there
    #[arg(long, value_name = "LOG", requires = "producer")]
    pub log: Option<LogId>,
}

#[derive(Debug, Args)]
pub struct TailArguments {
    /// PIPELINE/STAGE, or PIPELINE/STAGE.scores
    #[arg(value_parser = stream_place)]
    pub stream: StreamPlace,
    /// start, now, or the cursor of an event (goes on behind it)
    #[arg(long, default_value = "start", value_parser = streams::tail_from, value_name = "start|now|CURSOR")]
    pub from: TailFrom,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Wait for further events; without it, to the present head
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct StateArguments {
    /// PIPELINE/STAGE
    #[arg(value_parser = place)]
    pub stage: Place,
    pub key: Option<String>,
    /// Keys to list
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    /// PIPELINE/STAGE
    #[arg(value_parser = place)]
    pub stage: Place,
    /// The file to write
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct DeadLettersArguments {
    pub pipeline: Name,
    #[arg(default_value = "list")]
    pub action: DeadLettersAction,
    /// One letter's id, as `list` prints it; without it, replay and drop take all
    pub id: Option<LetterId>,
    /// Dead letters to list
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeadLettersAction {
    List,
    Show,
    /// Let the stage that refused them try again
    Replay,
    Drop,
}

/// `PIPELINE/SOURCE` or `PIPELINE/STAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub pipeline: Name,
    pub name: Name,
}

/// `PIPELINE/STREAM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlace {
    pub pipeline: Name,
    pub stream: StreamName,
}

fn halves(text: &str) -> Result<(Name, &str), String> {
    let (pipeline, rest) = text
        .split_once('/')
        .ok_or_else(|| format!("'{text}' names no pipeline: write PIPELINE/NAME, as in fare-watch/quotes"))?;
    Ok((pipeline.parse().map_err(|error: dunlin_protocol::id::BadName| error.to_string())?, rest))
}

fn place(text: &str) -> Result<Place, String> {
    let (pipeline, name) = halves(text)?;
    let name = name.parse().map_err(|error: dunlin_protocol::id::BadName| error.to_string())?;
    Ok(Place { pipeline, name })
}

fn stream_place(text: &str) -> Result<StreamPlace, String> {
    let (pipeline, stream) = halves(text)?;
    Ok(StreamPlace { pipeline, stream: streams::stream_name(stream)? })
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        Some(_) | None => Err(format!("'{text}' is no label: write key=value, as in zone=edge")),
    }
}

/// What cannot be an address at all; the network looks at the rest.
fn listen_address(text: &str) -> Result<String, String> {
    let known = ["/ip4/", "/ip6/"].iter().any(|start| text.starts_with(start));
    let port = ["/tcp/", "/udp/"].iter().any(|transport| text.contains(transport));
    match known && port {
        true => Ok(text.to_string()),
        false => Err(format!(
            "'{text}' is no address to listen on; write it like /ip4/127.0.0.1/tcp/4001 or /ip4/127.0.0.1/udp/4001/quic-v1"
        )),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    crate::telemetry::check(text).map(|()| text.to_string())
}

fn time_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no length of time: write a number and s, m, h or d, as in 24h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or(text).parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|n| *n > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        Invocation::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Invocation::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_behind_the_command() {
        let invocation = parse("dunlin --data a nodes --json").unwrap();
        assert!(invocation.json && invocation.target.data == Some("a".into()));
        let Command::Run(run) =
            parse("dunlin run --data a --http 127.0.0.1:0 --label zone=edge").unwrap().command
        else {
            panic!("run")
        };
        assert_eq!(run.labels, [("zone".to_string(), "edge".to_string())]);
        assert_eq!(run.http, Some("127.0.0.1:0".parse().unwrap()));
    }

    #[test]
    fn places_and_streams_are_told_apart() {
        let Command::Tail(tail) = parse("dunlin tail fare-watch/outlook.scores --limit 3").unwrap().command
        else {
            panic!("tail")
        };
        assert_eq!(tail.stream.stream.to_string(), "outlook.scores");
        assert_eq!((tail.from, tail.limit, tail.follow), (TailFrom::Start, Some(3), false));
        assert!(parse("dunlin publish fare-watch").is_err());
        assert!(parse("dunlin tail fare-watch/a --from yesterday").is_err());
    }

    #[test]
    fn dead_letters_list_by_default() {
        let Command::DeadLetters(letters) = parse("dunlin dead-letters fare-watch").unwrap().command else {
            panic!("dead letters")
        };
        assert_eq!((letters.action, letters.id), (DeadLettersAction::List, None));
    }

    #[test]
    fn commands_of_later_versions_take_anything() {
        assert!(parse("dunlin bench publish --size 128").is_ok());
        assert!(parse("dunlin diff x.toml").is_ok());
        // Global arguments are not mixed up with what stands behind the command.
        let remove = parse("dunlin nodes remove 12D3 --node 127.0.0.1:1").unwrap();
        assert_eq!(remove.target.node.as_deref(), Some("127.0.0.1:1"));
        assert!(
            parse("dunlin nodes remove 12D3").unwrap().target.node.is_none()
                && parse("dunlin nodes remove").is_err()
        );
    }

    #[test]
    fn lengths_of_time_have_units() {
        assert_eq!(time_span("24h"), Ok(Duration::from_secs(86_400)));
        assert!(time_span("24").is_err() && time_span("0s").is_err() && time_span("").is_err());
    }
}
