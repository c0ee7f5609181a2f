//! Whether the parts of a manifest fit together: names, streams, cycles, size, placement.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::{Place, Problem, nearest};
use super::manifest::{Connector, Manifest, Operator, PlacementRule, StreamName};
use super::tree::{Node, Tree};
use crate::id::Name;
use crate::limits::{EDGES_MAX, STAGES_MAX};

/// The one side output there is: the settled predictions of `learn` and `forecast`.
pub(super) const SCORES: &str = "scores";

pub(super) fn check(manifest: &Manifest, root: &Node) -> Result<(), Problem> {
    sizes(manifest, root)?;
    names(manifest, root)?;
    for (name, stage) in &manifest.stages {
        streams(manifest, root, "stage", name, &stage.from)?;
    }
    for (name, sink) in &manifest.sinks {
        streams(manifest, root, "sink", name, &sink.from)?;
    }
    let order = match stages_in_order(manifest) {
        Ok(order) => order,
        Err(cycle) => return Err(cyclic(root, &cycle)),
    };
    edges(manifest, root, &order)?;
    for (name, rule) in &manifest.placement {
        placement(manifest, root, name, rule)?;
    }
    Ok(())
}

fn sizes(manifest: &Manifest, root: &Node) -> Result<(), Problem> {
    if manifest.sources.is_empty() {
        let hint = "add one, like [source.quotes]";
        return Err(Problem::new(
            &root.place_of(&["source"]),
            "no event can enter: there is no source",
            hint,
        ));
    }
    let parts = manifest.sources.len() + manifest.stages.len() + manifest.sinks.len();
    if parts > STAGES_MAX {
        let reason = format!("{parts} sources, stages and sinks are more than the {STAGES_MAX} allowed");
        return Err(Problem::new(&root.place_of(&["stage"]), reason, "split the pipeline in two"));
    }
    Ok(())
}

/// One name, one thing: sources, stages and sinks share their names.
fn names(manifest: &Manifest, root: &Node) -> Result<(), Problem> {
    let clash = |kind: &str, name: &Name, other: &str| {
        let reason = format!("'{name}' is the name of a {other} and of a {kind}");
        Err(Problem::new(&root.place_of(&[kind, name.as_str()]), reason, "give one of them another name"))
    };
    for name in manifest.stages.keys() {
        if manifest.sources.contains_key(name) {
            return clash("stage", name, "source");
        }
    }
    for name in manifest.sinks.keys() {
        if manifest.sources.contains_key(name) {
            return clash("sink", name, "source");
        }
        if manifest.stages.contains_key(name) {
            return clash("sink", name, "stage");
        }
    }
    Ok(())
}

/// Where `stream` stands in the `from` of this reader.
fn from_place(root: &Node, kind: &str, reader: &Name, stream: &StreamName) -> Place {
    let found = || {
        let part = |node: &Node, key: &str| match &node.value {
            Tree::Table(entries) => entries.iter().find(|entry| entry.key == key).map(|e| e.node.clone()),
            _ => None,
        };
        let from = part(&part(&part(root, kind)?, reader.as_str())?, "from")?;
        let Tree::List(items) = from.value else { return None };
        let named = stream.to_string();
        items.into_iter().find(|item| item.value == Tree::Text(named.clone())).map(|item| item.place)
    };
    found().unwrap_or_else(|| root.place_of(&[kind, reader.as_str(), "from"]))
}

