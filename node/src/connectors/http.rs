//! The `http` sink: one POST per event, the body as the file sink's line, the event's id as
//! `Idempotency-Key`.
//!
//! At least once: when the other side cannot be reached in the middle of a batch, the whole batch
//! comes again, with the same keys. While the process lives, events that were already accepted are
//! not posted a second time; after a crash they may be.
//!
//! | answer | meaning |
//! | --- | --- |
//! | 2xx | accepted |
//! | 408, 425, 429, 5xx, 3xx, none | the other side is not there: the batch waits |
//! | other 4xx | this event was refused |

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use dunlin_operators::operator::{Handled, Operator, State};
use dunlin_protocol::effect::{Again, CallError, FailedEvent, Invoked};
use dunlin_protocol::id::{EventId, Name};
use dunlin_protocol::limits::BATCH_EVENTS_MAX;
use dunlin_protocol::time::Time;
use ureq::Agent;
use ureq::http::{StatusCode, Uri};

use super::line::write_event;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A call that takes longer gives its thread back; the next one goes on behind what was accepted.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// Ids that are remembered as accepted: two batches. Beyond: the oldest go, and could be posted again.
const ACCEPTED_MAX: usize = 2 * BATCH_EVENTS_MAX;
/// An answer's body is read this far, so that the connection can serve the next event.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How much of a refusal's body a dead letter repeats, in characters.
const REASON_CHARS_MAX: usize = 200;

#[derive(Debug)]
pub struct HttpSink {
    name: Name,
    url: String,
    agent: Agent,
    accepted: Accepted,
}

impl HttpSink {
    pub fn new(name: &Name, url: &str) -> Result<HttpSink, String> {
        let uri = url.parse::<Uri>().ok();
        let known = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !known {
            return Err(format!(
                "the sink '{name}' has no usable url '{url}': write http://HOST:PORT/PATH or https://…"
            ));
        }
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The address is taken as it is written, whatever the daemon's environment says.
            .proxy(None)
            .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(HttpSink {
            name: name.clone(),
            url: url.to_string(),
            agent: config.new_agent(),
            accepted: Accepted::default(),
        })
    }

    fn post(&self, id: EventId, body: &[u8]) -> Answer {
        let sent = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", id.to_string())
            .send(body);
        let mut response = match sent {
            Ok(response) => response,
            Err(why) => return Answer::Absent(why.to_string()),
        };
        let text =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let status = response.status();
        if status.is_success() {
            return Answer::Accepted;
        }
        let said: String = text.unwrap_or_default().trim().chars().take(REASON_CHARS_MAX).collect();
        let reason =
            if said.is_empty() { format!("answered {status}") } else { format!("answered {status}: {said}") };
        let waits = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        if status.is_client_error() && !waits.contains(&status) {
            Answer::Refused(reason)
        } else {
            Answer::Absent(reason)
        }
    }

    fn wait(&self, why: &str) -> CallError {
        CallError {
            stage: self.name.to_string(),
            reason: format!(
                "the sink '{}' cannot hand events to '{}': {why}; the events wait",
                self.name, self.url
            ),
            again: Again::Later,
        }
    }
}

enum Answer {
    Accepted,
    Refused(String),
    Absent(String),
}

impl Operator for HttpSink {
    fn handle(
        &mut self,
        batch: &[Invoked],
        _now: Time,
        _state: &mut dyn State,
    ) -> Result<Handled, CallError> {
        let began = Instant::now();
        let mut handled = Handled::default();
        let mut body = Vec::new();
        for (index, invoked) in (0..).zip(batch) {
            let id = invoked.placed.id;
            if self.accepted.contains(id) {
                continue;
            }
            if began.elapsed() > CALL_TIME_MAX {
                return Err(self.wait(&format!(
                    "it took {} s for {index} of {} events",
                    CALL_TIME_MAX.as_secs(),
                    batch.len()
                )));
            }
            body.clear();
            write_event(&mut body, &invoked.placed, None);
            match self.post(id, &body) {
                Answer::Accepted => self.accepted.insert(id),
                Answer::Refused(reason) => handled.failed.push(FailedEvent {
                    index,
                    refused: None,
                    stage: self.name.to_string(),
                    reason: format!("'{}' {reason}", self.url),
                    again: Again::Maybe,
                }),
                Answer::Absent(why) => return Err(self.wait(&why)),
            }
        }
        Ok(handled)
    }

    /// What the outside accepted stays accepted, whatever became of our commit.
    fn forget(&mut self) {}
}

/// The last ids that the other side took.
#[derive(Debug, Default)]
struct Accepted {
    ids: BTreeSet<EventId>,
    oldest_first: VecDeque<EventId>,
}

impl Accepted {
    fn contains(&self, id: EventId) -> bool {
        self.ids.contains(&id)
    }

