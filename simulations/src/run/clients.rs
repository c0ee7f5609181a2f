//! Clients: they ask, wait for a while, and ask again.

use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::rpc::{Request, Response, Tail, TailEvent, TailFrom};
use dunlin_protocol::time::Span;

use super::{Broken, Run, name};

/// A client without an answer gives up.
const CLIENT_PATIENCE: Span = Span(40_000);
pub(super) const CREDIT: u64 = 1 << 40;

impl Run {
    pub(super) fn ask(&mut self, node: usize, request: &Request, what: &str) -> Result<Response, Broken> {
        let deadline = self.world.now.after(CLIENT_PATIENCE);
        while self.world.now < deadline {
            let id = self.world.request(node, request.clone());
            if let Some(response) = self.await_answer(id, Span(8_000)).pop() {
                match response {
                    Response::Failed(fault) => {
                        self.world.trace.line(self.world.now, format!("{what} is refused: {}", fault.detail));
                    }
                    good => return Ok(good),
                }
            }
            self.pass(Span(500));
        }
        Err(Broken::NoProgress(format!("{what} was not answered well")))
    }

    /// All answers to one request, until the last or until patience ends.
    pub(super) fn await_answer(&mut self, id: RequestId, patience: Span) -> Vec<Response> {
        let deadline = self.world.now.after(patience);
        let mut answers = Vec::new();
        while self.world.now < deadline {
            self.pass(Span(20));
            while let Some((_, of, response, last)) = self.world.answers.pop_front() {
                if of == id {
                    answers.push(response);
                    if last {
                        return answers;
                    }
                } else {
                    self.give(of, &response, last);
                }
            }
        }
        Vec::new()
    }

    /// An answer goes to the client that waits for it; others have gone away meanwhile.
    pub(super) fn give(&mut self, id: RequestId, response: &Response, last: bool) {
        if self.redeploying.remove(&id) {
            return self.on_redeployed(response);
        }
        if self.moving.remove(&id) {
            return self.on_letters_moved(response);
        }
        if self.on_removed(id, response) {
            return;
        }
        for publisher in &mut self.publishers {
            match publisher.on_answer(id, response, &mut self.world) {
                Ok(true) => return,
                Ok(false) => {}
                Err(why) => self.world.errors.push(why),
            }
        }
        let lossy = self.scenario.may_lose();
        let outcome = self.taps.on_answer(id, response, last, &self.world, lossy);
        self.world.watch.note(outcome);
    }

    /// Taps that have shown all that there is are not looked at any longer.
    pub(super) fn close_taps(&mut self) -> Result<(), String> {
        if !self.scenario.may_lose() {
            self.taps.level(&self.world, self.scenario.retention.is_empty())?;
        }
        for (id, node) in self.taps.close() {
            self.world.input_soon(node, Input::Cancelled { id });
        }
        self.pass(Span(20));
        Ok(())
    }

    /// Nobody lags, as `show` tells; else who does.
    pub(super) fn is_level(&mut self) -> Result<(), String> {
        let id = self.world.request(0, Request::Show { pipeline: name("sim") });
        let answer = self.await_answer(id, Span(10_000)).pop();
        let Some(Response::Shown(shown)) = answer else {
            return Err("the pipeline cannot be shown".into());
        };
        let actors =
            shown.stages.iter().flat_map(|stage| stage.actors.iter().map(move |actor| (&stage.stage, actor)));
        let late = actors.filter(|(_, actor)| actor.lag > 0 || actor.trouble.is_some() || actor.epoch == 0);
        let said: Vec<String> = late
            .map(|(stage, actor)| {
                format!("{stage} ({}) lags {} ({:?})", actor.actor, actor.lag, actor.trouble)
            })
            .collect();
        if said.is_empty() { Ok(()) } else { Err(said.join(", ")) }
    }

    /// Everything that a tap of this stream sees from its start.
    pub(super) fn tail(&mut self, stream: &str) -> Result<Vec<TailEvent>, Broken> {
        let mut node = self.world.chance.between(0, self.scenario.nodes as u64 - 1) as usize;
        if self.victim() == Some(node) {
            node = 0;
        }
        let tail = tail_of(stream, TailFrom::Start, false);
        let id = self.world.request(node, Request::Tail(tail));
        let mut all = Vec::new();
        for response in self.await_answer(id, Span(30_000)) {
            match response {
                Response::Events { events } => all.extend(events),
                other => return Err(Broken::Promise(format!("a tap was answered {other:?}"))),
            }
        }
        Ok(all)
    }
}

pub(super) fn tail_of(stream: &str, from: TailFrom, follow: bool) -> Tail {
    Tail {
        pipeline: name("sim"),
        stream: StreamName { base: name(stream), side: None },
        from,
        limit: None,
        follow,
        credit: CREDIT,
    }
}
