//! P4: watermarks never go back, in no log, nor in what a reader has noted of an upstream log (unless
//! that log lost its tail, and the reader fell back with it).

use std::collections::BTreeMap;

use dunlin_protocol::id::LogId;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::time::Time;

use crate::world::World;

pub fn check(world: &World, lossy: bool) -> Result<(), String> {
    for (place, past) in world.history.logs() {
        let mut own = Time(0);
        let mut upstream: BTreeMap<LogId, Time> = BTreeMap::new();
        let advance = |of: &mut Time, to: Time, what: &str| {
            let back = to < *of;
            *of = to;
            match back {
                true => {
                    Err(format!("the watermark of {what} goes back in log {} ({:?})", place.1, past.name))
                }
                false => Ok(()),
            }
        };
        for (record, body) in world.history.bodies(*place) {
            let what = format!("record {}", record.seq.0);
            match body {
                Body::Append(append) => advance(&mut own, append.watermark, &what)?,
                Body::Commit(commit) => {
                    advance(&mut own, commit.watermark, &what)?;
                    for read in commit.frontier.into_iter().filter(|_| !lossy) {
                        advance(upstream.entry(read.log).or_default(), read.watermark, &what)?;
                    }
                }
                Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => {}
            }
        }
    }
    Ok(())
}
