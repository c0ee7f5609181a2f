use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::mesh::assignment::Assignment;
use crate::mesh::catalog::{Catalog, CatalogEntry, NodeFacts, Revision};
use crate::mesh::lineage::revision_digest;
use crate::mesh::revision::{Next, next_revision};
use crate::mesh::samples::{catalog, name, node};
use crate::pipeline::manifest::Module;
use crate::pipeline::manifest::Operator;

const BASE: &str = "name = 'p'
[source.in]
[stage.some]
from = ['in']
filter = 'event.v > 1'
[stage.count]
from = ['some']
key = 'k'
wasm = 'x.wasm'
[stage.twice]
from = ['count']
map = { v = 'event.v * 2' }
[sink.out]
from = ['twice']
stdout = {}
[placement.count]
shares = 2
";

/// Three nodes, of which two deploy; everybody knows everything that was told.
struct Mesh {
    catalogs: [Catalog; 3],
    assignment: Assignment,
}

fn manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::from_toml(text, "p.toml").unwrap();
    for stage in manifest.stages.values_mut() {
        if let Operator::Wasm(spec) = &mut stage.operator {
            spec.module = Module::Digest(Digest([0; 32]));
        }
    }
    manifest
}

impl Mesh {
    fn new() -> Mesh {
        let mut mesh =
            Mesh { catalogs: [catalog(1), catalog(2), catalog(3)], assignment: Assignment::default() };
        for at in 0..3 {
            mesh.say(at, CatalogEntry::Node(NodeFacts { cores: 1, ..NodeFacts::default() }));
        }
        mesh
    }

    fn say(&mut self, at: usize, entry: CatalogEntry) -> CatalogRef {
        let reference = self.catalogs[at].next_reference();
        let record = self.catalogs[at].append(entry).unwrap();
        for catalog in &mut self.catalogs {
            catalog.on_records(reference.node, [record.clone()].to_vec()).unwrap();
            catalog.on_persisted(reference.node, record.seq);
        }
        self.assignment.refresh(self.catalogs[0].facts(), |manifest| Some(Plan::of(manifest)));
        reference
    }

    fn next(&self, text: &str, tip: Option<&Current>) -> Revision {
        let manifest = manifest(text);
        let facts = self.catalogs[0].facts();
        let old = tip.and_then(Current::deployed).map(|deployed| Plan::of(&deployed.manifest));
        let plan = Plan::of(&manifest);
        match next_revision(manifest, &plan, tip, old.as_ref(), facts.nodes(), node(1)).unwrap() {
            Next::Revision(revision) => revision,
            Next::Unchanged(_) => panic!("nothing new"),
        }
    }

    fn tip(&self) -> Option<Current> {
        self.catalogs[0].facts().tip(&name("p")).cloned()
    }

    /// Deploys on what stands.
    fn deploy(&mut self, at: usize, text: &str) {
        let revision = self.next(text, self.tip().as_ref());
        self.say(at, CatalogEntry::Revision(revision));
    }

    /// Both nodes deploy on the same revision, the second one again and again: it wins.
    fn rivals(&mut self, loser: &str, winner: &[&str]) {
        let mut tip = self.tip();
        let lost = self.next(loser, tip.as_ref());
        for text in winner {
            let revision = self.next(text, tip.as_ref());
            let reference = self.say(1, CatalogEntry::Revision(revision.clone()));
            let digest = revision_digest(&revision, reference);
            tip = Some(Current {
                revision: Arc::new(revision),
                reference,
                digest,
                earlier: Vec::new(),
                superseded: Vec::new(),
            });
        }
        self.say(0, CatalogEntry::Revision(lost));
    }

    fn layout(&self) -> &Layout {
        &self.assignment.pipelines()[&name("p")]
    }

    fn line(&self, unit: &str, share: usize) -> &Line {
        let mut lines: Vec<&Line> =
            self.layout().lines.iter().filter(|line| shown(&line.unit) == unit).collect();
        lines.sort_by_key(|line| (line.share, line.root));
        lines[share]
    }

    fn opened(&mut self, at: usize) {
        let entry = self.assignment.opening(&name("p"), &name("in")).unwrap();
        self.say(at, entry);
    }
}

fn shown(unit: &UnitId) -> String {
    format!("{:?} {}", unit.role, unit.name)
}

/// Where the wanted log stands among those that the line may have had, and of how many.
#[track_caller]
fn check(mesh: &Mesh, expect: &[(&str, usize, usize)]) {
    for (unit, at, of) in expect {
        let line = mesh.line(unit, 0);
        let wanted = line.logs.iter().position(|log| Some(log.id) == line.wanted);
        assert_eq!((wanted, line.logs.len()), (Some(*at), *of), "{unit}");
    }
}

#[test]
fn a_changed_unit_has_one_log_more_in_each_line_and_an_unchanged_one_goes_on() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    mesh.opened(0);
    mesh.opened(2);
    check(&mesh, &[("Source in", 0, 1), ("Behind in", 0, 1), ("Stage count", 0, 1), ("Sink out", 0, 1)]);
    mesh.deploy(1, &BASE.replace("event.v > 1", "event.v > 2"));
    check(&mesh, &[("Source in", 0, 1), ("Behind in", 1, 2), ("Stage count", 0, 1), ("Sink out", 0, 1)]);
    mesh.deploy(0, &BASE.replace("event.v * 2", "event.v * 3"));
    check(&mesh, &[("Behind in", 2, 3), ("Stage count", 1, 2), ("Sink out", 0, 1)]);
    // Every share and every node has its own line, on the same node as before.
    assert_eq!(mesh.layout().lines.iter().filter(|line| shown(&line.unit) == "Stage count").count(), 2);
    assert_eq!(mesh.layout().lines.iter().filter(|line| shown(&line.unit) == "Behind in").count(), 2);
}

