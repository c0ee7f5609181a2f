//! The arguments of `dunlin bench`.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use dunlin_protocol::limits::STAGES_MAX;
use dunlin_protocol::pipeline::manifest::Durability;

use crate::cli::arguments::Later;

/// The smallest event: it has room for its number.
pub const SIZE_MIN: usize = 16;
/// The largest event that is sent.
pub const SIZE_MAX: usize = 1 << 20;
/// A pipeline has no more stages.
const HOPS_MAX: u64 = STAGES_MAX as u64;
const U16_MAX: u64 = u16::MAX as u64;
const U32_MAX: u64 = u32::MAX as u64;

/// Below the help: what of the arguments for a node applies here.
const NODES: &str = "\
Nodes:
  publish, pipeline and fanout start nodes of their own in a temporary folder (TMPDIR) and remove both at the end.
  With --node MULTIADDR and --token TOKEN they measure the mesh of that member, over libp2p, and do not know what
  CPU its nodes use. idle takes nodes of its own only; cold-start and wasm need none. --data does not apply.
  A bench that is killed (kill -9) takes its nodes along; its folder is removed by the next bench or demo.";

#[derive(Debug, Args)]
#[command(after_help = NODES)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// One publisher on one node, one reader on another
    Publish(PublishArguments),
    /// Through a chain of functions, each on another node than the one before
    Pipeline(PipelineArguments),
    /// One publisher, many readers on other nodes
    Fanout(FanoutArguments),
    /// From an event to the first output of a function that is compiled and has no instance
    ColdStart(CallArguments),
    /// A function's call, beside the same call in wasmtime alone
    Wasm(WasmArguments),
    /// Three nodes with nothing to do
    Idle(IdleArguments),
    /// A writer that is killed under load (not there yet)
    #[command(hide = true)]
    Failover(Later),
}

/// What every scenario over streams takes.
#[derive(Debug, Clone, Args)]
pub struct StreamArguments {
    /// When an event counts as taken
    #[arg(long, value_enum, default_value_t = Class::Memory)]
    pub durability: Class,
    /// Copies of each log
    #[arg(long, default_value = "1", value_name = "1|3", value_parser = copies)]
    pub copies: u8,
    /// How long events are sent
    #[arg(long, default_value = "10", value_name = "N", value_parser = seconds)]
    pub seconds: f64,
    /// Different keys; 0: events without a key
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u32>(0..=U32_MAX))]
    pub keys: u32,
    /// Measure the whole curve over what the scenario varies, or over one of it
    #[arg(long, value_enum, value_name = "AXIS", num_args = 0..=1, default_missing_value = "all")]
    pub sweep: Option<Axis>,
}

#[derive(Debug, Args)]
pub struct PublishArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// An event's bytes
    #[arg(long, default_value = "128", value_name = "BYTES", value_parser = size)]
    pub size: usize,
    /// Events per second, a part of what is sustainable (50%), or as fast as they are taken (max)
    #[arg(long, default_value = "max", value_name = "N|N%|max", value_parser = rate)]
    pub rate: Rate,
}

#[derive(Debug, Args)]
pub struct PipelineArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Functions in the chain
    #[arg(long, default_value = "3", value_name = "N", value_parser = whole::<NonZeroU16>(1..=HOPS_MAX))]
    pub hops: NonZeroU16,
    /// An event's bytes
    #[arg(long, default_value = "128", value_name = "BYTES", value_parser = size)]
    pub size: usize,
    /// Events per second, a part of what is sustainable (50%), or as fast as they are taken (max)
    #[arg(long, default_value = "1000", value_name = "N|N%|max", value_parser = rate)]
    pub rate: Rate,
}

#[derive(Debug, Args)]
pub struct FanoutArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Readers of the stream
    #[arg(long, default_value = "10", value_name = "N", value_parser = whole::<NonZeroU16>(1..=U16_MAX))]
    pub taps: NonZeroU16,
    /// Nodes that the readers are on in turn, besides the publisher's
    #[arg(long, default_value = "1", value_name = "N", value_parser = whole::<NonZeroU16>(1..=U16_MAX))]
    pub nodes: NonZeroU16,
    /// Nodes that read a stream from which on it goes by gossip [default: as nodes do by themselves]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>(1..=U16_MAX))]
    pub gossip_from: Option<NonZeroUsize>,
    /// An event's bytes
    #[arg(long, default_value = "1024", value_name = "BYTES", value_parser = size)]
    pub size: usize,
    /// Events per second, a part of what is sustainable (50%), or as fast as they are taken (max)
    #[arg(long, default_value = "max", value_name = "N|N%|max", value_parser = rate)]
    pub rate: Rate,
}

