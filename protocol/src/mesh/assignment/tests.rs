use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::*;
use crate::mesh::catalog::{Catalog, CatalogRef, NodeFacts, Share};
use crate::mesh::revision::{Next, next_revision, removal};
use crate::mesh::samples::{catalog, manifest, name, node, unit};
use crate::pipeline::manifest::{Connector, Source, StreamName};
use crate::pipeline::plan::{Head, Unit, UnitInput};
use crate::time::Span;

/// A node that deploys on a mesh of three, and the plan that stands.
struct Mesh {
    catalogs: [Catalog; 3],
    plan: Plan,
    /// By the number of their deploy, which stands in the manifest's retention.
    plans: BTreeMap<u64, Plan>,
    deploys: u64,
    assignment: Assignment,
}

fn source(connector: Connector) -> Unit {
    let mut unit =
        unit("quotes", Home::Entry(Source { key: None, time: None, lateness: Span(0), connector }));
    unit.id.role = Role::Source;
    unit
}

fn behind(of: &Unit, stage: &str, home: Home, role: Role) -> Unit {
    let mut unit = unit(stage, home);
    unit.id.role = role;
    let stream = StreamName { base: of.id.name.clone(), side: None };
    unit.inputs = vec![UnitInput { unit: of.id.clone(), output: 0, stream }];
    unit
}

fn fare_watch(connector: Connector) -> Plan {
    let quotes = source(connector);
    let clean = behind(&quotes, "clean", Home::WithInput, Role::Behind);
    let outlook = behind(&clean, "outlook", Home::Shares(Some(2)), Role::Stage);
    let sink = behind(&outlook, "archive", Home::Single, Role::Sink);
    Plan { units: vec![quotes, clean, outlook, sink] }
}

impl Mesh {
    fn of(connector: Connector) -> Mesh {
        let mut mesh = Mesh {
            catalogs: [catalog(1), catalog(2), catalog(3)],
            plan: fare_watch(connector),
            plans: BTreeMap::new(),
            deploys: 0,
            assignment: Assignment::default(),
        };
        for at in 0..3 {
            mesh.say(at, CatalogEntry::Node(NodeFacts { cores: 1, ..NodeFacts::default() }));
        }
        mesh
    }

    /// Node `at` appends, everybody persists.
    fn say(&mut self, at: usize, entry: CatalogEntry) {
        let writer = self.catalogs[at].next_reference().node;
        let record = self.catalogs[at].append(entry).unwrap();
        for catalog in &mut self.catalogs {
            catalog.on_records(writer, vec![record.clone()]).unwrap();
            catalog.on_persisted(writer, record.seq);
        }
        let plans = &self.plans;
        self.assignment
            .refresh(self.catalogs[0].facts(), |manifest| plans.get(&manifest.retention.bytes).cloned());
    }

    fn next(&mut self, plan: Plan) -> CatalogEntry {
        let facts = self.catalogs[0].facts();
        self.deploys += 1;
        let mut manifest = manifest("p");
        manifest.retention.bytes = self.deploys;
        let tip = facts.tip(&name("p"));
        let next = next_revision(manifest, &plan, tip, Some(&self.plan), facts.nodes(), node(1)).unwrap();
        self.plan = plan.clone();
        self.plans.insert(self.deploys, plan);
        let Next::Revision(revision) = next else { panic!("nothing new") };
        CatalogEntry::Revision(revision)
    }

    fn deploy(&mut self, plan: Plan) {
        let entry = self.next(plan);
        self.say(0, entry);
    }

    fn open(&mut self, at: usize) {
        let entry = self.assignment.opening(&name("p"), &name("quotes")).unwrap();
        self.say(at, entry);
    }

    fn facts(&self) -> &Facts {
        self.catalogs[0].facts()
    }

    fn who(&self, id: &LogId) -> String {
        let log = self.assignment.log(id).unwrap();
        let at = (1..=3).find(|n| node(*n) == log.node).unwrap();
        match log.share {
            Share::Node(_) => format!("{}@{at}", log.unit.id.name),
            Share::Slots { index, .. } => format!("{}/{index}", log.unit.id.name),
        }
    }
}

