//! From a pipeline file to a `Manifest`: what each table may hold. That the streams and placements
//! fit together is `wiring`'s business; both run before anybody sees the manifest.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::{ManifestError, Place, Problem, nearest};
use super::fields::{Fields, name};
use super::manifest::{
    Connector, Durability, F64, Label, LearnSpec, Manifest, Module, Operator, Outlet, Pace, PlacementRule,
    Retention, Sink, Source, Stage, StreamName, WasmLimits, WasmSpec, WhenFull,
};
use super::tree::{self, Node, Tree};
use super::wiring;
use crate::id::Name;
use crate::limits::{EXPRESSION_BYTES_MAX, SHARES_MAX};
use crate::time::Span;

/// The largest linear memory that a function may ask for: what a 32-bit guest can address.
const GUEST_MEMORY_MAX: u64 = 4 << 30;
/// The shortest interval of a `host` source.
const HOST_EVERY_MIN: Span = Span(100);
/// A `wasm` value that begins so names a module that is already uploaded.
pub(super) const BY_DIGEST: &str = "blake3:";

/// What a later version brings, refused by name until then.
const LATER_STAGE: [&str; 3] = ["window", "aggregate", "join"];
const LATER_LEARN: [&str; 2] = ["window", "shared"];

impl Manifest {
    /// Reads and checks a pipeline file. Expressions are looked at only for their length; whether
    /// they compile is checked by the crate that runs them.
    pub fn from_toml(text: &str, file: &str) -> Result<Manifest, ManifestError> {
        tree::from_toml(text).and_then(|root| manifest(&root)).map_err(|problem| problem.in_file(file))
    }

    /// Reads and checks the same model as JSON. `from_json(&m.to_json()) == m` for every checked
    /// manifest, so this also checks one that came over a wire.
    pub fn from_json(text: &str) -> Result<Manifest, ManifestError> {
        tree::from_json(text).and_then(|root| manifest(&root)).map_err(|problem| problem.in_file("manifest"))
    }

