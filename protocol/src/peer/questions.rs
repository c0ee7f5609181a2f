//! Clients' questions. Many are answered from several nodes: asked in parallel, gathered, and
//! answered when all have spoken or the deadline has passed; who is missing is said.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::letters::{first_letters, moved_letters};
use super::{Peer, distinct};
use crate::actor::source::Asker;
use crate::effect::{Effect, Effects, LookId, RequestId, Timer};
use crate::id::{LetterId, Name, NodeId, slot_of};
use crate::limits::{ASK_DEADLINE, REQUESTS_MAX};
use crate::mesh::catalog::Share;
use crate::rpc::{
    ActorReport, DeadLetterStatus, Fault, FaultKind, LettersMoved, Question, Reply, Request, Response,
};
use crate::time::Time;
use crate::wire::message::{AskId, Message};

/// A question under way to one node, on behalf of an asker or of a gathering.
#[derive(Debug)]
pub(super) struct Asked {
    node: NodeId,
    on_behalf: OnBehalf,
    deadline: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnBehalf {
    /// The reply is the answer.
    One(Asker),
    Gather(u64),
    Deploy(u64),
}

/// Replies that come together.
#[derive(Debug)]
pub(super) struct Gather {
    asker: Asker,
    wants: Wants,
    waiting: BTreeSet<AskId>,
    reports: Vec<ActorReport>,
    entries: Vec<(String, Bytes)>,
    letters: Vec<DeadLetterStatus>,
    moved: LettersMoved,
    /// Nodes that did not answer.
    silent: Vec<NodeId>,
    /// What the first node that answered with a fault said.
    refused: Option<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wants {
    Nodes,
    Pipelines,
    Show(Name),
    State(u32),
    DeadLetters(u32),
    /// Who has taken a changed pipeline: for the deploy of this number.
    Taking(u64),
    LettersMoved(Option<LetterId>),
}

impl Peer {
    pub(super) fn on_request(&mut self, id: RequestId, request: Request, effects: &mut Effects) {
        let asker = Asker::Client(id);
        if !self.phase.is_open() && !matches!(request, Request::Status) {
            let (kind, why) = self.not_open_yet();
            return self.fail(asker, kind, why, effects);
        }
        if self.gathers.len() + self.asks.len() >= REQUESTS_MAX {
            let why = "this node answers as many questions as it can; try again in a moment";
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 500 }, why, effects);
        }
        match request {
            Request::Status => {
                let status = Response::Status(self.status());
                self.answer(asker, status, effects);
            }
            Request::Nodes => self.gather_actors(asker, Wants::Nodes, None, effects),
            Request::Pipelines => self.gather_actors(asker, Wants::Pipelines, None, effects),
            Request::Show { pipeline } => {
                if self.known_pipeline(asker, &pipeline, effects) {
                    self.gather_actors(asker, Wants::Show(pipeline.clone()), Some(pipeline), effects);
                }
            }
            Request::Deploy { manifest } => self.deploy(asker, manifest, effects),
            Request::Remove { pipeline } => self.remove(asker, pipeline, effects),
            Request::RemoveNode { node } => self.remove_node(asker, node, effects),
            Request::GivenUp { pipeline } => {
                let given_up = Response::GivenUp(self.given_up(pipeline.as_ref(), None));
                self.answer(asker, given_up, effects);
            }
            Request::RotateTokens { salt } => self.rotate_tokens(asker, salt, effects),
            Request::Publish(publish) => self.publish(asker, publish, effects),
            Request::Tail(tail) => self.open_tap(id, tail, effects),
            Request::State { pipeline, stage, key, limit } => {
                self.ask_state(asker, &pipeline, &stage, key, limit, effects)
            }
            Request::DeadLetters { pipeline, letter, limit } => {
                let question = Question::DeadLetters { pipeline: pipeline.clone(), letter, limit };
                self.ask_for_letters(asker, &pipeline, question, Wants::DeadLetters(limit), effects);
            }
            Request::MoveLetters { pipeline, letter, does } => {
                let question = Question::MoveLetters { pipeline: pipeline.clone(), letter, does };
                self.ask_for_letters(asker, &pipeline, question, Wants::LettersMoved(letter), effects);
            }
        }
    }

