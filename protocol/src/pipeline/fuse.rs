//! From a checked manifest to its plan: which stages become actors, which are fused, and where keys
//! are set anew.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::manifest::{Manifest, Operator, PlacementRule, Sink, Source, Stage, StreamName};
use super::plan::{Chain, Feed, Head, Home, Output, Plan, Role, Step, StepOperator, Unit, UnitId, UnitInput};
use super::wiring::{SCORES, stages_in_order};
use crate::id::Name;

impl Plan {
    /// The plan of a manifest that `Manifest::from_toml` or `from_json` gave out. Total: whatever
    /// those would refuse (an unknown stream, a cycle) is left out.
    pub fn of(manifest: &Manifest) -> Plan {
        let mut fusing = Fusing::default();
        for (name, source) in &manifest.sources {
            fusing.source(name, source);
        }
        for name in stages_in_order(manifest).unwrap_or_default() {
            if let Some(stage) = manifest.stages.get(name) {
                fusing.stage(name, stage, manifest.placement.get(name));
            }
        }
        for (name, sink) in &manifest.sinks {
            fusing.sink(name, sink);
        }
        // Last, so that another reader by another key moves no stage's output.
        for (name, stage) in &manifest.stages {
            fusing.wire(Role::Stage, name, &stage.from, stage.key.as_deref());
        }
        for (name, sink) in &manifest.sinks {
            fusing.wire(Role::Sink, name, &sink.from, None);
        }
        fusing.plan()
    }
}

/// One place at which a stream's events can be had.
#[derive(Debug, Clone)]
struct Spot {
    unit: UnitId,
    feed: Feed,
    /// The payload field that the events' keys came from, where that is known.
    keyed: Option<String>,
}

#[derive(Debug, Default)]
struct Fusing {
    order: Vec<UnitId>,
    units: BTreeMap<UnitId, Unit>,
    streams: BTreeMap<StreamName, Vec<Spot>>,
}

fn main_stream(name: &Name) -> StreamName {
    StreamName { base: name.clone(), side: None }
}

impl Fusing {
    fn plan(mut self) -> Plan {
        let units = self.order.iter().filter_map(|id| self.units.remove(id));
        // A source with nothing stateless behind it needs no actor behind it.
        let units = units.filter(|unit| unit.id.role != Role::Behind || !unit.chain.steps.is_empty());
        Plan { units: units.collect() }
    }

    fn add(&mut self, id: UnitId, home: Home, inputs: Vec<UnitInput>, head: Head) {
        let chain = Chain { head, steps: Vec::new(), outputs: Vec::new() };
        self.order.push(id.clone());
        self.units.insert(id.clone(), Unit { id, home, inputs, chain });
    }

    fn source(&mut self, name: &Name, source: &Source) {
        let id = UnitId { role: Role::Source, name: name.clone() };
        let stream = main_stream(name);
        self.add(id.clone(), Home::Entry(source.clone()), Vec::new(), Head::None);
        self.output(&id, &stream, Feed::Head, None);
        let input = UnitInput { unit: id.clone(), output: 0, stream: stream.clone() };
        let behind = UnitId { role: Role::Behind, name: name.clone() };
        self.add(behind, Home::WithInput, vec![input], Head::Pass);
        let spot = Spot { unit: id, feed: Feed::Head, keyed: source.key.clone() };
        self.streams.insert(stream, vec![spot]);
    }

    fn stage(&mut self, name: &Name, stage: &Stage, rule: Option<&PlacementRule>) {
        match &stage.operator {
            Operator::Filter(text) => self.fuse(name, stage, StepOperator::Filter(text.clone())),
            Operator::Map(fields) => self.fuse(name, stage, StepOperator::Map(fields.clone())),
            Operator::Wasm(spec) => {
                let home = match (&stage.key, rule) {
                    (None, None) => Home::WithInput,
                    (_, rule) => Home::Shares(rule.and_then(|rule| rule.shares)),
                };
                let head = Head::Wasm { stage: name.clone(), spec: spec.clone() };
                // What key a function gives to what it emits is its own business.
                self.actor(name, home, head, None);
            }
            Operator::Learn(spec) => {
                self.learner(name, stage, rule, Head::Learn { stage: name.clone(), spec: spec.clone() });
            }
            Operator::Forecast(spec) => {
                self.learner(name, stage, rule, Head::Forecast { stage: name.clone(), spec: spec.clone() });
            }
            Operator::Anomaly(spec) => {
                self.learner(name, stage, rule, Head::Anomaly { stage: name.clone(), spec: spec.clone() });
            }
        }
    }

    fn learner(&mut self, name: &Name, stage: &Stage, rule: Option<&PlacementRule>, head: Head) {
        let home = match &stage.key {
            None => Home::Single,
            Some(_) => Home::Shares(rule.and_then(|rule| rule.shares)),
        };
        let keyed = stage.key.clone().or_else(|| self.common_key(&stage.from));
        self.actor(name, home, head, keyed);
    }