    /// An error at `path` (`["stage", "cheap", "filter"]`) of a file that parsed but failed a later
    /// check: a wrong expression, a missing module.
    pub fn error_at(
        text: &str,
        file: &str,
        path: &[&str],
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> ManifestError {
        let place = match tree::from_toml(text).or_else(|_| tree::from_json(text)) {
            Ok(root) => root.place_of(path),
            Err(_) => Place::Path(path.join(".")),
        };
        Problem { place, reason: reason.into(), hint: hint.into() }.in_file(file)
    }
}

fn manifest(root: &Node) -> Result<Manifest, Problem> {
    let top = Fields::of("the pipeline file", &root.place, root)?;
    let known = ["name", "durability", "copies", "retention", "source", "stage", "sink", "placement"];
    top.only(&known, &[])?;
    let name_text = top.need_text("name", "name = \"my-pipeline\"")?;
    let name = match top.get("name") {
        Some(node) => name("pipeline", &name_text, &node.place)?,
        None => name("pipeline", &name_text, top.place)?,
    };
    let manifest = Manifest {
        name,
        durability: durability(&top)?,
        copies: copies(&top)?,
        retention: retention(&top)?,
        sources: section(&top, "source", source)?,
        stages: section(&top, "stage", stage)?,
        sinks: section(&top, "sink", sink)?,
        placement: section(&top, "placement", placement)?,
    };
    wiring::check(&manifest, root)?;
    Ok(manifest)
}

/// The tables `[kind.NAME]`, in name order.
fn section<T>(
    top: &Fields<'_>,
    kind: &str,
    read: impl Fn(&Fields<'_>) -> Result<T, Problem>,
) -> Result<BTreeMap<Name, T>, Problem> {
    let mut read_all = BTreeMap::new();
    let Some(node) = top.get(kind) else { return Ok(read_all) };
    let tables = Fields::of(format!("'{kind}'"), top.key_place(kind), node)?;
    for entry in tables.entries {
        let named = match kind {
            "placement" => "stage",
            _ => kind,
        };
        let name = name(named, &entry.key, &entry.place)?;
        let fields = Fields::of(format!("{kind} '{name}'"), &entry.place, &entry.node)?;
        read_all.insert(name, read(&fields)?);
    }
    Ok(read_all)
}

fn durability(top: &Fields<'_>) -> Result<Durability, Problem> {
    let Some(text) = top.text("durability", "durability = \"disk\"")? else { return Ok(Durability::Disk) };
    match text.as_str() {
        "memory" => Ok(Durability::Memory),
        "page" => Ok(Durability::Page),
        "disk" => Ok(Durability::Disk),
        _ => Err(no_such(top, "durability", &text, &["memory", "page", "disk"])),
    }
}

/// A word that is none of `known`.
fn no_such(fields: &Fields<'_>, key: &str, text: &str, known: &[&str]) -> Problem {
    let place = fields.get(key).map_or(fields.place, |node| &node.place);
    let reason = format!("{key} of {} cannot be '{text}'", fields.what);
    Problem::new(place, reason, nearest(text, known.iter().copied()))
}

fn copies(top: &Fields<'_>) -> Result<u8, Problem> {
    let place = top.get("copies").map_or(top.place, |node| &node.place);
    match top.integer("copies", 1, 5)? {
        None | Some(1) => Ok(1),
        Some(copies @ (3 | 5)) => {
            Err(Problem::new(place, format!("copies = {copies} is not there yet"), "use copies = 1"))
        }
        Some(copies) => {
            let reason = format!("copies = {copies} has no majority of its own; copies are 1, 3 or 5");
            Err(Problem::new(place, reason, "use copies = 1"))
        }
    }
}

fn retention(top: &Fields<'_>) -> Result<Retention, Problem> {
    let defaults = Retention::default();
    let Some(fields) = top.table("retention")? else { return Ok(defaults) };
    fields.only(&["age", "bytes", "when_full"], &[])?;
    if let Some(text) = fields.text("when_full", "when_full = \"block\"")?
        && text != "block"
    {
        let place = fields.key_place("when_full");
        let reason = format!("when_full = \"{text}\" is not there yet");
        return Err(Problem::new(place, reason, "use when_full = \"block\""));
    }
    Ok(Retention {
        age: fields.span("age")?.unwrap_or(defaults.age),
        bytes: fields.bytes("bytes")?.map_or(defaults.bytes, |(bytes, _)| bytes),
        when_full: WhenFull::Block,
    })
}

fn source(fields: &Fields<'_>) -> Result<Source, Problem> {
    fields.only(&["key", "time", "lateness", "file", "host"], &[])?;
    if fields.has("file") && fields.has("host") {
        let reason = format!("{} has two connectors, file and host", fields.what);
        return Err(Problem::new(fields.key_place("host"), reason, "make it two sources"));
    }
    let time = fields.text("time", "time = \"observed_at\"")?;
    let connector = match (fields.table("file")?, fields.table("host")?) {
        (Some(file), _) => {
            file.only(&["path", "pace"], &[])?;
            let connector = Connector::File {
                path: file.need_text("path", "path = \"events.csv\"")?,
                pace: pace(&file)?,
            };
            if time.is_none() && !matches!(connector, Connector::File { pace: Pace::Fast, .. }) {
                let reason =
                    format!("the pace of {} needs event times, but it names no time field", fields.what);
                let hint = "add time = \"FIELD\", or use pace = \"fast\"";
                return Err(Problem::new(file.key_place("pace"), reason, hint));
            }
            connector
        }
        (None, Some(host)) => {
            host.only(&["every"], &[])?;
            let every = host.span("every")?.unwrap_or(Span::seconds(1));
            if every < HOST_EVERY_MIN {
                let reason = format!("every of {} is shorter than {}ms", host.what, HOST_EVERY_MIN.0);
                return Err(Problem::new(host.key_place("every"), reason, "use every = \"1s\""));
            }
            Connector::Host { every }
        }
        (None, None) => Connector::Publish,
    };
    Ok(Source {
        key: fields.text("key", "key = \"flight\"")?,
        time,
        lateness: fields.span("lateness")?.unwrap_or_default(),
        connector,
    })
}

fn pace(fields: &Fields<'_>) -> Result<Pace, Problem> {
    let Some(text) = fields.text("pace", "pace = \"fast\"")? else { return Ok(Pace::Fast) };
    let times = text.strip_suffix('x').and_then(|times| times.parse::<u32>().ok()).filter(|times| *times > 0);
    match (text.as_str(), times) {
        ("fast", _) => Ok(Pace::Fast),
        ("real", _) => Ok(Pace::Times(1)),
        (_, Some(times)) => Ok(Pace::Times(times)),
        _ => Err(no_such(fields, "pace", &text, &["fast", "real", "10x", "1000x"])),
    }
}

/// What a stage or sink reads; whether those streams exist is checked with all names in hand.
fn from(fields: &Fields<'_>) -> Result<Vec<StreamName>, Problem> {
    let example = "from = [\"quotes\"]";
    let texts = fields.texts("from", example)?.ok_or_else(|| fields.missing("from", example))?;
    texts
        .into_iter()
        .map(|(text, place)| {
            text.parse::<StreamName>().map_err(|bad| {
                let reason = format!("'{}' is no stream's name: {}", bad.text, bad.why);
                Problem::new(place, reason, "name a source, a stage, or STAGE.scores")
            })
        })
        .collect()
}

impl core::str::FromStr for StreamName {
    type Err = crate::id::BadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            None => Ok(StreamName { base: text.parse()?, side: None }),
            Some((base, side)) => Ok(StreamName { base: base.parse()?, side: Some(side.parse()?) }),
        }
    }
}