    pub(super) fn known_pipeline(&mut self, asker: Asker, pipeline: &Name, effects: &mut Effects) -> bool {
        let known = self.wiring.manifest(pipeline).is_some();
        if !known {
            let why = format!("there is no pipeline '{pipeline}' in this mesh; see `dunlin pipelines`");
            self.fail(asker, FaultKind::Unknown, why, effects);
        }
        known
    }

    // --- asking ---

    pub(super) fn ask(
        &mut self,
        node: NodeId,
        question: Question,
        on_behalf: OnBehalf,
        effects: &mut Effects,
    ) -> AskId {
        let ask = AskId(self.fresh());
        let deadline = self.now.after(ASK_DEADLINE);
        self.asks.insert(ask, Asked { node, on_behalf, deadline });
        effects.push(Effect::SetTimer { timer: Timer::Ask, at: deadline });
        self.send(node, Message::Ask { ask, question }, effects);
        ask
    }

    /// For what is asked in another message than `Ask`.
    pub(super) fn expect_reply(
        &mut self,
        node: NodeId,
        on_behalf: OnBehalf,
        deadline: Time,
        effects: &mut Effects,
    ) -> AskId {
        let ask = AskId(self.fresh());
        self.asks.insert(ask, Asked { node, on_behalf, deadline });
        effects.push(Effect::SetTimer { timer: Timer::Ask, at: deadline });
        ask
    }

    pub(super) fn take_asked(&mut self, node: NodeId, ask: AskId) -> Option<OnBehalf> {
        let known = self.asks.get(&ask).is_some_and(|asked| asked.node == node);
        if known { self.asks.remove(&ask).map(|asked| asked.on_behalf) } else { None }
    }

    /// Replies on this behalf are not waited for any more.
    pub(super) fn forget_asked(&mut self, on_behalf: OnBehalf) {
        self.asks.retain(|_, asked| asked.on_behalf != on_behalf);
    }

    pub(super) fn ask_one(&mut self, asker: Asker, node: NodeId, question: Question, effects: &mut Effects) {
        if !self.reachable(node) {
            let why = format!(
                "node {node} holds what is asked for and cannot be reached now; try again when it is back"
            );
            return self.fail(asker, FaultKind::Unavailable, why, effects);
        }
        self.ask(node, question, OnBehalf::One(asker), effects);
    }

    pub(super) fn gather(
        &mut self,
        asker: Asker,
        wants: Wants,
        questions: Vec<(NodeId, Question)>,
        effects: &mut Effects,
    ) {
        let number = self.fresh();
        let gather = Gather {
            asker,
            wants,
            waiting: BTreeSet::new(),
            reports: Vec::new(),
            entries: Vec::new(),
            letters: Vec::new(),
            moved: LettersMoved::default(),
            silent: Vec::new(),
            refused: None,
        };
        self.gathers.insert(number, gather);
        for (node, question) in questions {
            if !self.reachable(node) {
                if let Some(gather) = self.gathers.get_mut(&number) {
                    gather.silent.push(node);
                    gather.moved.missed.push((node, "it cannot be reached now".to_string()));
                }
                continue;
            }
            let ask = self.ask(node, question, OnBehalf::Gather(number), effects);
            if let Some(gather) = self.gathers.get_mut(&number) {
                gather.waiting.insert(ask);
            }
        }
        self.finish_gather(number, effects);
    }

    fn gather_actors(&mut self, asker: Asker, wants: Wants, pipeline: Option<Name>, effects: &mut Effects) {
        let facts = self.catalog.facts();
        let members = facts.nodes().keys().filter(|node| !facts.is_removed(node));
        let nodes = distinct(members.copied().chain([self.me]));
        let questions =
            nodes.into_iter().map(|node| (node, Question::Actors { pipeline: pipeline.clone() })).collect();
        self.gather(asker, wants, questions, effects);
    }

    pub(super) fn gather_taking(&mut self, asker: Asker, number: u64, pipeline: Name, effects: &mut Effects) {
        self.gather_actors(asker, Wants::Taking(number), Some(pipeline), effects);
    }

