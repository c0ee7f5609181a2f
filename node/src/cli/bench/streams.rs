//! `publish`, `pipeline` and `fanout`: the manifests, and the curves.

use dunlin_protocol::id::Digest;
use dunlin_protocol::pipeline::manifest::{Durability, Manifest, Module, Operator};
use indicatif::ProgressBar;

use super::arguments::{Axis, FanoutArguments, PipelineArguments, PublishArguments, Rate, StreamArguments};
use super::load::Schedule;
use super::mesh::Mesh;
use super::report::{Parameters, Row};
use super::round::{Round, measure};
use crate::api::streams::stream_name;
use crate::cli::WrongUsage;
use crate::cli::output::bytes_text;

/// Curves.
const SIZES: [usize; 7] = [16, 128, 1 << 10, 4 << 10, 16 << 10, 128 << 10, 1 << 20];
const KEYS: [u32; 4] = [0, 1, 100, 10_000];
const HOPS: [u16; 4] = [1, 2, 3, 5];
const READERS: [u16; 4] = [1, 10, 100, 1000];
/// Percent of the sustainable rate.
const RATES: [u8; 3] = [25, 50, 80];
/// Of the lines that the driver sends again and again. What would need more is refused.
const LINES_BYTES_MAX: usize = 1 << 30;
/// Of a line beside its event, about.
const LINE_BYTES: usize = 64;

/// One point of a curve: what a run over a stream is told.
#[derive(Debug, Clone, Copy)]
struct Point {
    scenario: &'static str,
    size: usize,
    keys: u32,
    rate: Rate,
    /// 0: what is published is read.
    hops: u16,
    readers: u16,
    /// Nodes that they are on in turn, where nothing is between.
    reading: u16,
}

/// Runs points on one mesh and gathers their rows.
struct Bench<'a> {
    mesh: Mesh,
    stream: &'a StreamArguments,
    relay: &'static [u8],
    rows: Vec<Row>,
    bar: &'a ProgressBar,
}

impl Point {
    fn of(scenario: &'static str, size: usize, stream: &StreamArguments, rate: Rate) -> Point {
        Point { scenario, size, keys: stream.keys, rate, hops: 0, readers: 1, reading: 1 }
    }

    /// The curve over one axis, this point's own value left as it is on all others.
    fn along(self, axis: Axis) -> Vec<Point> {
        match axis {
            Axis::Size => SIZES.into_iter().map(|size| Point { size, ..self }).collect(),
            Axis::Keys => KEYS.into_iter().map(|keys| Point { keys, ..self }).collect(),
            Axis::Hops => HOPS.into_iter().map(|hops| Point { hops, ..self }).collect(),
            Axis::Readers => READERS.into_iter().map(|readers| Point { readers, ..self }).collect(),
            Axis::Rate => {
                let rates = RATES.into_iter().map(Rate::Percent);
                std::iter::once(Rate::Max).chain(rates).map(|rate| Point { rate, ..self }).collect()
            }
            Axis::All => Vec::new(),
        }
    }
}

/// How the nodes are opened.
pub type OpenMesh<'a> = &'a dyn Fn(usize) -> anyhow::Result<Mesh>;

pub fn publish(
    arguments: &PublishArguments,
    open: OpenMesh<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let point = Point::of("publish", arguments.size, &arguments.stream, arguments.rate);
    let axes = [Axis::Size, Axis::Keys, Axis::Rate];
    run(&arguments.stream, point, &axes, 2, &[], open, bar)
}

/// `relay`: the guest that each hop runs.
pub fn pipeline(
    arguments: &PipelineArguments,
    relay: &'static [u8],
    open: OpenMesh<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let point = Point::of("pipeline", arguments.size, &arguments.stream, arguments.rate);
    let point = Point { hops: arguments.hops.get(), ..point };
    let axes = [Axis::Hops, Axis::Size, Axis::Keys, Axis::Rate];
    run(&arguments.stream, point, &axes, 3, relay, open, bar)
}

