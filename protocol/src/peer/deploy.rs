//! New revisions and removals: planned and placed once, by the node that takes the request; in the
//! catalog only when every node that gets an actor has its modules.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::questions::OnBehalf;
use super::{Peer, distinct};
use crate::actor::source::Asker;
use crate::effect::{Effect, Effects, Level};
use crate::id::{Digest, LogId, Name, NodeId, Seq};
use crate::limits::REQUESTS_MAX;
use crate::mesh::catalog::{CatalogEntry, Deployed, NodeFacts, Revision};
use crate::mesh::lineage::revision_digest;
use crate::mesh::revision::{Next, next_revision, removal};
use crate::mutation::{Mutation, planted};
use crate::pipeline::change::refuse_change;
use crate::pipeline::manifest::{Manifest, Module, Operator};
use crate::pipeline::plan::{Head, Home, Plan};
use crate::rpc::{ActorReport, FaultKind, Liveness, Response};
use crate::time::{Span, Time};
use crate::wire::message::{AskId, Message};

/// How long nodes may take to fetch a deploy's modules.
const MODULES_DEADLINE: Span = Span(30_000);
/// A module that did not come is asked for again after this long.
const FETCH_AGAIN: Span = Span(3_000);
/// How long a changed pipeline's nodes may take to take it before the deploy is answered all the same.
const TAKING_DEADLINE: Span = Span(20_000);

/// How long a revision that stands here waits for the connected members to hold it too, before it
/// is answered: whoever hears the answer may turn to any of them.
const TELL_WAIT: Span = Span(3_000);

/// A deploy or removal under way on the node that took it.
#[derive(Debug)]
pub(super) struct Deploying {
    asker: Asker,
    pipeline: Name,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Nodes are fetching modules.
    Modules { waiting: BTreeMap<AskId, (NodeId, Vec<Digest>)>, revision: Revision },
    /// Its record of this node's catalog log is on its way to disk.
    Written { seq: Seq, record: Digest, revision: Revision, until: Time },
    /// A changed pipeline: its nodes are asked until those that can be reached have taken it.
    Taking { record: Digest, revision: Digest, until: Time, asked: bool },
}

/// Another node (or this one) waits for modules here.
#[derive(Debug)]
pub(super) struct Wanted {
    from: NodeId,
    ask: AskId,
    digests: Vec<Digest>,
    deadline: Time,
}

impl Peer {
    pub(super) fn deploy(&mut self, asker: Asker, manifest: Manifest, effects: &mut Effects) {
        if self.busy_with(&manifest.name) {
            let why = format!("another deploy of '{}' is under way on this node; wait for it", manifest.name);
            return self.fail(asker, FaultKind::Conflict, why, effects);
        }
        if let Some((kind, why)) = self.speaks_of_no_facts() {
            return self.fail(asker, kind, why, effects);
        }
        if let Some(path) = unresolved_module(&manifest) {
            let why = format!(
                "the module '{path}' was not uploaded; deploy with `dunlin deploy`, or upload it first and name its digest"
            );
            return self.fail(asker, FaultKind::Invalid, why, effects);
        }
        if let Some(digest) = manifest.modules().into_iter().find(|digest| !self.modules.contains(digest)) {
            let why = format!("module {digest} is not on this node; upload it first (PUT /v1/modules)");
            return self.fail(asker, FaultKind::Invalid, why, effects);
        }
        let plan = Plan::of(&manifest);
        let pipeline = manifest.name.clone();
        let old = self.wiring.plan(&pipeline).cloned();
        let candidates = self.candidates();
        let tip = self.catalog.facts().tip(&pipeline);
        let living = tip.and_then(|tip| tip.deployed()).map(|deployed| &deployed.manifest);
        if let Some(Err(why)) = living.map(|living| refuse_change(living, &manifest)) {
            return self.fail(asker, FaultKind::Invalid, why, effects);
        }
        match next_revision(manifest, &plan, tip, old.as_deref(), &candidates, self.me) {
            Err(why) => self.fail(asker, FaultKind::Invalid, why, effects),
            Ok(Next::Unchanged(revision)) => {
                let actors = self.wiring.logs_of(&pipeline).count() as u32;
                self.answer(
                    asker,
                    Response::Deployed { pipeline, revision, changed: false, actors },
                    effects,
                );
            }
            Ok(Next::Revision(revision)) => {
                self.gather_modules(asker, pipeline, &plan, revision, &candidates, effects)
            }
        }
    }