#[test]
fn a_line_that_comes_late_begins_with_the_first_birth_all_the_same() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    mesh.opened(0);
    let first = mesh.line("Behind in", 0).first().unwrap().born;
    mesh.deploy(0, &BASE.replace("event.v > 1", "event.v > 2"));
    mesh.opened(2);
    for share in 0..2 {
        let line = mesh.line("Behind in", share);
        assert_eq!((line.first().unwrap().born, line.logs.len()), (first, 2));
    }
}

#[test]
fn rivals_have_their_logs_in_one_line_and_the_winner_is_wanted() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    let changed = |to: &str| BASE.replace("event.v * 2", to);
    mesh.rivals(&changed("event.v * 3"), &[&changed("event.v * 4"), &changed("event.v * 5")]);
    let line = mesh.line("Stage count", 0);
    assert_eq!(line.logs.len(), 4);
    let steps = |log: &Assigned| format!("{:?}", log.unit.chain.steps);
    assert!(steps(line.wanted().unwrap()).contains("event.v * 5"));
    assert!(line.logs.iter().any(|log| steps(log).contains("event.v * 3")));
    // Nobody but the sink reads them, and it reads all of them.
    let sink = mesh.line("Sink out", 0).wanted().unwrap().clone();
    for log in &line.logs {
        assert!(mesh.layout().inputs(&sink, log).is_some());
        assert_eq!(mesh.layout().readers(log).map(|reader| reader.id).collect::<Vec<_>>(), [sink.id]);
    }
}

#[test]
fn a_closed_log_that_is_wanted_again_gets_another_in_its_place() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    let line = mesh.line("Stage count", 0);
    let (home, wanted, born) = (line.node, line.wanted.unwrap(), line.first().unwrap().born);
    let reborn = CatalogEntry::Reborn { pipeline: name("p"), log: wanted, born };
    let home = (0..3).find(|at| node(*at as u8 + 1) == home).unwrap();
    // Only the node that holds the line may say so.
    mesh.say((home + 1) % 3, reborn.clone());
    check(&mesh, &[("Stage count", 0, 1)]);
    mesh.say(home, reborn);
    check(&mesh, &[("Stage count", 1, 2)]);
    let again = mesh.line("Stage count", 0).wanted().unwrap().clone();
    mesh.say(home, CatalogEntry::Reborn { pipeline: name("p"), log: again.id, born });
    check(&mesh, &[("Stage count", 2, 3)]);
    assert_eq!(
        mesh.assignment.fate(&again.name, mesh.catalogs[0].facts()),
        crate::mesh::assignment::Fate::Held
    );
}

#[test]
fn a_reader_of_another_stream_takes_what_is_left_of_the_old_one() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    mesh.opened(0);
    let between = BASE.replace(
        "[stage.count]\nfrom = ['some']",
        "[stage.more]\nfrom = ['some']\nfilter = 'event.v > 5'\n[stage.count]\nfrom = ['more']",
    );
    mesh.deploy(0, &between);
    let count = mesh.line("Stage count", 0).wanted().unwrap().clone();
    let behind = mesh.line("Behind in", 0);
    let streams: Vec<Vec<String>> = behind
        .logs
        .iter()
        .map(|log| {
            let inputs = mesh.layout().inputs(&count, log).unwrap();
            let outputs = inputs.keys().map(|output| &log.unit.chain.outputs[usize::from(*output)]);
            outputs.map(|output| output.stream.to_string()).collect()
        })
        .collect();
    assert_eq!(streams, [["some"], ["more"]]);
}

#[test]
fn a_stage_that_was_removed_and_came_back_is_another_one() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    let first = mesh.line("Sink out", 0).wanted;
    let without = BASE.replace("[sink.out]\nfrom = ['twice']\nstdout = {}\n", "");
    mesh.deploy(0, &without);
    assert_eq!((mesh.line("Sink out", 0).wanted, mesh.line("Sink out", 0).read), (None, false));
    mesh.deploy(0, BASE);
    let lines: Vec<&Line> =
        mesh.layout().lines.iter().filter(|line| shown(&line.unit) == "Sink out").collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.logs.len() == 1));
    assert!(lines.iter().any(|line| line.wanted.is_some() && line.wanted != first));
}

#[test]
fn a_tail_reads_every_log_that_ever_carried_the_stream() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    mesh.opened(0);
    let moved = BASE.replace("from = ['count']\nmap", "from = ['some']\nmap");
    let stream = StreamName { base: name("twice"), side: None };
    let carrying = |mesh: &Mesh| -> Vec<String> {
        let mut units: Vec<String> =
            mesh.layout().lines_of_stream(&stream).map(|line| shown(&line.unit)).collect();
        units.dedup();
        units
    };
    assert_eq!(carrying(&mesh), ["Stage count"]);
    mesh.deploy(0, &moved);
    let mut units = carrying(&mesh);
    units.sort();
    assert_eq!(units, ["Behind in", "Stage count"]);
}