pub fn fanout(
    arguments: &FanoutArguments,
    open: OpenMesh<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let point = Point::of("fanout", arguments.size, &arguments.stream, arguments.rate);
    let (readers, reading) = (arguments.taps.get(), arguments.nodes.get());
    let point = Point { readers, reading, ..point };
    let axes = [Axis::Readers, Axis::Size, Axis::Keys, Axis::Rate];
    run(&arguments.stream, point, &axes, 1 + usize::from(reading), &[], open, bar)
}

fn run(
    stream: &StreamArguments,
    point: Point,
    axes: &[Axis],
    nodes: usize,
    relay: &'static [u8],
    open: OpenMesh<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let points: Vec<Point> = match stream.sweep {
        None => vec![point],
        Some(Axis::All) => axes.iter().flat_map(|axis| point.along(*axis)).collect(),
        Some(axis) if axes.contains(&axis) => point.along(axis),
        Some(axis) => {
            return Err(WrongUsage(format!(
                "'{}' does not vary along {}: leave --sweep without a word for all that it has",
                point.scenario,
                format!("{axis:?}").to_lowercase()
            ))
            .into());
        }
    };
    // The driver holds a line for each key.
    let held = |point: &Point| point.keys as usize * (point.size + LINE_BYTES);
    if let Some(point) = points.iter().find(|point| held(point) > LINES_BYTES_MAX) {
        return Err(WrongUsage(format!(
            "{} keys with {} bytes each are more than the driver holds ({}): take fewer keys or smaller events",
            point.keys,
            point.size,
            bytes_text(LINES_BYTES_MAX as u64)
        ))
        .into());
    }
    let mesh = open(nodes)?;
    let mut bench = Bench { mesh, stream, relay, rows: Vec::new(), bar };
    for point in points {
        bench.point(point)?;
    }
    Ok(bench.rows)
}

impl Bench<'_> {
    fn point(&mut self, point: Point) -> anyhow::Result<()> {
        let rate = match point.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate.get() as f64),
            Rate::Percent(percent) => Some((self.sustainable(point)? * f64::from(percent) / 100.0).max(1.0)),
        };
        let row = self.measured(point, rate)?;
        self.rows.push(row);
        Ok(())
    }

    /// Events per second that the publisher gets rid of when back-pressure alone holds it up: measured in
    /// this run, unless a row has it already.
    fn sustainable(&mut self, point: Point) -> anyhow::Result<f64> {
        let p = |row: &Row| {
            (row.parameters.size, row.parameters.keys, row.parameters.hops, row.parameters.readers)
        };
        let wanted = self.parameters(point, None);
        let wanted = (wanted.size, wanted.keys, wanted.hops, wanted.readers);
        let known = |row: &&Row| row.parameters.rate.is_none() && p(row) == wanted;
        if self.rows.iter().find(known).is_none() {
            let row = self.measured(Point { rate: Rate::Max, ..point }, None)?;
            self.rows.push(row);
        }
        let row = self.rows.iter().find(known);
        Ok(row.map_or(1.0, |row| row.events_per_second / f64::from(point.readers)))
    }

    fn parameters(&self, point: Point, rate: Option<f64>) -> Parameters {
        Parameters {
            nodes: self.mesh.nodes(),
            size: Some(point.size),
            rate,
            keys: Some(point.keys),
            hops: (point.hops > 0).then_some(point.hops),
            readers: Some(point.readers),
            batch: None,
            actors: None,
        }
    }

    fn measured(&mut self, point: Point, rate: Option<f64>) -> anyhow::Result<Row> {
        let number = self.rows.len();
        let name = format!("bench-{}-{}-{number}", point.scenario, std::process::id());
        let text = manifest_text(&name, point, self.stream.durability.into(), self.mesh.is_own());
        let mut manifest = Manifest::from_toml(&text, "bench.toml")?;
        if point.hops > 0 {
            self.name_relay(&mut manifest)?;
        }
        let last = if point.hops > 0 { format!("hop{}", point.hops) } else { "in".to_string() };
        // Where the last function runs, or on other nodes than the publisher's.
        let node = |reader: u16| match point.hops {
            0 => 1 + usize::from(reader % point.reading.max(1)),
            hops => node_of_hop(hops),
        };
        let round = Round {
            scenario: point.scenario,
            source: "in".parse()?,
            stream: stream_name(&last).map_err(anyhow::Error::msg)?,
            manifest,
            readers: (0..point.readers).map(node).collect(),
            size: point.size,
            keys: point.keys,
            schedule: Schedule { rate, seconds: self.stream.seconds },
            parameters: self.parameters(point, rate),
        };
        measure(&mut self.mesh, &round, self.bar)
    }

    fn name_relay(&self, manifest: &mut Manifest) -> anyhow::Result<()> {
        let digest = Digest::of(self.relay);
        if !self.mesh.client.has_module(digest)? {
            self.mesh.client.put_module(self.relay)?;
        }
        for stage in manifest.stages.values_mut() {
            if let Operator::Wasm(wasm) = &mut stage.operator {
                wasm.module = Module::Digest(digest);
            }
        }
        Ok(())
    }
}

