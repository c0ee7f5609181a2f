//! What a redeploy may change, and which actors it touches.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::manifest::{Connector, Manifest, Operator, Outlet, Sink, Source, Stage};
use super::plan::{Home, Plan, Unit, UnitId, UnitInput};
use crate::id::Name;

/// Refuses, in one sentence, what cannot be changed while a source, stage or sink is alive: its key, its
/// shares, what kind of thing it is, the file that it stands in, what it has learned from. Nothing was
/// changed.
pub fn refuse_change(old: &Manifest, new: &Manifest) -> Result<(), String> {
    let advice = |name: &Name| format!("give it another name than '{name}', or remove the pipeline first");
    for (name, was) in &old.sources {
        let Some(is) = new.sources.get(name) else { continue };
        refuse_source(name, was, is).map_err(|why| format!("{why}; {}", advice(name)))?;
    }
    for (name, was) in &old.stages {
        let Some(is) = new.stages.get(name) else { continue };
        refuse_stage(name, was, is).map_err(|why| format!("{why}; {}", advice(name)))?;
        refuse_shares(old, new, name, was).map_err(|why| format!("{why}; {}", advice(name)))?;
    }
    for (name, was) in &old.sinks {
        let Some(is) = new.sinks.get(name) else { continue };
        refuse_sink(name, was, is).map_err(|why| format!("{why}; {}", advice(name)))?;
    }
    refuse_repetition(&Plan::of(old), &Plan::of(new))
}

fn refuse_source(name: &Name, was: &Source, is: &Source) -> Result<(), String> {
    let (old, new) = (connector(&was.connector), connector(&is.connector));
    if old != new {
        return Err(format!(
            "the living source '{name}' takes its events from {old}; making that {new} is not there yet"
        ));
    }
    if let (Connector::File { path: old, .. }, Connector::File { path: new, .. }) =
        (&was.connector, &is.connector)
        && old != new
    {
        return Err(format!(
            "the living source '{name}' counts the lines of '{old}', and those of '{new}' are others"
        ));
    }
    if was.key != is.key {
        return Err(format!(
            "the living source '{name}' has {}; changing that to {} is not there yet",
            spell(&was.key),
            spell(&is.key)
        ));
    }
    Ok(())
}

fn refuse_stage(name: &Name, was: &Stage, is: &Stage) -> Result<(), String> {
    let (was_kind, is_kind) = (kind(was), kind(is));
    if was_kind != is_kind {
        return Err(format!(
            "the living stage '{name}' is a {was_kind} stage, and a {is_kind} stage cannot go on where it stands"
        ));
    }
    let learns = matches!(was.operator, Operator::Learn(_) | Operator::Forecast(_) | Operator::Anomaly(_));
    if learns && was.operator != is.operator {
        return Err(format!(
            "what the living stage '{name}' has learned means something only with the settings of its {was_kind} \
             table, and they are others now"
        ));
    }
    if was.key != is.key && kind(was) != STATELESS {
        return Err(format!(
            "the living stage '{name}' has {}; changing that to {} is not there yet",
            spell(&was.key),
            spell(&is.key)
        ));
    }
    Ok(())
}

fn refuse_sink(name: &Name, was: &Sink, is: &Sink) -> Result<(), String> {
    match (&was.outlet, &is.outlet) {
        (Outlet::File { path: old }, Outlet::File { path: new }) if old != new => Err(format!(
            "the living sink '{name}' has committed how much of '{old}' is written, and '{new}' would be cut to that"
        )),
        (Outlet::File { .. }, Outlet::File { .. })
        | (Outlet::Http { .. }, Outlet::Http { .. })
        | (Outlet::Stdout, Outlet::Stdout) => Ok(()),
        (old, new) => Err(format!(
            "the living sink '{name}' writes to {}; making that {} is not there yet",
            outlet(old),
            outlet(new)
        )),
    }
}