    /// Why this node makes no fact now, if so: it may not know what stands, and would contradict it.
    pub(super) fn speaks_of_no_facts(&self) -> Option<(FaultKind, String)> {
        if self.may_write_catalog() {
            return None;
        }
        let why = "this node is still catching up with its own catalog; try again in a moment";
        Some((FaultKind::Busy { retry_after_ms: 500 }, String::from(why)))
    }

    pub(super) fn remove(&mut self, asker: Asker, pipeline: Name, effects: &mut Effects) {
        if self.busy_with(&pipeline) {
            let why = format!("a deploy of '{pipeline}' is under way on this node; wait for it");
            return self.fail(asker, FaultKind::Conflict, why, effects);
        }
        if let Some((kind, why)) = self.speaks_of_no_facts() {
            return self.fail(asker, kind, why, effects);
        }
        match self.catalog.facts().pipelines().get(&pipeline) {
            None => {
                let why = format!("there is no pipeline '{pipeline}' in this mesh; see `dunlin pipelines`");
                self.fail(asker, FaultKind::Unknown, why, effects);
            }
            Some(current) => {
                let revision = removal(current);
                self.write_revision(asker, pipeline, revision, effects);
            }
        }
    }

    fn busy_with(&self, pipeline: &Name) -> bool {
        self.deploys.values().any(|deploying| &deploying.pipeline == pipeline)
    }

    /// A member that can be reached. One that is connected and does not answer the others' probes is
    /// as good as away.
    pub(super) fn may_take_work(&self, node: NodeId) -> bool {
        let state = self.membership.members().get(&node);
        self.reachable(node) && state.is_none_or(|state| *state == Liveness::Alive)
    }

    /// The members that may be given work.
    pub(super) fn candidates(&self) -> BTreeMap<NodeId, NodeFacts> {
        let mut nodes: BTreeMap<NodeId, NodeFacts> = self
            .catalog
            .facts()
            .nodes()
            .iter()
            .filter(|(node, _)| self.may_take_work(**node))
            .map(|(node, facts)| (*node, facts.clone()))
            .collect();
        nodes.insert(self.me, self.own_facts.clone());
        nodes
    }

    fn gather_modules(
        &mut self,
        asker: Asker,
        pipeline: Name,
        plan: &Plan,
        revision: Revision,
        candidates: &BTreeMap<NodeId, NodeFacts>,
        effects: &mut Effects,
    ) {
        let Some(content) = &revision.content else { return };
        let wants = modules_by_node(plan, content, candidates);
        let number = self.fresh();
        let mut waiting = BTreeMap::new();
        for (node, digests) in wants {
            let deadline = self.now.after(MODULES_DEADLINE);
            let ask = self.expect_reply(node, OnBehalf::Deploy(number), deadline, effects);
            self.send(node, Message::WantModules { ask, digests: digests.clone() }, effects);
            waiting.insert(ask, (node, digests));
        }
        if waiting.is_empty() {
            return self.write_revision(asker, pipeline, revision, effects);
        }
        self.deploys.insert(number, Deploying { asker, pipeline, step: Step::Modules { waiting, revision } });
    }

    fn write_revision(&mut self, asker: Asker, pipeline: Name, revision: Revision, effects: &mut Effects) {
        let number = self.fresh();
        let reference = self.catalog.next_reference();
        let record = revision_digest(&revision, reference);
        let seq = reference.seq;
        self.append_fact(CatalogEntry::Revision(revision.clone()), effects);
        let until = self.now.after(TELL_WAIT);
        let step = Step::Written { seq, record, revision, until };
        self.deploys.insert(number, Deploying { asker, pipeline, step });
    }