    fn insert(&mut self, id: EventId) {
        if self.ids.insert(id) {
            self.oldest_first.push_back(id);
        }
        if self.oldest_first.len() > ACCEPTED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use dunlin_operators::memory_state::MemoryState;

    use super::super::sink::tests::batch;
    use super::*;

    /// A server that gives the scripted statuses, one per request, and tells what it was sent.
    struct Server {
        url: String,
        requests: mpsc::Receiver<(String, String)>,
    }

    fn serve(statuses: Vec<u16>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let (told, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let mut statuses = statuses.into_iter();
            while let Some(mut status) = statuses.next() {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(request) = read_request(&mut reader) {
                    told.send(request).unwrap();
                    let close = if status >= 500 { "Connection: close\r\n" } else { "" };
                    let answer = match status {
                        204 => format!("HTTP/1.1 {status} X\r\n\r\n"),
                        _ => format!("HTTP/1.1 {status} X\r\n{close}Content-Length: 5\r\n\r\nhello"),
                    };
                    stream.write_all(answer.as_bytes()).unwrap();
                    if status >= 500 {
                        break;
                    }
                    match statuses.next() {
                        Some(next) => status = next,
                        None => return,
                    }
                }
            }
        });
        Server { url, requests }
    }

    /// The Idempotency-Key and the body.
    fn read_request(reader: &mut impl BufRead) -> Option<(String, String)> {
        let (mut key, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => key = value.trim().to_string(),
                "content-length" => length = value.trim().parse().unwrap(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some((key, String::from_utf8(body).unwrap()))
    }

    impl Server {
        fn sink(&self) -> HttpSink {
            HttpSink::new(&"alerts".parse().unwrap(), &self.url).unwrap()
        }

        /// The index of each event that was posted, in order.
        fn posted(&self) -> Vec<String> {
            self.requests.try_iter().map(|(key, _)| key.rsplit('.').next().unwrap().to_string()).collect()
        }
    }

    fn handle(sink: &mut HttpSink, events: std::ops::Range<u32>) -> Result<Handled, CallError> {
        sink.handle(&batch(events), Time(0), &mut MemoryState::new())
    }

    #[test]
    fn each_event_is_posted_with_its_id_over_one_connection() {
        let server = serve(vec![200, 204, 201]);
        assert_eq!(handle(&mut server.sink(), 0..3), Ok(Handled::default()));
        let requests: Vec<_> = server.requests.iter().collect();
        let mut expect = Vec::new();
        write_event(&mut expect, &batch(1..2)[0].placed, None);
        assert_eq!(requests[1].1.as_bytes(), expect);
        assert_eq!(requests[1].0, "07070707070707070707070707070707.1.1.1");
        assert_eq!(requests.len(), 3);
    }

    #[test]
    fn a_refused_event_fails_alone() {
        let server = serve(vec![200, 422, 200]);
        let handled = handle(&mut server.sink(), 0..3).unwrap();
        let [failed] = handled.failed.as_slice() else { panic!("{handled:?}") };
        assert_eq!((failed.index, failed.again), (1, Again::Maybe));
        assert!(failed.reason.contains("422") && failed.reason.contains("hello"), "{}", failed.reason);
        assert_eq!(server.posted(), ["0", "1", "2"]);
    }

    #[test]
    fn a_repeated_batch_posts_only_what_was_not_accepted() {
        let server = serve(vec![200, 200, 503, 429, 200, 200]);
        let mut sink = server.sink();
        let error = handle(&mut sink, 0..4).unwrap_err();
        assert_eq!(error.again, Again::Later);
        assert!(error.reason.contains("503"), "{}", error.reason);
        sink.forget();
        assert!(handle(&mut sink, 0..4).is_err_and(|error| error.reason.contains("429")));
        assert_eq!(handle(&mut sink, 0..4), Ok(Handled::default()));
        assert_eq!(server.posted(), ["0", "1", "2", "2", "2", "3"]);
    }

    #[test]
    fn a_sink_that_is_down_makes_the_batch_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let mut sink = HttpSink::new(&"alerts".parse().unwrap(), &url).unwrap();
        let error = handle(&mut sink, 0..2).unwrap_err();
        assert_eq!(error.again, Again::Later);
        assert!(error.reason.contains(&url), "{}", error.reason);
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let server = serve(vec![302]);
        assert!(handle(&mut server.sink(), 0..1).is_err_and(|error| error.again == Again::Later));
    }

    #[test]
    fn memory_of_accepted_ids_is_bounded() {
        let mut accepted = Accepted::default();
        for invoked in batch(0..ACCEPTED_MAX as u32 + 10) {
            accepted.insert(invoked.placed.id);
        }
        assert_eq!((accepted.ids.len(), accepted.oldest_first.len()), (ACCEPTED_MAX, ACCEPTED_MAX));
    }
}
