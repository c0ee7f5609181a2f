//! Clients that follow a stream while everything around them breaks. What a tap shows is committed
//! output, in its log's order, nothing twice and nothing left out.

use std::collections::BTreeMap;

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::effect::RequestId;
use dunlin_protocol::id::{EventId, LogId};
use dunlin_protocol::pipeline::plan::SlotRange;
use dunlin_protocol::rpc::Response;
use dunlin_protocol::wire::message::Filter;

use crate::world::World;

/// Taps that are looked at, at once. Beyond: no new one is.
const TAPS_MAX: usize = 6;

#[derive(Debug, Default)]
pub struct Taps {
    open: BTreeMap<RequestId, Tap>,
}

#[derive(Debug)]
struct Tap {
    node: usize,
    last: BTreeMap<LogId, EventId>,
}

impl Taps {
    pub fn opened(&mut self, id: RequestId, node: usize) {
        if self.open.len() < TAPS_MAX {
            self.open.insert(id, Tap { node, last: BTreeMap::new() });
        }
    }

    /// All of them, with the nodes that they ask.
    pub fn close(&mut self) -> Vec<(RequestId, usize)> {
        std::mem::take(&mut self.open).into_iter().map(|(id, tap)| (id, tap.node)).collect()
    }

    /// `lossy`: a log may lose its tail, and what came of that may be shown again.
    pub fn on_answer(
        &mut self,
        id: RequestId,
        response: &Response,
        last: bool,
        world: &World,
        lossy: bool,
    ) -> Result<(), String> {
        let Some(tap) = self.open.get_mut(&id) else { return Ok(()) };
        if let Response::Events { events } = response {
            for event in events.clone() {
                tap.take(event.placed.id, &event.placed.event, world, lossy)?;
            }
        }
        if last {
            self.open.remove(&id);
        }
        Ok(())
    }
}

impl Tap {
    fn take(
        &mut self,
        id: EventId,
        event: &dunlin_protocol::event::Event,
        world: &World,
        lossy: bool,
    ) -> Result<(), String> {
        let before = self.last.insert(id.log, id);
        if lossy {
            return Ok(());
        }
        let after = before.map_or((0, None), |before| (before.seq.0, Some(before.index)));
        if (id.seq.0, Some(id.index)) <= after {
            return Err(format!("a tap on n{} shows event {id} behind {after:?}", self.node));
        }
        let committed = world.history.logs().filter(|((_, log), _)| *log == id.log).find_map(|(_, past)| {
            let kept = past.kept.get(id.seq.0 as usize - 1)?;
            let filter = Filter { outputs: (0..64).collect(), slots: SlotRange::ALL };
            let slice = slice_of(kept, &filter);
            let found = slice.events.into_iter().find(|event| event.index == id.index)?;
            (kept.position.epoch == id.epoch).then_some(found.event)
        });
        match committed {
            Some(committed) if committed == *event => Ok(()),
            Some(_) => Err(format!("a tap on n{} shows event {id} with other bytes", self.node)),
            None => Err(format!("a tap on n{} shows event {id}, which no log holds", self.node)),
        }
    }
}