    pub(super) fn on_modules(
        &mut self,
        node: NodeId,
        ask: AskId,
        missing: Vec<(Digest, String)>,
        effects: &mut Effects,
    ) {
        let Some(OnBehalf::Deploy(number)) = self.take_asked(node, ask) else { return };
        if let Some((digest, why)) = missing.first() {
            let why =
                format!("node {node} could not get module {digest}: {why}; nothing was deployed, try again");
            return self.end_deploy(number, why, effects);
        }
        let Some(Deploying { step: Step::Modules { waiting, .. }, .. }) = self.deploys.get_mut(&number)
        else {
            return;
        };
        waiting.remove(&ask);
        if !waiting.is_empty() {
            return;
        }
        if let Some(Deploying { asker, pipeline, step: Step::Modules { revision, .. } }) =
            self.deploys.remove(&number)
        {
            self.write_revision(asker, pipeline, revision, effects);
        }
    }

    /// A node did not say that it has its modules. One that went away meanwhile is planned without.
    pub(super) fn deploy_expired(&mut self, number: u64, node: NodeId, effects: &mut Effects) {
        if !self.may_take_work(node)
            && let Some(Deploying { asker, step: Step::Modules { revision, .. }, .. }) =
                self.deploys.remove(&number)
        {
            self.forget_asked(OnBehalf::Deploy(number));
            if let Some(content) = revision.content {
                self.deploy(asker, content.manifest, effects);
            }
            return;
        }
        let why = format!(
            "node {node} did not get the modules in time; nothing was deployed, try again when it can be reached"
        );
        self.end_deploy(number, why, effects);
    }

    fn end_deploy(&mut self, number: u64, why: String, effects: &mut Effects) {
        if let Some(deploying) = self.deploys.remove(&number) {
            self.fail(deploying.asker, FaultKind::Unavailable, why, effects);
        }
    }

    /// This node's catalog log grew, or a member told what it holds of it: deploys whose record
    /// stands, here and with all that are connected, are answered.
    pub(super) fn revisions_stand(&mut self, effects: &mut Effects) {
        let stands = self.catalog.heads().get(&self.me).map_or(Seq(0), |head| head.seq);
        let told = |seq: Seq| self.connected.iter().all(|peer| self.catalog.claim(peer) >= Some(seq));
        let is_done = |deploying: &Deploying| match &deploying.step {
            Step::Written { seq, until, .. } => *seq <= stands && (*until <= self.now || told(*seq)),
            Step::Modules { .. } | Step::Taking { .. } => false,
        };
        let done: Vec<u64> = self
            .deploys
            .iter()
            .filter(|(_, deploying)| is_done(deploying))
            .map(|(number, _)| *number)
            .collect();
        for number in done {
            let Some(Deploying { asker, pipeline, step: Step::Written { record, revision, .. } }) =
                self.deploys.remove(&number)
            else {
                continue;
            };
            self.rewire(effects);
            let before =
                revision.previous.and_then(|digest| self.catalog.facts().revision(&pipeline, &digest));
            let changes = before.is_some_and(|known| known.revision.content.is_some());
            if let Some(content) = revision.content.as_ref().filter(|_| changes) {
                let until = self.now.after(TAKING_DEADLINE);
                let step = Step::Taking { record, revision: content.digest, until, asked: false };
                self.deploys.insert(number, Deploying { asker, pipeline, step });
                self.ask_who_took(number, effects);
                continue;
            }
            let response = match revision.content {
                None => Response::Removed { pipeline },
                Some(content) => {
                    let actors = self.wiring.logs_of(&pipeline).count() as u32;
                    Response::Deployed { pipeline, revision: content.digest, changed: true, actors }
                }
            };
            self.answer(asker, response, effects);
        }
    }

    /// Deploys that wait for their nodes ask again.
    pub(super) fn repeat_taking(&mut self, effects: &mut Effects) {
        let waiting: Vec<u64> = self.deploys.keys().copied().collect();
        for number in waiting {
            self.ask_who_took(number, effects);
        }
    }

