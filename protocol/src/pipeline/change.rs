//! What a redeploy may change, and which actors it touches.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::manifest::{Connector, Manifest, Operator, Stage};
use super::plan::{Home, Plan, Unit, UnitId};
use crate::id::Name;

/// Refuses, in one sentence, what cannot be changed yet while a stage or source is alive: its key,
/// its shares, what kind of thing it is. Nothing was changed.
pub fn refuse_change(old: &Manifest, new: &Manifest) -> Result<(), String> {
    let advice = |name: &Name| format!("give it another name than '{name}', or remove the pipeline first");
    for (name, was) in &old.sources {
        let Some(is) = new.sources.get(name) else { continue };
        let (was, is) = (connector(&was.connector), connector(&is.connector));
        if was != is {
            return Err(format!(
                "the living source '{name}' takes its events from {was}; making that {is} is not there yet; {}",
                advice(name)
            ));
        }
    }
    for (name, was) in &old.stages {
        let Some(is) = new.stages.get(name) else { continue };
        let (was_stateful, is_stateful) = (stateful(was), stateful(is));
        // A stage that begins or ends to be an actor of its own is a new one, or a gone one.
        let (Some(was_kind), Some(is_kind)) = (was_stateful, is_stateful) else { continue };
        if was_kind != is_kind {
            return Err(format!(
                "the living stage '{name}' is a {was_kind} stage, and a {is_kind} stage cannot take over \
                 what it remembers; {}",
                advice(name)
            ));
        }
        if was.key != is.key {
            let spell = |key: &Option<String>| match key {
                None => String::from("no key"),
                Some(key) => format!("key = \"{key}\""),
            };
            return Err(format!(
                "the living stage '{name}' has {}; changing that to {} is not there yet; {}",
                spell(&was.key),
                spell(&is.key),
                advice(name)
            ));
        }
        refuse_shares(old, new, name, was).map_err(|why| format!("{why}; {}", advice(name)))?;
    }
    Ok(())
}

fn connector(connector: &Connector) -> &'static str {
    match connector {
        Connector::Publish => "publishers",
        Connector::File { .. } => "a file",
        Connector::Host { .. } => "the host",
    }
}

fn stateful(stage: &Stage) -> Option<&'static str> {
    match stage.operator {
        Operator::Filter(_) | Operator::Map(_) => None,
        Operator::Wasm(_) => Some("wasm"),
        Operator::Learn(_) => Some("learn"),
        Operator::Forecast(_) => Some("forecast"),
    }
}

fn refuse_shares(old: &Manifest, new: &Manifest, name: &Name, stage: &Stage) -> Result<(), String> {
    let (was, is) = (old.placement.get(name), new.placement.get(name));
    let unkeyed_wasm = stage.key.is_none() && matches!(stage.operator, Operator::Wasm(_));
    if unkeyed_wasm && was.is_some() != is.is_some() {
        let (from, to) = match was {
            Some(_) => ("is placed", "letting it live where its input is"),
            None => ("lives where its input is", "placing it"),
        };
        return Err(format!("the living stage '{name}' {from}; {to} is not there yet"));
    }
    // Shares that the file no longer names stay as they are.
    let shares = |rule: Option<&super::manifest::PlacementRule>| rule.and_then(|rule| rule.shares);
    match (shares(was), shares(is)) {
        (was, Some(is)) if was != Some(is) => {
            let was = match was {
                Some(was) => format!("{was} shares"),
                None => String::from("its number of shares by default"),
            };
            Err(format!("the living stage '{name}' has {was}; changing that to {is} is not there yet"))
        }
        _ => Ok(()),
    }
}

/// What a new plan means for the units of the one before it. Each list is in plan order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitChanges {
    /// Same chain, same inputs, same home: their logs go on.
    pub unchanged: Vec<UnitId>,
    /// A unit of the same name that does something else: a new log takes over from the old one.
    pub changed: Vec<UnitId>,
    pub new: Vec<UnitId>,
    pub gone: Vec<UnitId>,
}

/// Compares two plans of one pipeline.
pub fn changed_units(old: &Plan, new: &Plan) -> UnitChanges {
    let mut changes = UnitChanges::default();
    for unit in &new.units {
        let list = match old.unit(&unit.id) {
            None => &mut changes.new,
            Some(was) if same(was, unit) => &mut changes.unchanged,
            Some(_) => &mut changes.changed,
        };
        list.push(unit.id.clone());
    }
    let gone = old.units.iter().filter(|unit| new.unit(&unit.id).is_none());
    changes.gone = gone.map(|unit| unit.id.clone()).collect();
    changes
}

fn same(old: &Unit, new: &Unit) -> bool {
    let same_home = match (&old.home, &new.home) {
        // The file no longer names the shares: they stay.
        (Home::Shares(Some(_)), Home::Shares(None)) => true,
        (old, new) => old == new,
    };
    same_home && old.inputs == new.inputs && old.chain == new.chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "name = 'p'
        [source.a]
        key = 'k'
        [stage.keep]
        from = ['a']
        filter = 'event.v > 1'
        [stage.learned]
        from = ['keep']
        key = 'k'
        learn = { target = 'v', after = '1h' }
        [stage.code]
        from = ['a']
        wasm = 'x.wasm'
        [placement.learned]
        shares = 4
        [sink.out]
        from = ['learned']
        stdout = {}";

    fn manifest(text: &str) -> Manifest {
        Manifest::from_toml(text, "p.toml").unwrap()
    }

    #[track_caller]
    fn refused(replace: (&str, &str), sentence: &str) {
        let new = manifest(&BASE.replace(replace.0, replace.1));
        let error = refuse_change(&manifest(BASE), &new).unwrap_err();
        assert!(error.contains(sentence), "{error}");
        assert!(error.contains("give it another name"), "{error}");
    }

    #[test]
    fn keys_shares_and_kinds_of_the_living_stay() {
        refused(
            ("key = 'k'\n        learn", "key = 'v'\n        learn"),
            "has key = \"k\"; changing that to key = \"v\"",
        );
        refused(("shares = 4", "shares = 5"), "has 4 shares; changing that to 5");
        refused(("[source.a]", "[source.a]\nfile = { path = 'x' }"), "making that a file");
        refused(
            ("[placement.learned]", "[placement.code]\nspread = true\n[placement.learned]"),
            "placing it",
        );
        refused(("wasm = 'x.wasm'", "learn = { label = 'v' }"), "is a wasm stage");
    }

    #[test]
    fn other_changes_pass_and_are_told_apart() {
        let old = manifest(BASE);
        assert_eq!(refuse_change(&old, &old), Ok(()));
        let text = BASE
            .replace("shares = 4", "labels = { zone = 'x' }")
            .replace("event.v > 1", "event.v > 2")
            .replace("[sink.out]", "[sink.new]");
        let new = manifest(&text);
        assert_eq!(refuse_change(&old, &new), Ok(()));
        let changes = changed_units(&Plan::of(&old), &Plan::of(&new));
        let names =
            |ids: &[UnitId]| ids.iter().map(|id| format!("{:?} {}", id.role, id.name)).collect::<Vec<_>>();
        assert_eq!(names(&changes.unchanged), ["Source a", "Stage code", "Stage learned"]);
        assert_eq!(names(&changes.changed), ["Behind a"]);
        assert_eq!(names(&changes.new), ["Sink new"]);
        assert_eq!(names(&changes.gone), ["Sink out"]);
    }
}