    /// The field by which all of these streams are keyed.
    fn common_key(&self, from: &[StreamName]) -> Option<String> {
        let mut spots = from.iter().filter_map(|stream| self.streams.get(stream)).flatten();
        let first = spots.next()?.keyed.clone();
        spots.all(|spot| spot.keyed == first).then_some(first)?
    }

    /// A stage that heads an actor of its own.
    fn actor(&mut self, name: &Name, home: Home, head: Head, keyed: Option<String>) {
        let id = UnitId { role: Role::Stage, name: name.clone() };
        let learns = matches!(head, Head::Learn { .. } | Head::Forecast { .. });
        self.add(id.clone(), home, Vec::new(), head);
        let mut outputs = vec![(main_stream(name), Feed::Head)];
        if learns && let Ok(side) = SCORES.parse() {
            outputs.push((StreamName { base: name.clone(), side: Some(side) }, Feed::Side(0)));
        }
        for (stream, feed) in outputs {
            self.output(&id, &stream, feed, None);
            let spot = Spot { unit: id.clone(), feed, keyed: keyed.clone() };
            self.streams.insert(stream, vec![spot]);
        }
    }

    fn sink(&mut self, name: &Name, sink: &Sink) {
        let id = UnitId { role: Role::Sink, name: name.clone() };
        let head = Head::Sink { sink: name.clone(), outlet: sink.outlet.clone() };
        self.add(id, Home::Single, Vec::new(), head);
    }

    /// A stateless stage becomes a step wherever the streams that it reads can be had.
    fn fuse(&mut self, name: &Name, stage: &Stage, operator: StepOperator) {
        let stream = main_stream(name);
        let spots: Vec<Spot> =
            stage.from.iter().filter_map(|from| self.streams.get(from)).flatten().cloned().collect();
        let mut fused = Vec::new();
        for spot in spots {
            let Some((unit, feed)) = self.step(&spot, name, operator.clone()) else { continue };
            self.output(&unit, &stream, feed, None);
            let keyed = match &operator {
                StepOperator::Map(fields) => spot.keyed.filter(|key| map_keeps(fields, key)),
                StepOperator::Filter(_) | StepOperator::Rekey(_) => spot.keyed,
            };
            fused.push(Spot { unit, feed, keyed });
        }
        self.streams.insert(stream, fused);
    }

    /// Puts a step behind `spot`; one that is there already is used again if it only sets a key.
    fn step(&mut self, spot: &Spot, stage: &Name, operator: StepOperator) -> Option<(UnitId, Feed)> {
        let id = match spot.unit.role {
            Role::Source => UnitId { role: Role::Behind, name: spot.unit.name.clone() },
            Role::Behind | Role::Stage | Role::Sink => spot.unit.clone(),
        };
        let steps = &mut self.units.get_mut(&id)?.chain.steps;
        let same = |step: &Step| step.from == spot.feed && step.operator == operator;
        let index = match steps.iter().position(same) {
            Some(index) if matches!(operator, StepOperator::Rekey(_)) => index,
            _ => {
                steps.push(Step { stage: stage.clone(), from: spot.feed, operator });
                steps.len() - 1
            }
        };
        Some((id, Feed::Step(index as u16)))
    }

    /// The index of this output of the unit, which gets it if it has none yet.
    fn output(&mut self, unit: &UnitId, stream: &StreamName, from: Feed, rekeyed: Option<String>) -> u16 {
        let Some(unit) = self.units.get_mut(unit) else { return 0 };
        let output = Output { stream: stream.clone(), from, rekeyed };
        let outputs = &mut unit.chain.outputs;
        let index = outputs.iter().position(|other| *other == output).unwrap_or_else(|| {
            outputs.push(output);
            outputs.len() - 1
        });
        index as u16
    }

    /// Gives the unit, if there is one, its inputs: `from` by `key`, in the order of the file.
    fn wire(&mut self, role: Role, reader: &Name, from: &[StreamName], key: Option<&str>) {
        let id = UnitId { role, name: reader.clone() };
        if !self.units.contains_key(&id) {
            return;
        }
        let mut inputs = Vec::new();
        for stream in from {
            for spot in self.streams.get(stream).cloned().unwrap_or_default() {
                let anew = key.filter(|key| spot.keyed.as_deref() != Some(key));
                let (unit, feed) = match anew {
                    None => (spot.unit, spot.feed),
                    Some(key) => match self.step(&spot, reader, StepOperator::Rekey(key.to_string())) {
                        Some(step) => step,
                        None => continue,
                    },
                };
                let output = self.output(&unit, stream, feed, anew.map(str::to_string));
                inputs.push(UnitInput { unit, output, stream: stream.clone() });
            }
        }
        if let Some(unit) = self.units.get_mut(&id) {
            unit.inputs = inputs;
        }
    }
}

/// Whether the field `key` of what a map gives out, if it has one, is still the event's key.
fn map_keeps(fields: &[(String, String)], key: &str) -> bool {
    match fields.iter().find(|(field, _)| field == key) {
        None => true,
        Some((_, expression)) => expression.trim() == format!("event.{key}"),
    }
}

#[cfg(test)]
mod tests;