    fn ask_who_took(&mut self, number: u64, effects: &mut Effects) {
        let Some(Deploying { asker, pipeline, step: Step::Taking { record, asked, until, .. } }) =
            self.deploys.get_mut(&number)
        else {
            return;
        };
        let (asker, pipeline, record) = (*asker, pipeline.clone(), *record);
        let late = *until <= self.now;
        let ask = !core::mem::replace(asked, true);
        let tip = self.catalog.facts().tip(&pipeline);
        if tip.is_some_and(|tip| tip.superseded.iter().any(|known| known.digest == record)) {
            self.deploys.remove(&number);
            let why = format!(
                "another deploy of '{pipeline}', taken by a node that was cut off from this one, won over this one; look with `dunlin show {pipeline}` and deploy again if yours should run"
            );
            return self.fail(asker, FaultKind::Conflict, why, effects);
        }
        if late {
            // The revision stands: `show` tells who is still to take it.
            return self.taken(number, effects);
        }
        if ask {
            self.gather_taking(asker, number, pipeline, effects);
        }
    }

    /// The pipeline's nodes said what they run. Actors of nodes that cannot be reached hold nothing up.
    pub(super) fn on_taking(&mut self, number: u64, reports: &[ActorReport], effects: &mut Effects) {
        let Some(Deploying { pipeline, step: Step::Taking { asked, .. }, .. }) =
            self.deploys.get_mut(&number)
        else {
            return;
        };
        *asked = false;
        let pipeline = pipeline.clone();
        let begun: BTreeSet<LogId> = reports
            .iter()
            .filter(|report| report.status.epoch > 0)
            .map(|report| report.status.actor)
            .collect();
        // One that is connected and does not answer the others' probes is as good as away.
        let there = |node| self.reachable(node) && self.liveness(node) == Liveness::Alive;
        let all = self.wiring.logs_of(&pipeline).all(|(log, node)| !there(node) || begun.contains(&log));
        if all {
            self.taken(number, effects);
        }
    }

    fn taken(&mut self, number: u64, effects: &mut Effects) {
        if let Some(Deploying { asker, pipeline, step: Step::Taking { revision, .. } }) =
            self.deploys.remove(&number)
        {
            let actors = self.wiring.logs_of(&pipeline).count() as u32;
            self.answer(asker, Response::Deployed { pipeline, revision, changed: true, actors }, effects);
        }
    }

