//! What a scenario tries besides crashes and cuts: a node that comes late or is away, a full disk, a
//! reader that stands still.

use dunlin_protocol::rpc::{Publish, Request, Response, TailFrom};
use dunlin_protocol::time::{Span, Time};

use super::clients::tail_of;
use super::{Broken, Run, name};
use crate::checkers;
use crate::scenario::Trial;

/// How long a node that was away may take to learn what it missed.
const CATCH_UP: Span = Span(15_000);

impl Run {
    /// The node that is late or away.
    pub(super) fn last_node(&self) -> usize {
        self.scenario.nodes - 1
    }

    pub(super) fn try_before_deploy(&mut self) {
        if matches!(self.scenario.trial, Trial::Absent | Trial::RedeployAbsent) {
            self.asleep.insert(self.last_node());
            self.world.crash(self.last_node());
        }
    }

    pub(super) fn try_at_first(&mut self) {
        let now = self.world.now;
        match self.scenario.trial {
            Trial::None => {}
            Trial::LateJoin => self.next_trial = now.after(Span(self.world.chance.between(1_000, 5_000))),
            Trial::Absent => self.next_trial = now.after(Span(self.world.chance.between(1, 3_000))),
            Trial::Redeploy | Trial::RedeployAbsent | Trial::Rivals | Trial::RedeployFull => {
                self.next_trial = now.after(Span(self.world.chance.between(1, 1_500)));
            }
            Trial::FullDisk => self.next_trial = now.after(Span(self.world.chance.between(1, 1_000))),
            Trial::Stalled(stage) => self.world.stalled = Some(stage),
            Trial::OldCopy | Trial::Replace => {
                self.next_trial = now.after(Span(self.world.chance.between(500, 4_000)));
            }
            Trial::GiveUp(_) => self.next_trial = now.after(Span(self.world.chance.between(500, 4_000))),
            Trial::Everywhere => self.next_trial = now,
        }
    }

    pub(super) fn try_meanwhile(&mut self) -> Result<(), Broken> {
        if self.world.now >= self.next_look {
            self.next_look = self.world.now.after(Span(1_000));
            let up = (0..self.scenario.nodes).any(|node| self.world.is_up(node));
            // Whoever starts anew for a node that was given up has all to read that is kept.
            if up && !self.scenario.retention.is_empty() && self.removal.is_none() {
                checkers::bounded::check(&self.world).map_err(Broken::Promise)?;
            }
        }
        if self.world.now < self.next_trial {
            return Ok(());
        }
        match self.scenario.trial {
            Trial::None | Trial::Stalled(_) => {}
            // It is started like any node that is down.
            Trial::LateJoin | Trial::Absent => {
                self.asleep.clear();
                self.next_trial = Time::MAX;
            }
            Trial::Redeploy => self.redeploy_somewhere()?,
            // It comes back behind some of the deploys, and is away during others.
            Trial::RedeployAbsent => {
                if self.world.chance.one_in(3) {
                    self.asleep.clear();
                } else if self.world.chance.one_in(4) {
                    self.world.crash(self.last_node());
                }
                self.redeploy_somewhere()?;
            }
            Trial::Rivals => self.deploy_rivals()?,
            Trial::RedeployFull => {
                let victim = self.world.chance.between(0, self.last_node() as u64) as usize;
                let disk = &mut self.world.nodes[victim].disk;
                disk.full = !disk.full;
                self.world.excused.insert("disk_full");
                self.redeploy_somewhere()?;
            }
            Trial::OldCopy => self.go_on_with_copies()?,
            Trial::Everywhere => {
                let stream = *self.world.chance.pick(&["twice", "twice", "twice", "in"]);
                self.taps.everywhere(&tail_of(stream, TailFrom::Start, true), &mut self.world);
                self.next_trial = self.world.now.after(Span(self.world.chance.between(100, 2_000)));
            }
            Trial::Replace => match self.removal {
                None => self.lose_the_disk(),
                Some(_) => self.ask_for_removal(),
            },
            Trial::GiveUp(beside) => match self.removal {
                None => self.die_for_good(beside),
                Some(_) => {
                    self.ask_for_removal();
                    if beside.redeploys() && self.world.now >= self.next_redeploy {
                        self.redeploy_somewhere()?;
                        self.next_redeploy = self.next_trial;
                        self.next_trial = self.world.now;
                    }
                }
            },
            Trial::FullDisk => {
                let victim = self.world.chance.between(0, self.last_node() as u64) as usize;
                let disk = &mut self.world.nodes[victim].disk;
                disk.full = !disk.full;
                self.world.excused.insert("disk_full");
                self.next_trial = self.world.now.after(Span(self.world.chance.between(1, 1_500)));
            }
        }
        Ok(())
    }

    pub(super) fn try_at_end(&mut self) -> Result<(), Broken> {
        match self.scenario.trial {
            Trial::None | Trial::LateJoin | Trial::Redeploy | Trial::RedeployAbsent => Ok(()),
            Trial::Rivals | Trial::RedeployFull => Ok(()),
            Trial::OldCopy => Ok(()),
            Trial::Everywhere => match self.world.broadcasts {
                0 => Err(Broken::Promise("many nodes followed one stream and nothing went by gossip".into())),
                _ => Ok(()),
            },
            Trial::GiveUp(_) | Trial::Replace => self.come_back_unheard(),
            Trial::Absent => self.remove_while_away(),
            Trial::FullDisk => match self.publishers.iter().map(|publisher| publisher.unkept).sum() {
                0u64 => Err(Broken::Promise("disks were full and no publisher was told".into())),
                _ => Ok(()),
            },
            // Without a small retention the credit is what fills up, and nobody else waits.
            Trial::Stalled(_) if self.scenario.retention.is_empty() => {
                match self.world.watch.credit.used_up {
                    0 => Err(Broken::Promise("a reader stood still and its credit never ran out".into())),
                    _ => Ok(()),
                }
            }
            Trial::Stalled(_) => match self.publishers.iter().map(|publisher| publisher.busy).sum() {
                0u64 => Err(Broken::Promise("a reader stood still and no publisher was told to wait".into())),
                _ => Ok(()),
            },
        }
    }

    /// The pipeline goes while a node is away; that node serves nothing of it when it is back.
    fn remove_while_away(&mut self) -> Result<(), Broken> {
        let away = self.last_node();
        self.world.crash(away);
        match self.ask(0, &Request::Remove { pipeline: name("sim") }, "the removal")? {
            Response::Removed { .. } => {}
            other => return Err(Broken::Promise(format!("the removal was answered {other:?}"))),
        }
        self.pass(Span(2_000));
        self.world.start(away, Span(10));
        self.pass(Span(20));
        let publish = Publish {
            pipeline: name("sim"),
            source: name("in"),
            producer: None,
            log: None,
            events: Vec::new(),
        };
        let id = self.world.request(away, Request::Publish(publish));
        if let Some(Response::Published { .. }) = self.await_answer(id, CATCH_UP).pop() {
            return Err(Broken::Promise(
                "a node that was away during the removal took events for the removed pipeline".into(),
            ));
        }
        self.pass(CATCH_UP);
        checkers::removed::check(&self.world).map_err(Broken::Promise)
    }
}