/// The logs to be written that this one's actor reads.
fn upstreams(mesh: &Mesh, log: &Assigned) -> Vec<Arc<Assigned>> {
    let layout = mesh.assignment.layout_of(log).unwrap();
    let read = layout.read_by(log).filter_map(Line::wanted);
    read.filter(|upper| layout.inputs(log, upper).is_some()).cloned().collect()
}

#[track_caller]
fn check(mesh: &Mesh, expect: &[(&str, &str)]) {
    let mut seen: Vec<(String, String)> = Vec::new();
    for log in mesh.assignment.all_logs(&name("p")) {
        let mut reads: Vec<String> = upstreams(mesh, log).iter().map(|up| mesh.who(&up.id)).collect();
        reads.sort();
        seen.push((mesh.who(&log.id), reads.join(" ")));
        for upper in upstreams(mesh, log) {
            let layout = mesh.assignment.layout_of(&upper).unwrap();
            assert!(layout.readers(&upper).any(|reader| reader.id == log.id));
        }
    }
    let seen: Vec<(&str, &str)> = seen.iter().map(|(log, reads)| (log.as_str(), reads.as_str())).collect();
    assert_eq!(seen, expect);
}

#[test]
fn logs_appear_where_events_enter_and_every_share_reads_them_all() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    mesh.deploy(plan);
    check(&mesh, &[("outlook/0", ""), ("outlook/1", ""), ("archive/0", "outlook/0 outlook/1")]);
    mesh.open(0);
    mesh.open(2);
    let mut expect = vec![
        ("quotes@1", ""),
        ("quotes@3", ""),
        ("clean@1", "quotes@1"),
        ("clean@3", "quotes@3"),
        ("outlook/0", "clean@1 clean@3"),
        ("outlook/1", "clean@1 clean@3"),
        ("archive/0", "outlook/0 outlook/1"),
    ];
    // Sources stand in the order of their nodes' keys.
    if node(3) < node(1) {
        expect.swap(0, 1);
        expect.swap(2, 3);
    }
    check(&mesh, &expect);
    assert!(mesh.assignment.lines_on(node(3)).count() >= 2);
    assert!(mesh.assignment.source_log(&node(3), &name("p"), &name("quotes")).is_some());
    assert!(mesh.assignment.source_log(&node(2), &name("p"), &name("quotes")).is_none());
}

#[test]
fn a_file_source_is_opened_by_the_taker_and_a_host_source_by_all() {
    let file = Connector::File { path: "f".into(), pace: crate::pipeline::manifest::Pace::Fast };
    for (connector, owing) in [(file, 1), (Connector::Host { every: Span(1000) }, 3), (Connector::Publish, 0)]
    {
        let mut mesh = Mesh::of(connector);
        let plan = mesh.plan.clone();
        mesh.deploy(plan);
        let due: Vec<usize> =
            (1..=3).map(|n| mesh.assignment.openings_due(&node(n), mesh.facts()).len()).collect();
        assert_eq!(due.iter().sum::<usize>(), owing);
        if owing > 0 {
            assert_eq!(due[0], 1);
            mesh.open(0);
            assert_eq!(mesh.assignment.openings_due(&node(1), mesh.facts()), vec![]);
        }
    }
}

#[test]
fn an_unchanged_stage_keeps_its_logs_and_a_changed_one_gets_one_more() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    mesh.deploy(plan.clone());
    mesh.open(0);
    let before: Vec<Arc<Assigned>> = mesh.assignment.all_logs(&name("p")).to_vec();
    let mut changed = plan;
    changed.units[2].chain.head = Head::Pass;
    mesh.deploy(changed);
    let after = mesh.assignment.all_logs(&name("p"));
    for (old, new) in before.iter().zip(after) {
        let line = mesh.assignment.line_of(&old.id).unwrap();
        assert_eq!((line.first().map(|log| log.id), line.wanted), (Some(old.id), Some(new.id)));
        assert_eq!(old.id != new.id, old.unit.id.name == name("outlook"));
        assert_eq!(mesh.assignment.fate(&old.name, mesh.facts()), Fate::Held);
        assert_eq!(old.node, new.node);
    }
}