    fn ask_state(
        &mut self,
        asker: Asker,
        pipeline: &Name,
        stage: &Name,
        key: Option<String>,
        limit: u32,
        effects: &mut Effects,
    ) {
        if !self.known_pipeline(asker, pipeline, effects) {
            return;
        }
        let shares = self.wiring.shares_of_stage(pipeline, stage);
        if shares.is_empty() {
            let why = format!(
                "pipeline '{pipeline}' has no stage '{stage}' with an actor of its own; stages that keep state are wasm, learn, forecast and anomaly, see `dunlin show {pipeline}`"
            );
            return self.fail(asker, FaultKind::Unknown, why, effects);
        }
        let missing = self.wiring.to_begin(pipeline).find(|one| one.unit.id.name == *stage);
        if let Some(from) = missing.map(|one| one.from) {
            let why = format!(
                "node {from} held a part of this state and was removed; the part has not started anew yet, try again in a moment"
            );
            return self.fail(asker, FaultKind::Unavailable, why, effects);
        }
        let holds = |share: &Share| match (&key, share) {
            // What is the stage's own each of its shares has.
            (Some(key), _) if key.starts_with('\0') => true,
            (Some(key), Share::Slots { .. }) => share.slots().contains(slot_of(key.as_bytes())),
            (Some(_), Share::Node(_)) | (None, _) => true,
        };
        let questions = shares
            .into_iter()
            .filter(|(_, _, share)| holds(share))
            .map(|(log, node, _)| (node, Question::State { log, key: key.clone(), limit }))
            .collect();
        self.gather(asker, Wants::State(limit), questions, effects);
    }

    // --- answering another node ---

    pub(super) fn on_ask(&mut self, node: NodeId, ask: AskId, question: Question, effects: &mut Effects) {
        let asker = Asker::Node(node, ask);
        if let Question::DeadLetters { pipeline, .. } | Question::MoveLetters { pipeline, .. } = &question
            && let Some(why) = self.unreadable_letters(pipeline)
        {
            return self.fail(asker, FaultKind::Storage, why, effects);
        }
        match question {
            Question::Actors { pipeline } => {
                let reply = Reply::Actors(self.reports(pipeline.as_ref()));
                self.send(node, Message::Answer { ask, reply }, effects);
            }
            Question::Publish(publish) => self.on_forwarded(asker, publish, effects),
            Question::State { log, key, limit } => {
                if let Some(damage) = self.logs.get(&log).and_then(|writer| writer.damage.clone()) {
                    return self.fail(asker, FaultKind::Storage, damage, effects);
                }
                let ready = self.actors.get(&log).is_some_and(|actor| actor.is_ready());
                if !ready {
                    let why = format!("actor {log} is not ready on node {}; try again in a moment", self.me);
                    return self.fail(asker, FaultKind::Unavailable, why, effects);
                }
                let look = LookId(self.fresh());
                self.looks.insert(look, asker);
                let key = key.map(|key| Bytes::from(key.into_bytes()));
                effects.push(Effect::LookUp { actor: log, look, key, limit });
            }
            Question::DeadLetters { pipeline, letter, limit } => {
                let letters = self.letters(&pipeline, letter, limit);
                self.send(node, Message::Answer { ask, reply: Reply::DeadLetters(letters) }, effects);
            }
            Question::MoveLetters { pipeline, letter, does } => {
                self.order_letters(asker, &pipeline, letter, does, effects);
            }
        }
    }

    pub(super) fn on_looked_up(&mut self, look: LookId, entries: Vec<(Bytes, Bytes)>, effects: &mut Effects) {
        let Some(asker) = self.looks.remove(&look) else { return };
        let text = |key: Bytes| String::from_utf8_lossy(&key).into_owned();
        let entries = entries.into_iter().map(|(key, value)| (text(key), value)).collect();
        self.answer(asker, Response::State(entries), effects);
    }

    // --- replies ---

