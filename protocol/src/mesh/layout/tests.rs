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

// --- nodes that were given up ---

fn index_of(of: NodeId) -> usize {
    (0..3).find(|at| node(*at as u8 + 1) == of).unwrap()
}

impl Mesh {
    /// Gives the node up, as this other one says; all that stood there goes to `heir`.
    fn give_up(&mut self, at: usize, gone: NodeId, heir: NodeId) -> CatalogRef {
        let removal = crate::mesh::catalog::Removal { others: [heir].to_vec(), ..Default::default() };
        self.say(at, CatalogEntry::NodeRemoved { node: gone, removal })
    }

    fn due(&self, at: usize) -> Vec<CatalogEntry> {
        self.assignment.openings_due(&node(at as u8 + 1), self.catalogs[0].facts())
    }

    /// Every node says what it owes.
    fn settle(&mut self) {
        for at in 0..3 {
            for entry in self.due(at) {
                self.say(at, entry);
            }
        }
    }

    /// The lines that are written, by unit and node.
    fn written(&self, unit: &str) -> Vec<(Share, NodeId)> {
        let lines = self.layout().lines.iter().filter(|line| shown(&line.unit) == unit);
        lines.filter(|line| line.wanted.is_some()).map(|line| (line.share, line.node)).collect()
    }
}

#[test]
fn a_share_of_a_node_that_was_given_up_starts_anew_on_another_in_a_new_log() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    (0..3).for_each(|at| mesh.opened(at));
    let dead = mesh.line("Stage count", 0).clone();
    let others: Vec<usize> = (0..3).filter(|at| *at != index_of(dead.node)).collect();
    let heir = node(others[0] as u8 + 1);
    mesh.give_up(others[1], dead.node, heir);

    // Nobody writes it until its new node has said so, and only that one owes it.
    assert!(mesh.written("Stage count").iter().all(|(share, _)| *share != dead.share));
    assert_eq!(mesh.due(others[1]), []);
    let wants = CatalogEntry::Reborn { pipeline: name("p"), log: dead.logs[0].id, born: dead.logs[0].born };
    assert!(mesh.due(others[0]).contains(&wants));
    mesh.settle();
    assert!(mesh.written("Stage count").contains(&(dead.share, heir)));
    assert!(mesh.written("Source in").iter().all(|(_, node)| *node != dead.node));
    assert!(mesh.written("Behind in").iter().all(|(_, node)| *node != dead.node));

    // No log has two writers, and readers have both lines: what is left of the dead one, and the new one.
    let layout = mesh.layout();
    let mut ids: Vec<LogId> = layout.lines.iter().flat_map(|line| &line.logs).map(|log| log.id).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
    let sink = layout.logs.iter().find(|log| shown(&log.unit.id) == "Sink out").unwrap();
    let read: Vec<(NodeId, bool)> = layout
        .read_by(sink)
        .filter(|line| line.share == dead.share)
        .map(|line| (line.node, line.gone))
        .collect();
    assert!(read.contains(&(dead.node, true)) && read.contains(&(heir, false)), "{read:?}");
    // A writer waits for the new actor, and not for the dead one.
    let new = layout.logs.iter().find(|log| log.share == dead.share && log.node == heir);
    let new = new.filter(|log| shown(&log.unit.id) == "Stage count").unwrap();
    let behind = layout.logs.iter().find(|log| shown(&log.unit.id) == "Behind in").unwrap();
    let readers: Vec<LogId> = layout.readers(behind).map(|reader| reader.id).collect();
    assert!(readers.contains(&new.id) && !readers.contains(&dead.logs[0].id));
    // A tail does not wait for it either.
    let stream = StreamName { base: name("twice"), side: None };
    assert!(layout.lines_of_stream(&stream).all(|line| !line.gone));
}