#[test]
fn a_changed_source_is_opened_anew_where_it_was_open() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    mesh.deploy(plan.clone());
    mesh.open(0);
    let old = mesh.assignment.all_logs(&name("p"))[0].clone();
    let mut changed = plan;
    let Home::Entry(source) = &mut changed.units[0].home else { panic!("a source") };
    source.lateness = Span(1);
    mesh.deploy(changed);
    let standing = |mesh: &Mesh| mesh.assignment.log(&old.id).map(|log| log.standing);
    assert_eq!(standing(&mesh), Some(Standing::ReadOnly));
    assert!(mesh.assignment.source_log(&node(1), &name("p"), &name("quotes")).is_none());
    let due = |n| mesh.assignment.openings_due(&node(n), mesh.facts()).len();
    assert_eq!((due(1), due(2)), (1, 0));
    mesh.open(0);
    let line = mesh.assignment.line_of(&old.id).unwrap();
    assert_eq!(line.logs.len(), 2);
    let clean = mesh.assignment.all_logs(&name("p")).iter().find(|log| log.unit.id.name == name("clean"));
    let read = mesh.assignment.layout_of(&old).unwrap().inputs(clean.unwrap(), &old);
    assert_eq!(read, Some(BTreeMap::from([(0, 0)])));
}

#[test]
fn a_removed_pipelines_logs_may_go_and_come_back_under_new_names() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    mesh.deploy(plan.clone());
    mesh.open(0);
    let before = mesh.assignment.all_logs(&name("p")).to_vec();
    let end = removal(mesh.facts().tip(&name("p")).unwrap());
    mesh.say(0, CatalogEntry::Revision(end));
    assert!(mesh.assignment.pipelines().is_empty());
    let gone =
        |mesh: &Mesh| before.iter().all(|log| mesh.assignment.fate(&log.name, mesh.facts()) == Fate::Removed);
    assert!(gone(&mesh));
    mesh.deploy(plan);
    mesh.open(0);
    assert!(gone(&mesh));
    assert_eq!(mesh.assignment.all_logs(&name("p")).len(), before.len());
}

#[test]
fn the_losers_logs_stay_and_its_source_logs_are_read() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    // Two first deploys that do not know of each other; the one with a follower wins.
    let loser = mesh.next(plan.clone());
    let winner = mesh.next(plan.clone());
    mesh.say(1, loser);
    mesh.open(1);
    let old = mesh.assignment.all_logs(&name("p")).to_vec();
    let at = mesh.catalogs[0].next_reference();
    mesh.say(0, winner.clone());
    let CatalogEntry::Revision(first) = winner else { panic!("a revision") };
    let mut second = first.clone();
    second.previous = Some(crate::mesh::lineage::revision_digest(&first, at));
    second.height = 1;
    mesh.say(0, CatalogEntry::Revision(second));
    for log in &old {
        let line = mesh.assignment.line_of(&log.id).unwrap();
        assert_eq!(mesh.assignment.fate(&log.name, mesh.facts()), Fate::Held);
        assert_ne!(line.wanted, Some(log.id));
        // They began with another deploy: nothing of them is taken over but what sources took.
        assert_eq!(line.read, log.unit.id.role == Role::Source);
    }
}

#[test]
fn an_unknown_birth_is_left_alone() {
    let mut mesh = Mesh::of(Connector::Publish);
    let plan = mesh.plan.clone();
    mesh.deploy(plan);
    let log = mesh.assignment.all_logs(&name("p"))[0].clone();
    let LogName::Actor { pipeline, unit, share, .. } = log.name.clone() else { panic!("an actor") };
    let born = CatalogRef { node: node(9), seq: crate::id::Seq(1) };
    let stranger = LogName::Actor { pipeline, born, unit, share };
    assert_eq!(mesh.assignment.fate(&stranger, mesh.facts()), Fate::Unknown);
}