    pub(super) fn revisions_unwritten(&mut self, why: &str, effects: &mut Effects) {
        let waiting: Vec<u64> = self
            .deploys
            .iter()
            .filter(|(_, deploying)| matches!(deploying.step, Step::Written { .. }))
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            if let Some(deploying) = self.deploys.remove(&number) {
                let why = format!(
                    "this node's disk did not take the revision ({why}); it is tried again until it does, see `dunlin status`"
                );
                self.fail(deploying.asker, FaultKind::Storage, why, effects);
            }
        }
    }

    // --- modules ---

    pub(super) fn on_want_modules(
        &mut self,
        from: NodeId,
        ask: AskId,
        digests: Vec<Digest>,
        effects: &mut Effects,
    ) {
        let deadline = self.now.after(MODULES_DEADLINE);
        for digest in &digests {
            if !self.modules.contains(digest) {
                self.fetch_from(*digest, Some(from), effects);
            }
        }
        // Asked again, because the question or the answer was lost.
        let known = self.module_wants.iter().any(|wanted| (wanted.from, wanted.ask) == (from, ask));
        if !known && self.module_wants.len() < REQUESTS_MAX {
            self.module_wants.push(Wanted { from, ask, digests, deadline });
        }
        self.answer_wanted(effects);
    }

    pub(super) fn on_module_held(&mut self, digest: Digest, effects: &mut Effects) {
        self.modules.insert(digest);
        self.modules_asked.remove(&digest);
        self.answer_wanted(effects);
        if self.phase.is_open() {
            self.retry_openings(effects);
        }
    }

    pub(super) fn on_module_missing(&mut self, digest: Digest, why: &str, effects: &mut Effects) {
        self.modules.remove(&digest);
        self.report(Level::Warn, "module_missing", format!("module {digest}: {why}"), effects);
    }

    fn answer_wanted(&mut self, effects: &mut Effects) {
        let all = core::mem::take(&mut self.module_wants);
        for wanted in all {
            let late = wanted.deadline <= self.now;
            let missing: Vec<(Digest, String)> = wanted
                .digests
                .iter()
                .filter(|digest| !self.modules.contains(digest))
                .map(|digest| (*digest, String::from("no member gave bytes that match it")))
                .collect();
            if missing.is_empty() || late {
                self.send(wanted.from, Message::Modules { ask: wanted.ask, missing }, effects);
            } else {
                self.module_wants.push(wanted);
            }
        }
    }

    /// The modules of deploys under way, and those that other nodes wait for.
    pub(super) fn modules_under_way(&self) -> impl Iterator<Item = Digest> {
        let deploys = self.deploys.values().filter_map(|deploying| match &deploying.step {
            Step::Modules { revision, .. } | Step::Written { revision, .. } => revision.content.as_ref(),
            Step::Taking { .. } => None,
        });
        let wanted = self.module_wants.iter().flat_map(|wanted| wanted.digests.iter().copied());
        deploys.flat_map(|content| content.manifest.modules()).chain(wanted)
    }

    /// A module that an actor here needs: asked of every member in turn.
    pub(super) fn fetch_module(&mut self, digest: Digest, effects: &mut Effects) {
        self.fetch_from(digest, None, effects);
    }

    fn fetch_from(&mut self, digest: Digest, first: Option<NodeId>, effects: &mut Effects) {
        let asked = self.modules_asked.get(&digest);
        if asked.is_some_and(|at| self.now < at.after(FETCH_AGAIN)) {
            return;
        }
        let mut holders: Vec<NodeId> = first.into_iter().filter(|node| *node != self.me).collect();
        for node in distinct(self.connected.iter().copied()) {
            if !holders.contains(&node) {
                holders.push(node);
            }
        }
        self.modules_asked.insert(digest, self.now);
        effects.push(Effect::FetchModule { digest, holders });
    }

    pub(super) fn repeat_modules(&mut self, effects: &mut Effects) {
        let waiting = self.deploys.values().filter_map(|deploying| match &deploying.step {
            Step::Modules { waiting, .. } => Some(waiting),
            Step::Written { .. } | Step::Taking { .. } => None,
        });
        let unanswered: Vec<(AskId, NodeId, Vec<Digest>)> =
            waiting.flatten().map(|(ask, (node, digests))| (*ask, *node, digests.clone())).collect();
        for (ask, node, digests) in unanswered.into_iter().filter(|_| !planted(Mutation::AskModulesOnce)) {
            self.send(node, Message::WantModules { ask, digests }, effects);
        }
        let wanted: Vec<(Digest, NodeId)> = self
            .module_wants
            .iter()
            .flat_map(|wanted| wanted.digests.iter().map(|digest| (*digest, wanted.from)))
            .filter(|(digest, _)| !self.modules.contains(digest))
            .collect();
        for (digest, from) in wanted {
            self.fetch_from(digest, Some(from), effects);
        }
        self.answer_wanted(effects);
    }
}

fn unresolved_module(manifest: &Manifest) -> Option<&str> {
    manifest.stages.values().find_map(|stage| match &stage.operator {
        Operator::Wasm(spec) => match &spec.module {
            Module::Path(path) => Some(path.as_str()),
            Module::Digest(_) => None,
        },
        Operator::Filter(_)
        | Operator::Map(_)
        | Operator::Learn(_)
        | Operator::Forecast(_)
        | Operator::Anomaly(_) => None,
    })
}

/// Which modules each node must have: where a wasm unit is placed, or everywhere when it lives where
/// its input is.
fn modules_by_node(
    plan: &Plan,
    content: &Deployed,
    candidates: &BTreeMap<NodeId, NodeFacts>,
) -> BTreeMap<NodeId, Vec<Digest>> {
    let mut wants: BTreeMap<NodeId, Vec<Digest>> = BTreeMap::new();
    for unit in &plan.units {
        let Head::Wasm { spec, .. } = &unit.chain.head else { continue };
        let Module::Digest(digest) = &spec.module else { continue };
        let nodes: Vec<NodeId> = match &unit.home {
            Home::WithInput | Home::Entry(_) => candidates.keys().copied().collect(),
            Home::Shares(_) | Home::Single => content.placement.get(&unit.id).cloned().unwrap_or_default(),
        };
        // A node that is away gets them when it is back, before it takes the revision.
        for node in distinct(nodes).into_iter().filter(|node| candidates.contains_key(node)) {
            let digests = wants.entry(node).or_default();
            if !digests.contains(digest) {
                digests.push(*digest);
            }
        }
    }
    wants
}