fn stage(fields: &Fields<'_>) -> Result<Stage, Problem> {
    let known = ["from", "key", "filter", "map", "wasm", "learn", "forecast", "anomaly", "config", "limits"];
    fields.only(&known, &LATER_STAGE)?;
    let operators = ["filter", "map", "wasm", "learn", "forecast", "anomaly"];
    let mut named = fields.entries.iter().filter(|entry| operators.contains(&entry.key.as_str()));
    let Some(first) = named.next() else {
        let reason = format!("{} does nothing: it has no operator", fields.what);
        return Err(Problem::new(
            fields.place,
            reason,
            "add one of filter, map, wasm, learn, forecast, anomaly",
        ));
    };
    if let Some(second) = named.next() {
        let reason = format!("{} has two operators, {} and {}", fields.what, first.key, second.key);
        return Err(Problem::new(&second.place, reason, "make it two stages, one behind the other"));
    }
    let kind = first.key.as_str();
    if let Some(entry) = fields.entries.iter().find(|e| e.key == "config" || e.key == "limits")
        && kind != "wasm"
    {
        let reason = format!("{} is a {kind} stage; only a wasm stage has {}", fields.what, entry.key);
        return Err(Problem::new(&entry.place, reason, "remove it"));
    }
    if fields.has("key") && matches!(kind, "filter" | "map") {
        let reason =
            format!("{} is a {kind} stage, which needs no key: events keep the one they have", fields.what);
        let hint =
            "remove it, or name the key at the wasm, learn, forecast or anomaly stage that reads this one";
        return Err(Problem::new(fields.key_place("key"), reason, hint));
    }
    let operator = match kind {
        "filter" => Operator::Filter(expression(fields, &fields.what, "filter")?),
        "map" => map(fields)?,
        "wasm" => Operator::Wasm(wasm(fields)?),
        "forecast" => Operator::Forecast(forecast::forecast(fields)?),
        "anomaly" => Operator::Anomaly(anomaly::anomaly(fields)?),
        _ => Operator::Learn(learn(fields)?),
    };
    Ok(Stage { from: from(fields)?, key: fields.text("key", "key = \"flight\"")?, operator })
}

fn expression(fields: &Fields<'_>, what: &str, key: &str) -> Result<String, Problem> {
    let text = fields.need_text(key, &format!("{key} = \"event.price < 120.0\""))?;
    if text.len() > EXPRESSION_BYTES_MAX {
        let place = fields.get(key).map_or(fields.place, |node| &node.place);
        let reason = format!(
            "the expression '{key}' of {what} has {} bytes, more than the {EXPRESSION_BYTES_MAX} allowed",
            text.len()
        );
        return Err(Problem::new(place, reason, "split it over two stages, or write a wasm function"));
    }
    Ok(text)
}