fn streams(
    manifest: &Manifest,
    root: &Node,
    kind: &str,
    reader: &Name,
    from: &[StreamName],
) -> Result<(), Problem> {
    for stream in from {
        let place = || from_place(root, kind, reader, stream);
        if manifest.sinks.contains_key(&stream.base) {
            let reason = format!("{kind} '{reader}' reads '{stream}', which is a sink and has no stream");
            return Err(Problem::new(&place(), reason, "read what that sink reads"));
        }
        let learns = manifest.stages.get(&stream.base).map(|stage| stage.operator.scores());
        let reason = match (&stream.side, learns) {
            (None, Some(_)) => continue,
            (Some(side), Some(true)) if side.as_str() == SCORES => continue,
            (None, None) if manifest.sources.contains_key(&stream.base) => continue,
            (Some(side), Some(false)) if side.as_str() == SCORES => {
                let reason = format!(
                    "{kind} '{reader}' reads '{stream}', but '{}' is no learn or forecast stage",
                    stream.base
                );
                let hint = format!("read '{}', or the scores of a learn or forecast stage", stream.base);
                return Err(Problem::new(&place(), reason, hint));
            }
            (..) => format!("{kind} '{reader}' reads '{stream}', which does not exist"),
        };
        let known = all_streams(manifest, kind, reader);
        return Err(Problem::new(
            &place(),
            reason,
            nearest(&stream.to_string(), known.iter().map(String::as_str)),
        ));
    }
    Ok(())
}

/// Every stream's name, without those of the reader itself.
fn all_streams(manifest: &Manifest, kind: &str, reader: &Name) -> Vec<String> {
    let mut known: Vec<String> = manifest.sources.keys().map(Name::to_string).collect();
    for (name, stage) in &manifest.stages {
        if kind == "stage" && name == reader {
            continue;
        }
        known.push(name.to_string());
        if stage.operator.scores() {
            known.push(format!("{name}.{SCORES}"));
        }
    }
    known
}

/// The stages, each behind all stages that it reads, otherwise by name; or the names along a cycle,
/// each read by the one before it.
pub(super) fn stages_in_order(manifest: &Manifest) -> Result<Vec<&Name>, Vec<&Name>> {
    let mut waiting: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
    for (name, stage) in &manifest.stages {
        let stages = stage.from.iter().map(|s| &s.base).filter(|base| manifest.stages.contains_key(*base));
        waiting.insert(name, stages.collect());
    }
    let mut order = Vec::new();
    loop {
        let next = waiting.iter().find(|(_, reads)| reads.is_empty()).map(|(name, _)| *name);
        match next {
            Some(name) => {
                waiting.remove(name);
                waiting.values_mut().for_each(|reads| {
                    reads.remove(name);
                });
                order.push(name);
            }
            None if waiting.is_empty() => return Ok(order),
            None => break,
        }
    }
    // Everything that waits reads something that waits: follow it until it repeats.
    let mut way: Vec<&Name> = waiting.keys().take(1).copied().collect();
    while let Some(next) = way.last().and_then(|last| waiting.get(last)).and_then(|reads| reads.first()) {
        if let Some(start) = way.iter().position(|name| name == next) {
            way.drain(..start);
            break;
        }
        way.push(next);
    }
    Err(way)
}

fn cyclic(root: &Node, cycle: &[&Name]) -> Problem {
    let first = cycle.first().map_or("", |name| name.as_str());
    let place = root.place_of(&["stage", first, "from"]);
    if cycle.len() == 1 {
        let reason = format!("stage '{first}' reads itself");
        return Problem::new(&place, reason, "remove it from its own 'from'");
    }
    let way: Vec<&str> = cycle.iter().map(|name| name.as_str()).chain([first]).collect();
    let reason = format!("the stages read each other in a circle: {}", way.join(" reads "));
    Problem::new(&place, reason, "remove one of them from the other's 'from'")
}

