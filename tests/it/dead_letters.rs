//! Dead letters are shown, replayed and dropped, from any node; each once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use dunlin_tests::{Mesh, Node, wait_for};
use serde_json::Value;

use crate::counting::number;

/// An HTTP server that refuses events whose `n` ends in 3, until it is told to be kind. It counts what
/// it accepted by `n`.
struct Outside {
    url: String,
    kind: Arc<AtomicBool>,
    taken: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Outside {
    fn start() -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let outside = Outside { url, kind: Arc::default(), taken: Arc::default() };
        let (kind, taken) = (outside.kind.clone(), outside.taken.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kind, taken) = (kind.clone(), taken.clone());
                // A client that goes away ends its connection's thread with an error.
                thread::spawn(move || _ = serve(stream, &kind, &taken));
            }
        });
        outside
    }

    fn counts(&self) -> BTreeMap<u64, u64> {
        self.taken.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, kind: &AtomicBool, taken: &Mutex<BTreeMap<u64, u64>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.trim_end().split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let event: Value = serde_json::from_slice(&body).unwrap();
        let n = number(&event["payload"]["n"]);
        if n % 10 == 3 && !kind.load(Ordering::SeqCst) {
            stream.write_all(b"HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        *taken.lock().unwrap().entry(n).or_default() += 1;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}

/// The sink's outside refuses some events; the fused stage `ratio` and its sibling read what the source
/// carries, and `ratio` fails at every `n` that ends in 7.
fn picky(url: &str) -> String {
    format!(
        r#"
name = "picky"
[source.events]
key = "k"
[stage.ratio]
from = ["events"]
map  = {{ n = "event.n", inverse = "100 / ((event.n - 7) % 10)" }}
[stage.same]
from = ["events"]
filter = "event.n >= 0"
[sink.post]
from = ["events"]
http = {{ url = "{url}" }}
[placement.post]
labels = {{ n = "1" }}
"#
    )
}

fn letters(node: &Node) -> Vec<Value> {
    let answer = node.get("/v1/pipelines/picky/dead-letters?limit=10000");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

fn of_stage<'a>(letters: &'a [Value], stage: &str) -> Vec<&'a Value> {
    letters.iter().filter(|letter| letter["stage"] == stage).collect()
}

#[test]
fn letters_are_replayed_and_dropped_once_from_any_node() {
    let mut mesh = Mesh::of(2);
    let outside = Outside::start();
    mesh.deploy(&picky(&outside.url));
    let lines: String = (0..100).map(|n| format!("{{\"k\":\"K{n}\",\"n\":{n}}}\n")).collect();
    let file = mesh.write("lines.jsonl", &lines);
    mesh[0].cli(&["publish", "picky/events", &file]).ok();

    // Ten of the sink (after five tries each), ten of the fused stage, each with a name of its own.
    let found = wait_for("twenty letters", 90, || Some(letters(&mesh[0])).filter(|all| all.len() == 20));
    let (posts, ratios) = (of_stage(&found, "post"), of_stage(&found, "ratio"));
    assert_eq!((posts.len(), ratios.len()), (10, 10), "{found:#?}");
    assert!(posts.iter().all(|letter| number(&letter["attempts"]) == 5), "{posts:#?}");
    let same = mesh[0].tail("picky/same");
    assert_eq!(same.len(), 100);

    // One by its id, through the node that does not hold it; then it is not there any more.
    let id = posts[0]["id"].as_str().unwrap().to_string();
    let n = number(&posts[0]["event"]["payload"]["n"]);
    let shown = mesh[1].cli(&["dead-letters", "picky", "show", &id]).ok().json();
    assert_eq!(shown["id"].as_str(), Some(id.as_str()));
    outside.kind.store(true, Ordering::SeqCst);
    let moved = mesh[0].cli(&["dead-letters", "picky", "replay", &id, "--json"]).ok().json();
    assert_eq!((&moved["replayed"], &moved["left"]), (&1.into(), &0.into()));
    wait_for("the replayed event is out", 30, || outside.counts().get(&n).copied()).to_string();
    let again = mesh[1].cli(&["dead-letters", "picky", "replay", &id]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("no dead letter") && again.stderr.lines().count() == 1, "{again:?}");
    assert_eq!(letters(&mesh[0]).len(), 19);

    // One is dropped, over HTTP.
    let dropped = of_stage(&found, "post")[1];
    let id = dropped["id"].as_str().unwrap();
    let answer = mesh[0].post(&format!("/v1/pipelines/picky/dead-letters/drop?id={id}"), &[], "");
    assert_eq!((answer.status, answer.json()["dropped"].clone()), (200, 1.into()), "{answer:?}");

    // All of the rest: those of the sink go out, those of the fused stage fail there again, and their
    // siblings do not run twice.
    let moved = mesh[1].cli(&["dead-letters", "picky", "replay", "--json"]).ok().json();
    assert_eq!(moved["replayed"], 18);
    let gone = number(&dropped["event"]["payload"]["n"]);
    wait_for("all but the dropped one are out", 30, || (outside.counts().len() == 99).then_some(()));
    let left = wait_for("what fails again is a letter again", 30, || {
        Some(letters(&mesh[0])).filter(|all| all.len() == 10)
    });
    assert_eq!(of_stage(&left, "ratio").len(), 10);
    assert!(left.iter().all(|letter| !found.iter().any(|old| old["id"] == letter["id"])), "{left:#?}");
    assert!(outside.counts().iter().all(|(n, times)| *times == 1 && *n != gone), "{:?}", outside.counts());
    assert_eq!(mesh[0].tail("picky/same").len(), 100);
    assert_eq!(mesh[0].tail("picky/ratio").len(), 90);

    // It all stands in the logs.
    for at in [0, 1] {
        mesh[at].kill();
        mesh[at].start();
    }
    mesh.meet();
    wait_for("the letters are there again", 30, || (letters(&mesh[1]).len() == 10).then_some(()));

    // A home that cannot be reached is named, what can be done is done.
    mesh[0].kill();
    let partial = wait_for("the node is missed", 60, || {
        let moved = mesh[1].cli(&["dead-letters", "picky", "drop", "--json"]);
        (moved.code == Some(1)).then_some(moved)
    });
    assert_eq!(partial.json()["missed"][0]["node"], mesh[0].id.as_str());
    assert!(partial.stderr.contains(&mesh[0].id), "{partial:?}");
    let listed = mesh[1].cli(&["dead-letters", "picky", "list", "--json"]);
    assert!(listed.code == Some(1) && listed.stderr.contains(&mesh[0].id), "{listed:?}");
    let of_it = left.iter().find(|letter| letter["stage"] == "ratio").unwrap()["id"].as_str().unwrap();
    let shown = mesh[1].cli(&["dead-letters", "picky", "show", of_it]);
    assert!(shown.code == Some(1) && shown.stderr.contains(&mesh[0].id), "{shown:?}");
    mesh[0].start();
    mesh.meet();
    mesh[1].cli(&["dead-letters", "picky", "drop"]).ok();
    assert!(letters(&mesh[1]).is_empty());
}

#[test]
fn letters_that_a_damaged_log_holds_are_missed() {
    let mut mesh = Mesh::of(1);
    let outside = Outside::start();
    mesh.deploy(&picky(&outside.url).replace(r#"n = "1""#, r#"n = "0""#));
    let lines: String = (0..20).map(|n| format!("{{\"k\":\"K{n}\",\"n\":{n}}}\n")).collect();
    let file = mesh.write("lines.jsonl", &lines);
    mesh[0].cli(&["publish", "picky/events", &file]).ok();
    let found = wait_for("a letter", 60, || Some(letters(&mesh[0])).filter(|all| !all.is_empty()));
    let id = found[0]["id"].as_str().unwrap();
    let (log, _) = id.split_once('.').unwrap();
    mesh[0].kill();
    let folder = mesh[0].data().join("logs").join(log);
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let segment = files.find(|path| path.extension().is_some_and(|it| it == "seg")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    mesh[0].start();
    for words in [&["list"][..], &["show", id], &["replay"], &["drop"], &["drop", id]] {
        let answer = mesh[0].cli(&[&["dead-letters", "picky"], words].concat());
        assert_eq!(answer.code, Some(1), "{words:?}: {answer:?}");
        assert!(answer.stderr.contains(&mesh[0].id), "{words:?}: {answer:?}");
    }
}

#[test]
fn wrong_letters_get_a_sentence() {
    let mesh = Mesh::of(1);
    let outside = Outside::start();
    mesh.deploy(&picky(&outside.url).replace(r#"n = "1""#, r#"n = "0""#));
    let unknown = format!("{}.7", "0".repeat(32));
    for (words, code, expect) in [
        (&["dead-letters", "nowhere", "replay"][..], 1, "nowhere"),
        (&["dead-letters", "picky", "replay", &unknown], 1, "no dead letter"),
        (&["dead-letters", "picky", "drop", &unknown], 1, "no dead letter"),
        (&["dead-letters", "picky", "drop", "seven"], 2, "LOG.NUMBER"),
    ] {
        let output = mesh[0].cli(words);
        assert_eq!(output.code, Some(code), "{output:?}");
        assert!(output.stderr.contains(expect), "{output:?}");
    }
    assert_eq!(mesh[0].cli(&["dead-letters", "picky", "drop", "--json"]).ok().json()["dropped"], 0);
    let bad = mesh[0].post("/v1/pipelines/picky/dead-letters/drop?id=seven", &[], "");
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_eq!(mesh[0].get("/v1/pipelines/picky/dead-letters/drop").status, 405);
}