#[test]
fn a_deploy_behind_a_removal_changes_the_new_line() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    let dead = mesh.line("Stage count", 0).clone();
    let heir = (index_of(dead.node) + 1) % 3;
    mesh.give_up((heir + 1) % 3, dead.node, node(heir as u8 + 1));
    mesh.settle();
    let key = |line: &&Line| shown(&line.unit) == "Stage count" && line.share == dead.share && !line.gone;
    let first = mesh.layout().lines.iter().find(key).unwrap().clone();
    mesh.deploy(0, &BASE.replace("event.v * 2", "event.v * 3"));
    mesh.settle();
    let line = mesh.layout().lines.iter().find(key).unwrap();
    assert_eq!((line.logs.len(), line.first().unwrap().id), (2, first.logs[0].id));
    assert_eq!(line.wanted, Some(line.logs[1].id));
    // Removed and deployed anew, it has no trace of the dead node.
    let end = crate::mesh::revision::removal(&mesh.tip().unwrap());
    mesh.say(0, CatalogEntry::Revision(end));
    assert_eq!(
        mesh.assignment.fate(&line_name(&first), mesh.catalogs[0].facts()),
        crate::mesh::assignment::Fate::Removed
    );
}

fn line_name(line: &Line) -> LogName {
    line.logs[0].name.clone()
}

#[test]
fn of_two_who_give_a_node_up_one_counts_whatever_the_order() {
    let mut written = Vec::new();
    for turn in [false, true] {
        let mut mesh = Mesh::new();
        mesh.deploy(0, BASE);
        let dead = mesh.line("Stage count", 0).clone();
        let gone = index_of(dead.node);
        let (a, b) = ((gone + 1) % 3, (gone + 2) % 3);
        let order = if turn { [(a, a), (b, b)] } else { [(b, b), (a, a)] };
        for (at, heir) in order {
            mesh.give_up(at, dead.node, node(heir as u8 + 1));
            // Each side begins at once; one of them in vain.
            mesh.settle();
        }
        let homes: Vec<NodeId> = mesh
            .written("Stage count")
            .into_iter()
            .filter(|(share, _)| *share == dead.share)
            .map(|(_, node)| node)
            .collect();
        assert_eq!(homes.len(), 1);
        written.extend(homes);
    }
    assert_eq!(written[0], written[1]);
}

#[test]
fn who_takes_over_may_be_given_up_in_turn() {
    let mut mesh = Mesh::new();
    mesh.deploy(0, BASE);
    let dead = mesh.line("Stage count", 0).clone();
    let gone = index_of(dead.node);
    let (a, b) = ((gone + 1) % 3, (gone + 2) % 3);
    let ids = |at: usize| node(at as u8 + 1);
    mesh.give_up(b, ids(gone), ids(a));
    mesh.settle();
    mesh.give_up(b, ids(a), ids(b));
    mesh.settle();
    let homes = mesh.written("Stage count");
    assert!(homes.len() == 2 && homes.iter().all(|(_, node)| *node == ids(b)), "{homes:?}");
}

#[test]
fn two_sides_of_a_cut_that_give_each_other_up_leave_their_shares_to_who_is_left() {
    for anybody in [true, false] {
        let mut mesh = Mesh::new();
        mesh.deploy(0, BASE);
        let dead = mesh.line("Stage count", 0).clone();
        let gone = index_of(dead.node);
        let (a, b) = ((gone + 1) % 3, (gone + 2) % 3);
        let ids = |at: usize| node(at as u8 + 1);
        let give_up = |mesh: &mut Mesh, it: usize, heirs: &[usize]| {
            let others = heirs.iter().map(|at| ids(*at)).collect();
            let removal = crate::mesh::catalog::Removal { others, ..Default::default() };
            mesh.say(b, CatalogEntry::NodeRemoved { node: ids(it), removal });
            mesh.settle();
        };
        // Each side names the other's node, and one of them the third.
        let third: &[usize] = if anybody { &[b] } else { &[] };
        give_up(&mut mesh, gone, &[a]);
        give_up(&mut mesh, a, &[&[gone], third].concat());
        let facts = mesh.catalogs[0].facts();
        for at in [gone, a] {
            let left = facts.heir(&ids(at), &name("p"), &dead.unit, dead_share(&dead));
            assert_eq!(left, anybody.then_some(ids(b)));
        }
        if anybody {
            let homes = mesh.written("Stage count");
            assert!(homes.len() == 2 && homes.iter().all(|(_, node)| *node == ids(b)), "{homes:?}");
        }
    }
}

fn dead_share(line: &Line) -> u16 {
    match line.share {
        Share::Slots { index, .. } => index,
        _ => panic!("{line:?} has no slots"),
    }
}