/// A stateless stage runs once for each way that leads to it, so ways must not multiply.
fn edges(manifest: &Manifest, root: &Node, order: &[&Name]) -> Result<(), Problem> {
    let mut ways: BTreeMap<&Name, usize> = manifest.sources.keys().map(|name| (name, 1)).collect();
    let mut total = 0_usize;
    let into = |ways: &BTreeMap<&Name, usize>, from: &[StreamName]| {
        from.iter().map(|s| ways.get(&s.base).copied().unwrap_or(1)).fold(0_usize, usize::saturating_add)
    };
    let stages = order.iter().filter_map(|name| manifest.stages.get_key_value(*name));
    let readers = stages
        .map(|(name, stage)| ("stage", name, &stage.from, Some(&stage.operator)))
        .chain(manifest.sinks.iter().map(|(name, sink)| ("sink", name, &sink.from, None)));
    for (kind, name, from, operator) in readers {
        let here = into(&ways, from);
        total = total.saturating_add(here);
        if total > EDGES_MAX {
            let reason =
                format!("more than {EDGES_MAX} ways lead through the filters and maps up to '{name}'");
            let hint = "let fewer stages read several streams, or put a wasm stage between";
            return Err(Problem::new(&root.place_of(&[kind, name.as_str(), "from"]), reason, hint));
        }
        match operator {
            Some(Operator::Filter(_) | Operator::Map(_)) => ways.insert(name, here),
            Some(Operator::Wasm(_) | Operator::Learn(_) | Operator::Forecast(_) | Operator::Anomaly(_)) => {
                ways.insert(name, 1)
            }
            None => None,
        };
    }
    Ok(())
}

fn placement(manifest: &Manifest, root: &Node, name: &Name, rule: &PlacementRule) -> Result<(), Problem> {
    let refuse = |key: Option<&str>, reason: String, hint: &str| {
        let path = ["placement", name.as_str(), key.unwrap_or_default()];
        let depth = if key.is_some() { 3 } else { 2 };
        Err(Problem::new(&root.place_of(path.get(..depth).unwrap_or(&path)), reason, hint))
    };
    let spread_or_shares = match (rule.shares, rule.spread) {
        (Some(_), _) => Some("shares"),
        (None, true) => Some("spread"),
        (None, false) => None,
    };
    if let Some(source) = manifest.sources.get(name) {
        if matches!(source.connector, Connector::Publish) {
            let reason =
                format!("source '{name}' cannot be placed: its events enter wherever they are published");
            return refuse(None, reason, "remove this table");
        }
        if let Some(key) = spread_or_shares {
            let reason = format!("source '{name}' has no {key}");
            return refuse(Some(key), reason, "place a source by labels only");
        }
        return Ok(());
    }
    if manifest.sinks.contains_key(name) {
        return match spread_or_shares {
            Some(key) => {
                let reason = format!("sink '{name}' has no {key}: a sink is one actor");
                refuse(Some(key), reason, "place a sink by labels only")
            }
            None => Ok(()),
        };
    }
    let Some(stage) = manifest.stages.get(name) else {
        let known = manifest.stages.keys().chain(manifest.sources.keys()).chain(manifest.sinks.keys());
        let hint = nearest(name.as_str(), known.map(Name::as_str));
        return refuse(None, format!("placement '{name}' names no stage, source or sink"), &hint);
    };
    let keyed = stage.key.is_some();
    match &stage.operator {
        Operator::Filter(_) | Operator::Map(_) => {
            let reason =
                format!("'{name}' cannot be placed: a filter or map runs inside the actor in front of it");
            refuse(
                None,
                reason,
                "place the wasm, learn, forecast or anomaly stage in front of it, or remove this table",
            )
        }
        Operator::Learn(_) | Operator::Forecast(_) | Operator::Anomaly(_)
            if !keyed && spread_or_shares.is_some() =>
        {
            let reason =
                format!("stage '{name}' has no key, so it is one model in one actor and has no shares");
            refuse(spread_or_shares, reason, "add key = \"FIELD\" to the stage, or remove this")
        }
        Operator::Wasm(_) | Operator::Learn(_) | Operator::Forecast(_) | Operator::Anomaly(_)
            if keyed && rule.spread =>
        {
            let reason = format!("stage '{name}' has a key, so its shares are spread already");
            refuse(Some("spread"), reason, "remove it, or set shares = 8")
        }
        Operator::Wasm(_) | Operator::Learn(_) | Operator::Forecast(_) | Operator::Anomaly(_) => Ok(()),
    }
}
