//! What the daemon says about itself: lines on standard error.
//!
//! Standard output belongs to answers (the ready line, `stdout` sinks); logs never go there.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use dunlin_protocol::effect::{Level, Report};
use dunlin_protocol::time::{Span, Time};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Our own crates; a plain level means these, everybody else stays at warnings.
const OURS: [&str; 3] = ["dunlin", "dunlin_operators", "dunlin_protocol"];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const DEFAULT: &str = "info";

/// Starts logging, once per process. `level` is `--log`: a level, or levels of crates and modules
/// (`dunlin=debug,libp2p_swarm=info`). An error is a sentence for the user.
pub fn start(level: Option<&str>) -> Result<(), String> {
    let filter = filter(level.unwrap_or(DEFAULT))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours(std::env::var_os("NO_COLOR").as_deref(), std::io::stderr().is_terminal()));
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .try_init()
        .map_err(|why| format!("logging cannot start ({why}): it was started twice in this process"))
}

/// Whether `level` can be understood; if not, a sentence for the user.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<Targets, String> {
    let plain = level.trim().to_ascii_lowercase();
    let directives = match plain.as_str() {
        "off" => plain,
        word if LEVELS.contains(&word) => {
            let noisy = if word == "error" { "error" } else { "warn" };
            // It has a line for every message that a member forged.
            let quiet = format!("{noisy},libp2p_gossipsub=error");
            OURS.iter().fold(quiet, |text, ours| format!("{text},{ours}={word}"))
        }
        // A bare word is a target to tracing; here it is a misspelt level.
        word if !word.contains(['=', ',']) => return Err(wrong(level, "there is no such level")),
        _ => level.split(',').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(","),
    };
    directives.parse().map_err(|why: ParseError| wrong(level, &why.to_string()))
}

fn wrong(level: &str, why: &str) -> String {
    format!(
        "the log level '{level}' is not understood ({why}): say one of {}, or directives such as dunlin=debug",
        LEVELS.join(", ")
    )
}

/// https://no-color.org: set and not empty means none.
fn colours(no_color: Option<&std::ffi::OsStr>, terminal: bool) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// Lines of one kind of report in one period. Beyond: counted, and said in one line afterwards, so that
/// nobody fills a disk by being refused.
const LINES_MAX: u64 = 20;
const PERIOD: Span = Span(10_000);

/// Says the core's reports in the log, each kind of them so often and no oftener.
#[derive(Debug, Default)]
pub struct Voice(BTreeMap<&'static str, Said>);

#[derive(Debug, Default)]
struct Said {
    since: Time,
    lines: u64,
}

impl Voice {
    pub fn say(&mut self, now: Time, report: &Report) {
        let said = self.0.entry(report.what).or_default();
        if now.since(said.since) >= PERIOD {
            let unsaid = said.lines.saturating_sub(LINES_MAX);
            if unsaid > 0 {
                tracing::warn!(what = report.what, "{unsaid} more like it were not said, only counted");
            }
            *said = Said { since: now, lines: 0 };
        }
        said.lines += 1;
        if said.lines > LINES_MAX {
            return;
        }
        let (what, detail) = (report.what, report.detail.as_str());
        match report.level {
            Level::Debug => tracing::debug!(what, "{detail}"),
            Level::Info => tracing::info!(what, "{detail}"),
            Level::Warn => tracing::warn!(what, "{detail}"),
            Level::Error => tracing::error!(what, "{detail}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_ours_and_the_rest_only_warns() {
        let shown = filter("debug").unwrap().to_string();
        assert!(shown.contains("dunlin=debug") && shown.contains("warn"), "{shown}");
        let shown = filter("dunlin=trace, hyper=info,").unwrap().to_string();
        assert!(shown.contains("dunlin=trace") && shown.contains("hyper=info"), "{shown}");
        assert!(filter("dunlin=trace,").unwrap().default_level().is_none());
        assert!(filter("off").is_ok());
        assert!(filter("verbose").is_err_and(|why| why.contains("off, error, warn")));
        assert!(filter("dunlin=loud").is_err());
    }

    #[test]
    fn colour_only_on_a_terminal_that_wants_it() {
        assert!(colours(None, true));
        assert!(!colours(None, false));
        assert!(!colours(Some("1".as_ref()), true));
        assert!(colours(Some("".as_ref()), true));
    }
}