fn map(fields: &Fields<'_>) -> Result<Operator, Problem> {
    let Some(map) = fields.table("map")? else { return Err(fields.missing("map", "map = { … }")) };
    if map.entries.is_empty() {
        let hint = "name at least one field, like map = { price = \"event.price * 0.9\" }";
        return Err(Problem::new(map.place, format!("{} has no fields", map.what), hint));
    }
    let field = |entry: &tree::Entry| match &entry.node.value {
        Tree::Text(_) => Ok((entry.key.clone(), expression(&map, &fields.what, &entry.key)?)),
        _ => {
            let reason = format!(
                "{} in {} must be an expression, but this is {}",
                entry.key,
                map.what,
                entry.node.kind()
            );
            Err(Problem::new(
                &entry.node.place,
                reason,
                "write the expression as a string, like \"event.price\"",
            ))
        }
    };
    map.entries.iter().map(field).collect::<Result<Vec<_>, Problem>>().map(Operator::Map)
}

fn wasm(fields: &Fields<'_>) -> Result<WasmSpec, Problem> {
    let text = fields.need_text("wasm", "wasm = \"functions/clean.wasm\"")?;
    let module = match text.strip_prefix(BY_DIGEST) {
        None => Module::Path(text),
        Some(digest) => Module::Digest(digest.parse().map_err(|bad: crate::id::BadName| {
            let place = fields.get("wasm").map_or(fields.place, |node| &node.place);
            Problem::new(place, bad.to_string(), "write blake3: and 64 hexadecimal digits, or a path")
        })?),
    };
    let config = match (fields.table("config")?, fields.get("config")) {
        (Some(_), Some(node)) => tree::to_json(node)?,
        _ => "{}".to_owned(),
    };
    let mut limits = WasmLimits::default();
    if let Some(given) = fields.table("limits")? {
        given.only(&["fuel", "memory"], &[])?;
        if let Some((fuel, place)) = given.count("fuel")? {
            limits.fuel = at_least_one(fuel, "fuel", place)?;
        }
        if let Some((memory, place)) = given.bytes("memory")? {
            if memory > GUEST_MEMORY_MAX {
                let reason =
                    format!("memory of {} is more than the 4GiB that a function can address", given.what);
                return Err(Problem::new(place, reason, "use memory = \"64MiB\""));
            }
            limits.memory = at_least_one(memory, "memory", place)?;
        }
    }
    Ok(WasmSpec { module, config, limits })
}

fn at_least_one(value: u64, what: &str, place: &Place) -> Result<u64, Problem> {
    match value {
        0 => Err(Problem::new(
            place,
            format!("{what} = 0 lets no function run"),
            "leave it out for the default",
        )),
        value => Ok(value),
    }
}

fn learn(fields: &Fields<'_>) -> Result<LearnSpec, Problem> {
    let Some(learn) = fields.table("learn")? else { return Err(fields.missing("learn", "learn = { … }")) };
    let known =
        ["target", "after", "rises_by", "label", "label_at", "features", "models", "interval", "seed"];
    learn.only(&known, &LATER_LEARN)?;
    Ok(LearnSpec {
        label: label(&learn)?,
        features: plain(learn.texts("features", "features = [\"price\", \"departure\"]")?),
        models: plain(learn.texts("models", "models = [\"last_value\"]")?),
        interval: interval(&learn)?,
        seed: learn.integer("seed", 0, u64::MAX.into())?.map_or(0, |seed| seed as u64),
    })
}

fn plain(texts: Option<Vec<(String, &Place)>>) -> Option<Vec<String>> {
    texts.map(|texts| texts.into_iter().map(|(text, _)| text).collect())
}

fn interval(fields: &Fields<'_>) -> Result<Option<F64>, Problem> {
    match fields.number("interval", "interval = 0.9")? {
        Some((value, place)) if value <= 0.0 || value >= 1.0 => {
            let reason = format!("interval of {} is {value}, but it must lie between 0 and 1", fields.what);
            Err(Problem::new(place, reason, "use interval = 0.9"))
        }
        interval => Ok(interval.map(|(value, _)| F64(value))),
    }
}

