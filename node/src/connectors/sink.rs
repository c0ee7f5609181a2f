//! A sink from what the pipeline file says of it.

use std::path::PathBuf;

use dunlin_operators::operator::Operator;
use dunlin_protocol::id::{LogId, Name};
use dunlin_protocol::pipeline::manifest::Outlet;

use super::{file::FileSink, http::HttpSink, stdout::LineSink};

/// Where a sink stands.
#[derive(Debug, Clone)]
pub struct SinkPlace {
    /// The node's data folder: a sink's relative path begins here.
    pub data_folder: PathBuf,
    pub pipeline: Name,
    /// The sink's actor. Its log's name is never used twice, so it tells this sink from an earlier
    /// one that wrote to the same file.
    pub actor: LogId,
    /// The actor whose place it took, if a later revision of the pipeline brought it.
    pub follows: Option<LogId>,
}

/// The head that hands events to `outlet`. Nothing outside is touched before the first batch; an
/// error is a sentence about what the pipeline file says.
pub fn sink(name: &Name, outlet: &Outlet, place: &SinkPlace) -> Result<Box<dyn Operator>, String> {
    match outlet {
        Outlet::File { path } => Ok(Box::new(FileSink::new(name, path, place))),
        Outlet::Http { url } => Ok(Box::new(HttpSink::new(name, url)?)),
        Outlet::Stdout => Ok(Box::new(LineSink::new(name, std::io::stdout()))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use dunlin_protocol::effect::Invoked;
    use dunlin_protocol::event::{Event, Placed};
    use dunlin_protocol::id::{Epoch, EventId, Seq};
    use dunlin_protocol::time::Time;

    use super::*;

    /// An event of one record, by its index.
    pub fn placed(index: u32, key: &str, payload: &str) -> Placed {
        Placed {
            id: EventId { log: LogId([7; 16]), epoch: Epoch(1), seq: Seq(1), index },
            event: Event {
                key: Bytes::copy_from_slice(key.as_bytes()),
                time: Time(1_551_525_014_000),
                headers: Vec::new(),
                payload: Bytes::copy_from_slice(payload.as_bytes()),
            },
        }
    }

    /// Events `indices` as a batch.
    pub fn batch(indices: std::ops::Range<u32>) -> Vec<Invoked> {
        indices
            .map(|n| Invoked { input: 0, step: None, placed: placed(n, "k", &format!("{{\"n\":{n}}}")) })
            .collect()
    }

    #[test]
    fn a_url_that_is_none_is_refused_at_once() {
        let name = "alerts".parse().unwrap();
        let place = SinkPlace {
            data_folder: ".".into(),
            pipeline: "p".parse().unwrap(),
            actor: LogId([1; 16]),
            follows: None,
        };
        for url in ["alerts", "ftp://127.0.0.1/x", "http://"] {
            let refused = sink(&name, &Outlet::Http { url: url.into() }, &place);
            assert!(refused.is_err_and(|why| why.contains("http://HOST")), "{url}");
        }
        assert!(sink(&name, &Outlet::Http { url: "http://127.0.0.1:9/a".into() }, &place).is_ok());
    }
}