/// A unit that lives must not get its events by a new way that begins with what it has seen already.
fn refuse_repetition(old: &Plan, new: &Plan) -> Result<(), String> {
    for unit in &new.units {
        let Some(was) = old.unit(&unit.id) else { continue };
        let reads = |unit: &Unit, input: &UnitInput| {
            unit.inputs.iter().any(|own| own.unit == input.unit && own.stream == input.stream)
        };
        let Some(dropped) = was.inputs.iter().find(|input| !reads(unit, input)) else { continue };
        // Of a unit that it reads already it goes on where it stands, whatever the stream.
        let known = |input: &UnitInput| was.inputs.iter().any(|own| own.unit == input.unit);
        for input in unit.inputs.iter().filter(|input| !known(input)) {
            let has = |upper: &Unit| upper.chain.outputs.iter().any(|output| output.stream == input.stream);
            if old.unit(&input.unit).is_none_or(has) {
                return Err(format!(
                    "'{0}' is alive and would read '{1}' in place of '{2}', and '{1}' begins with what is kept of \
                     its past, so that '{0}' would count events again; give '{0}' another name too, or remove \
                     the pipeline first",
                    unit.id.name,
                    way(input),
                    way(dropped)
                ));
            }
        }
    }
    Ok(())
}

/// The stream, and where it is made when its name alone does not tell.
fn way(input: &UnitInput) -> String {
    match input.unit.name == input.stream.base {
        true => format!("{}", input.stream),
        false => format!("{} (made in '{}')", input.stream, input.unit.name),
    }
}

fn spell(key: &Option<String>) -> String {
    match key {
        None => String::from("no key"),
        Some(key) => format!("key = \"{key}\""),
    }
}

fn connector(connector: &Connector) -> &'static str {
    match connector {
        Connector::Publish => "publishers",
        Connector::File { .. } => "a file",
        Connector::Host { .. } => "the host",
    }
}

fn outlet(outlet: &Outlet) -> &'static str {
    match outlet {
        Outlet::Http { .. } => "http",
        Outlet::File { .. } => "a file",
        Outlet::Stdout => "stdout",
    }
}

/// What kind of a stage it is. Filters and maps are one: each may become the other.
fn kind(stage: &Stage) -> &'static str {
    match stage.operator {
        Operator::Filter(_) | Operator::Map(_) => STATELESS,
        Operator::Wasm(_) => "wasm",
        Operator::Learn(_) => "learn",
        Operator::Forecast(_) => "forecast",
        Operator::Anomaly(_) => "anomaly",
    }
}

const STATELESS: &str = "filter or map";

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

/// Whether a unit does the same as before, so that its logs go on.
pub(crate) fn same(old: &Unit, new: &Unit) -> bool {
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
        refused(("filter = 'event.v > 1'", "wasm = 'y.wasm'"), "is a filter or map stage");
        refused(("after = '1h'", "after = '2h'"), "what the living stage 'learned' has learned");
        refused(
            ("key = 'k'\n        [stage.keep]", "key = 'z'\n        [stage.keep]"),
            "source 'a' has key = \"k\"",
        );
        refused(("stdout = {}", "http = { url = 'http://127.0.0.1:1/' }"), "writes to stdout");
        let file = |path: &str| {
            format!(
                "{BASE}\n[source.f]\nfile = {{ path = '{path}' }}\n[sink.g]\nfrom = ['f']\nfile = {{ path = '{path}' }}"
            )
        };
        let error = refuse_change(&manifest(&file("one.csv")), &manifest(&file("two.csv"))).unwrap_err();
        assert!(error.contains("counts the lines of 'one.csv'"), "{error}");
    }

    #[test]
    fn a_living_stage_is_not_led_to_what_it_has_seen() {
        let between =
            BASE.replace("[stage.code]\n        from = ['a']", "[stage.code]\n        from = ['learned']");
        let error = refuse_change(&manifest(BASE), &manifest(&between)).unwrap_err();
        assert!(error.contains("'code' is alive and would read 'learned' in place of 'a'"), "{error}");
        // One more input is no repetition, and neither is a stage fused in between.
        let more = BASE.replace("from = ['learned']", "from = ['learned', 'code']");
        assert_eq!(refuse_change(&manifest(BASE), &manifest(&more)), Ok(()));
        let fused = BASE.replace(
            "[stage.learned]\n        from = ['keep']",
            "[stage.more]\n        from = ['keep']\n        filter = 'event.v > 3'\n        [stage.learned]\n        from = ['more']",
        );
        assert_eq!(refuse_change(&manifest(BASE), &manifest(&fused)), Ok(()));
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