fn label(learn: &Fields<'_>) -> Result<Label, Problem> {
    let (target, label) =
        (learn.text("target", "target = \"price\"")?, learn.text("label", "label = \"delay\"")?);
    let stray = |keys: &[&str], with: &str| match keys.iter().find(|key| learn.has(key)) {
        None => Ok(()),
        Some(key) => {
            let reason = format!("{key} of {} does not go with '{with}'", learn.what);
            let hint = "use target with after and rises_by, or label with label_at";
            Err(Problem::new(learn.key_place(key), reason, hint))
        }
    };
    match (target, label) {
        (Some(target), None) => {
            stray(&["label_at"], "target")?;
            let after = learn.span("after")?.ok_or_else(|| learn.missing("after", "after = \"3d\""))?;
            if after == Span(0) {
                let reason = format!("after of {} is zero, so there is nothing to predict", learn.what);
                return Err(Problem::new(learn.key_place("after"), reason, "use after = \"3d\""));
            }
            let rises_by = match learn.number("rises_by", "rises_by = 0.05")? {
                Some((value, place)) if value < 0.0 => {
                    let reason = format!("rises_by of {} is negative", learn.what);
                    return Err(Problem::new(place, reason, "use a fraction like rises_by = 0.05"));
                }
                rises_by => rises_by.map(|(value, _)| F64(value)),
            };
            Ok(Label::Later { target, after, rises_by })
        }
        (None, Some(label)) => {
            stray(&["after", "rises_by"], "label")?;
            Ok(Label::SameRow { label, label_at: learn.text("label_at", "label_at = \"landed_at\"")? })
        }
        (Some(_), Some(_)) => {
            let reason = format!("{} has both target and label", learn.what);
            let hint = "use target for the same field later, label for a field of the same event";
            Err(Problem::new(learn.key_place("label"), reason, hint))
        }
        (None, None) => {
            let reason = format!("{} names nothing to learn", learn.what);
            let hint = "add target = \"price\", after = \"3d\", or label = \"delay\"";
            Err(Problem::new(learn.place, reason, hint))
        }
    }
}

fn sink(fields: &Fields<'_>) -> Result<Sink, Problem> {
    fields.only(&["from", "http", "file", "stdout"], &[])?;
    let mut named = fields.entries.iter().filter(|entry| entry.key != "from");
    let Some(first) = named.next() else {
        let reason = format!("{} leads nowhere: it has no outlet", fields.what);
        return Err(Problem::new(fields.place, reason, "add one of http, file, stdout"));
    };
    if let Some(second) = named.next() {
        let reason = format!("{} has two outlets, {} and {}", fields.what, first.key, second.key);
        return Err(Problem::new(&second.place, reason, "make it two sinks"));
    }
    let outlet = match (fields.table("http")?, fields.table("file")?, fields.table("stdout")?) {
        (Some(http), ..) => {
            http.only(&["url"], &[])?;
            let url = http.need_text("url", "url = \"http://127.0.0.1:9000/alerts\"")?;
            if !(url.starts_with("http://") || url.starts_with("https://")) {
                let reason = format!("'{url}' (url of {}) is not an http or https address", http.what);
                return Err(Problem::new(http.key_place("url"), reason, "begin it with http:// or https://"));
            }
            Outlet::Http { url }
        }
        (None, Some(file), _) => {
            file.only(&["path"], &[])?;
            Outlet::File { path: file.need_text("path", "path = \"out.jsonl\"")? }
        }
        (None, None, Some(stdout)) => {
            stdout.only(&[], &[])?;
            Outlet::Stdout
        }
        (None, None, None) => return Err(fields.missing("stdout", "stdout = {}")),
    };
    Ok(Sink { from: from(fields)?, outlet })
}

fn placement(fields: &Fields<'_>) -> Result<PlacementRule, Problem> {
    fields.only(&["labels", "shares", "spread"], &[])?;
    let mut labels = BTreeMap::new();
    if let Some(given) = fields.table("labels")? {
        for entry in given.entries {
            labels.insert(entry.key.clone(), given.need_text(&entry.key, "zone = \"edge\"")?);
        }
    }
    Ok(PlacementRule {
        labels,
        shares: fields.integer("shares", 1, SHARES_MAX.into())?.map(|shares| shares as u16),
        spread: fields.boolean("spread")?.unwrap_or(false),
    })
}

mod anomaly;
mod forecast;
#[cfg(test)]
mod tests;
