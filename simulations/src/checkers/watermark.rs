//! P4: watermarks never go back, in no log, nor in what a reader has noted of an upstream log (unless
//! that log lost its tail, and the reader fell back with it).

use std::collections::BTreeMap;

use dunlin_protocol::id::{LogId, Seq};
use dunlin_protocol::log::record::Body;
use dunlin_protocol::time::Time;

use crate::world::World;

pub fn check(world: &World, lossy: bool) -> Result<(), String> {
    for (place, past) in world.history.logs() {
        let mut own = Time(0);
        let mut upstream: BTreeMap<LogId, Time> = BTreeMap::new();
        let advance = |of: &mut Time, to: Time, seq: Seq| {
            let back = to < *of;
            *of = to;
            match back {
                true => Err(format!(
                    "the watermark of record {} goes back in log {} ({:?})",
                    seq.0, place.1, past.name
                )),
                false => Ok(()),
            }
        };
        for kept in &past.kept {
            let seq = kept.position.seq;
            match &*kept.body {
                Body::Append(append) => advance(&mut own, append.watermark, seq)?,
                Body::Commit(commit) => {
                    advance(&mut own, commit.watermark, seq)?;
                    for read in commit.frontier.iter().filter(|_| !lossy) {
                        advance(upstream.entry(read.log).or_default(), read.watermark, seq)?;
                    }
                }
                Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => {}
            }
        }
    }
    Ok(())
}
