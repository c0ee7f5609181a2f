//! `dunlin tail`: a stream's events, a JSON object per line.

use std::io::{self, IsTerminal, Write};

use dunlin_protocol::limits::EDGE_CREDIT_BYTES;
use dunlin_protocol::rpc::Tail;

use super::arguments::TailArguments;
use super::client::Client;
use super::output::Output;
use crate::api::json::TailJson;

pub fn tail(client: &dyn Client, arguments: TailArguments, _out: &Output) -> anyhow::Result<()> {
    let TailArguments { stream, from, limit, follow } = arguments;
    let request = Tail {
        pipeline: stream.pipeline,
        stream: stream.stream,
        from,
        limit,
        follow,
        credit: EDGE_CREDIT_BYTES,
    };
    let events = client.tail(request)?;
    // Who follows wants each event at once; who reads to the head wants all of them soon.
    let stdout = io::stdout();
    let at_once = follow || stdout.is_terminal();
    let mut lines = io::BufWriter::with_capacity(1 << 16, stdout.lock());
    let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for event in events.take(most) {
        let event = match event {
            Ok(event) => event,
            Err(failure) => {
                lines.flush()?;
                return Err(failure.into());
            }
        };
        let mut line = serde_json::to_vec(&TailJson::from(&event))?;
        line.push(b'\n');
        lines.write_all(&line)?;
        if at_once {
            lines.flush()?;
        }
    }
    lines.flush()?;
    Ok(())
}