#[derive(Debug, Args)]
pub struct CallArguments {
    /// Calls that are measured
    #[arg(long, default_value = "2000", value_name = "N", value_parser = whole::<NonZeroU32>(1..=U32_MAX))]
    pub calls: NonZeroU32,
    /// An event's bytes
    #[arg(long, default_value = "100", value_name = "BYTES", value_parser = size)]
    pub size: usize,
}

#[derive(Debug, Args)]
pub struct WasmArguments {
    #[command(flatten)]
    pub call: CallArguments,
    /// Events of one call
    #[arg(long, default_value = "256", value_name = "N", value_parser = whole::<NonZeroU16>(1..=U16_MAX))]
    pub batch: NonZeroU16,
}

#[derive(Debug, Args)]
pub struct IdleArguments {
    /// Look at one node that is home to so many actors, not at three without any
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u32>(0..=U32_MAX))]
    pub actors: u32,
    /// How long they are looked at
    #[arg(long, default_value = "10", value_name = "N", value_parser = seconds)]
    pub seconds: f64,
}

/// The durability classes as users write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// At once: what a crash of its node takes is lost
    Memory,
    /// Written: survives a crash of the process
    Page,
    /// Synced: survives a loss of power
    Disk,
}

impl From<Class> for Durability {
    fn from(class: Class) -> Durability {
        match class {
            Class::Memory => Durability::Memory,
            Class::Page => Durability::Page,
            Class::Disk => Durability::Disk,
        }
    }
}

/// What a curve runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    All,
    Size,
    Keys,
    Rate,
    Hops,
    Readers,
}

/// How fast events are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Back-pressure alone holds the publisher up.
    Max,
    /// Events per second.
    PerSecond(NonZeroU64),
    /// Percent of what `Max` came to in the same run.
    Percent(u8),
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || {
        format!("'{text}' is no rate: write events per second, a part of the sustainable rate as 50%, or max")
    };
    if text == "max" {
        return Ok(Rate::Max);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().map_err(|_| wrong())?;
        return match u8::try_from(percent) {
            Ok(0) => Err(format!("'{text}' of the sustainable rate is no event at all: write 1% to 100%")),
            Ok(percent) if percent <= 100 => Ok(Rate::Percent(percent)),
            Ok(_) | Err(_) => Err(format!(
                "'{text}' is more than all that is sustainable: write 1% to 100%, or events per second"
            )),
        };
    }
    text.parse().map(Rate::PerSecond).map_err(|_| wrong())
}

/// A parser of whole numbers; what does not fit is a sentence.
fn whole<T: FromStr>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let inside = text.parse().is_ok_and(|number| range.contains(&number));
        text.parse()
            .ok()
            .filter(|_| inside)
            .ok_or_else(|| format!("'{text}' is no whole number from {} to {}", range.start(), range.end()))
    }
}

fn copies(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err(format!("copies are 1 or 3, not '{text}'")),
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (SIZE_MIN..=SIZE_MAX).contains(&size) => Ok(size),
        Ok(_) | Err(_) => Err(format!("an event has {SIZE_MIN} to {SIZE_MAX} bytes here, not '{text}'")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("'{text}' is no number of seconds between 0.01 and a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_parts_or_all_that_goes() {
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("50%"), Ok(Rate::Percent(50)));
        assert_eq!(rate("1000"), Ok(Rate::PerSecond(NonZeroU64::new(1000).unwrap())));
        for wrong in ["0", "50.5%", "%", "-1", "fast", ""] {
            assert!(rate(wrong).unwrap_err().contains("is no rate"), "{wrong}");
        }
        for wrong in ["101%", "150%", "1000%"] {
            assert!(rate(wrong).unwrap_err().contains("more than all that is sustainable"), "{wrong}");
        }
        assert!(rate("0%").unwrap_err().contains("no event at all"));
    }

    #[test]
    fn whole_numbers_that_do_not_fit_are_sentences() {
        let taps = whole::<NonZeroU16>(1..=U16_MAX);
        assert_eq!(taps("65535"), Ok(NonZeroU16::MAX));
        for wrong in ["0", "65536", "-1", "1.5", "many", ""] {
            assert_eq!(taps(wrong), Err(format!("'{wrong}' is no whole number from 1 to 65535")),);
        }
        assert_eq!(whole::<u32>(0..=U32_MAX)("0"), Ok(0));
        assert_eq!(copies("3"), Ok(3));
        assert_eq!(copies("2"), Err("copies are 1 or 3, not '2'".to_string()));
    }

    #[test]
    fn sizes_have_room_for_a_number() {
        assert_eq!((size("16"), size("1048576")), (Ok(16), Ok(1 << 20)));
        assert!(size("15").is_err() && size("1048577").is_err() && size("x").is_err());
        assert!(seconds("0.5").is_ok() && seconds("0").is_err() && seconds("NaN").is_err());
    }
}