/// The first function runs beside no publisher, and no two in a row on one node: 1, 2, 1, 2…, counted from 0.
fn node_of_hop(hop: u16) -> usize {
    if hop % 2 == 1 { 1 } else { 2 }
}

fn manifest_text(name: &str, point: Point, durability: Durability, own: bool) -> String {
    // Functions without a key would run where their input is; an event without one would have none.
    let key = if point.keys > 0 { "k" } else { "n" };
    let keyed = point.keys > 0 || point.hops > 0;
    let mut text = format!("name = \"{name}\"\ndurability = \"{durability}\"\n\n[source.in]\n");
    if keyed {
        text.push_str(&format!("key = \"{key}\"\n"));
    }
    let mut before = "in".to_string();
    for hop in 1..=point.hops {
        let stage = format!("hop{hop}");
        text.push_str(&format!(
            "\n[stage.{stage}]\nfrom = [\"{before}\"]\nkey = \"{key}\"\nwasm = \"relay.wasm\"\n\n[placement.{stage}]\n\
             shares = 1\n"
        ));
        if own {
            text.push_str(&format!("labels = {{ bench = \"{}\" }}\n", node_of_hop(hop) + 1));
        }
        before = stage;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn manifests_of_all_points_are_valid_files() {
        for (hops, keys) in [(0, 0), (0, 5), (1, 0), (3, 0), (5, 7)] {
            let (size, rate) = (128, Rate::PerSecond(NonZeroU64::MIN));
            let point = Point { scenario: "pipeline", size, keys, rate, hops, readers: 1, reading: 1 };
            let manifest =
                Manifest::from_toml(&manifest_text("bench-x", point, Durability::Page, true), "b.toml")
                    .unwrap();
            assert_eq!((manifest.stages.len(), manifest.durability), (usize::from(hops), Durability::Page));
            dunlin_operators::check::check(&manifest).unwrap();
        }
        assert_eq!(node_of_hop(1), 1, "not on the publisher's node");
    }

    #[test]
    fn a_curve_varies_one_thing() {
        let rate = Rate::Max;
        let point = Point { scenario: "publish", size: 128, keys: 0, rate, hops: 0, readers: 1, reading: 1 };
        let sizes: Vec<usize> = point.along(Axis::Size).iter().map(|point| point.size).collect();
        assert_eq!(sizes, SIZES);
        let rates: Vec<Rate> = point.along(Axis::Rate).iter().map(|point| point.rate).collect();
        assert_eq!(rates, [Rate::Max, Rate::Percent(25), Rate::Percent(50), Rate::Percent(80)]);
    }
}
