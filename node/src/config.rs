//! A node's settings: what the command line says, then what `--config FILE` says, then defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
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
}

impl Settings {
    pub fn of(arguments: RunArguments) -> anyhow::Result<Settings> {
        let file = match &arguments.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{} cannot be read; check --config", path.display()))?;
                toml::from_str(&text).with_context(|| format!("{} is no settings file", path.display()))?
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
        })
    }
}
