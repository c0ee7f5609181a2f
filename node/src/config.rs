//! A node's settings: what the command line says, then what `--config FILE` says, then defaults.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use dunlin_protocol::peer::GossipBounds;
use serde::Deserialize;

use crate::cli::RunArguments;

/// What `dunlin run` goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data: PathBuf,
    pub listen: Vec<String>,
    pub http: SocketAddr,
    /// HTTP may be bound to an address that others reach, without TLS.
    pub http_open: bool,
    pub join: Option<String>,
    pub labels: Vec<(String, String)>,
    pub log: Option<String>,
    pub mdns: bool,
    pub gossip: GossipBounds,
    /// Whoever started the node holds the other end of its standard input: the node ends with it.
    pub until_stdin_ends: bool,
}

/// The file: TOML, every field optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    listen: Vec<String>,
    http: Option<SocketAddr>,
    #[serde(default)]
    http_open: bool,
    join: Option<String>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    log: Option<String>,
    mdns: Option<bool>,
    /// Nodes that tap a stream from which on it goes by gossip.
    gossip_from: Option<NonZeroUsize>,
}

impl Settings {
    pub fn of(arguments: RunArguments) -> anyhow::Result<Settings> {
        let file = match &arguments.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{} cannot be read; check --config", path.display()))?;
                toml::from_str(&text).map_err(|error| wrong(&error, &text, path))?
            }
        };
        let default = RunArguments::HTTP_DEFAULT.parse().context("the default HTTP address is wrong")?;
        // The command line's labels come last, so that they win.
        let labels = file.labels.into_iter().chain(arguments.labels).collect();
        Ok(Settings {
            data: arguments.data,
            listen: if arguments.listen.is_empty() { file.listen } else { arguments.listen },
            http: arguments.http.or(file.http).unwrap_or(default),
            http_open: file.http_open,
            join: arguments.join.or(file.join),
            labels,
            log: arguments.log.or(file.log),
            mdns: file.mdns.unwrap_or(true),
            gossip: file
                .gossip_from
                .map_or_else(GossipBounds::default, |from| GossipBounds::from(from.get())),
            until_stdin_ends: arguments.until_stdin_ends,
        })
    }
}

/// A wrong settings file as one sentence: where, and why.
fn wrong(error: &toml::de::Error, text: &str, path: &Path) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let why = error.message().trim().replace('\n', " ");
    anyhow!("{}:{line}:{column}: {why}; correct the settings file", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_settings_file_is_one_sentence_with_its_place() {
        let sentence = |text: &str| {
            let error = toml::from_str::<File>(text).unwrap_err();
            wrong(&error, text, Path::new("dunlin.toml")).to_string()
        };
        let unknown = sentence("mdns = true\n  lisen = []\n");
        assert!(unknown.starts_with("dunlin.toml:2:3: unknown field `lisen`, expected one of"), "{unknown}");
        let kind = sentence("http = 7070\n");
        assert!(kind.starts_with("dunlin.toml:1:8: ") && !kind.contains('\n'), "{kind}");
        assert!(sentence("http = \n").starts_with("dunlin.toml:1:"));
    }
}