    pub(super) fn on_reply(&mut self, node: NodeId, ask: AskId, reply: Reply, effects: &mut Effects) {
        match self.take_asked(node, ask) {
            Some(OnBehalf::One(asker)) => {
                let response = match reply {
                    Reply::Published { log, acknowledged, last, position } => {
                        Response::Published { log, acknowledged, last, position }
                    }
                    Reply::State(entries) => Response::State(entries),
                    Reply::DeadLetters(letters) => Response::DeadLetters { letters, missed: Vec::new() },
                    Reply::LettersMoved { moved, left } => {
                        Response::LettersMoved(LettersMoved { moved, left, missed: Vec::new() })
                    }
                    Reply::Failed(fault) => Response::Failed(fault),
                    Reply::Actors(_) => return,
                };
                self.answer(asker, response, effects);
            }
            Some(OnBehalf::Gather(number)) => {
                if let Some(gather) = self.gathers.get_mut(&number) {
                    gather.waiting.remove(&ask);
                    match reply {
                        Reply::Actors(reports) => gather.reports.extend(reports),
                        Reply::State(entries) => gather.entries.extend(entries),
                        Reply::DeadLetters(letters) => gather.letters.extend(letters),
                        Reply::LettersMoved { moved, left } => {
                            gather.moved.moved += moved;
                            gather.moved.left += left;
                        }
                        Reply::Failed(fault) => {
                            gather.silent.push(node);
                            gather.moved.missed.push((node, fault.detail.clone()));
                            gather.refused.get_or_insert(fault);
                        }
                        Reply::Published { .. } => gather.silent.push(node),
                    }
                }
                self.finish_gather(number, effects);
            }
            Some(OnBehalf::Deploy(_)) | None => {}
        }
    }

    /// Nodes that are gone, or too slow, do not answer any more.
    pub(super) fn expire_questions(&mut self, effects: &mut Effects) {
        let late: Vec<AskId> = self
            .asks
            .iter()
            .filter(|(_, asked)| {
                // A deploy can do without a node that stopped answering; who asks a node for what it
                // holds can not.
                let needed = !matches!(asked.on_behalf, OnBehalf::Deploy(_));
                let there = if needed { self.reachable(asked.node) } else { self.may_take_work(asked.node) };
                asked.deadline <= self.now || !there
            })
            .map(|(ask, _)| *ask)
            .collect();
        for ask in late {
            let Some(Asked { node, on_behalf, .. }) = self.asks.remove(&ask) else { continue };
            match on_behalf {
                OnBehalf::One(asker) => {
                    let why = format!(
                        "node {node} did not answer; whether it did what was asked is not known, ask again"
                    );
                    self.fail(asker, FaultKind::Unavailable, why, effects);
                }
                OnBehalf::Gather(number) => {
                    if let Some(gather) = self.gathers.get_mut(&number) {
                        gather.waiting.remove(&ask);
                        gather.silent.push(node);
                        let why = "it did not answer; whether it did what was asked is not known".to_string();
                        gather.moved.missed.push((node, why));
                    }
                    self.finish_gather(number, effects);
                }
                OnBehalf::Deploy(number) => self.deploy_expired(number, node, effects),
            }
        }
        self.expire_taps(effects);
    }

    fn finish_gather(&mut self, number: u64, effects: &mut Effects) {
        if self.gathers.get(&number).is_none_or(|gather| !gather.waiting.is_empty()) {
            return;
        }
        let Some(gather) = self.gathers.remove(&number) else { return };
        let asker = gather.asker;
        let response = match gather.wants.clone() {
            Wants::Nodes => Response::Nodes(self.node_statuses(&gather.reports)),
            Wants::Pipelines => Response::Pipelines(self.pipeline_statuses(&gather.reports)),
            Wants::Show(pipeline) => match self.shown(&pipeline, &gather.reports) {
                Some(shown) => Response::Shown(shown),
                None => {
                    return self.fail(
                        asker,
                        FaultKind::Unknown,
                        format!("pipeline '{pipeline}' was just removed"),
                        effects,
                    );
                }
            },
            Wants::State(limit) => {
                if let Some(Fault { kind, detail }) = gather.refused {
                    return self.fail(asker, kind, detail, effects);
                }
                if let Some(node) = gather.silent.first() {
                    let why = format!(
                        "node {node} holds a part of this state and cannot be reached now; try again when it is back"
                    );
                    return self.fail(asker, FaultKind::Unavailable, why, effects);
                }
                let mut entries = gather.entries;
                entries.sort();
                entries.truncate(limit as usize);
                Response::State(entries)
            }
            Wants::Taking(number) => return self.on_taking(number, &gather.reports, effects),
            Wants::DeadLetters(limit) => {
                Response::DeadLetters { letters: first_letters(gather.letters, limit), missed: gather.silent }
            }
            Wants::LettersMoved(letter) => moved_letters(letter, gather.moved),
        };
        self.answer(asker, response, effects);
    }
}
