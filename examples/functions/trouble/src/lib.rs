//! Everything that a function must not do, one kind per word in the payload's `do`. It is no
//! example to copy: the tests run it to see that each kind is stopped.

wit_bindgen::generate!({ world: "function", path: "../../../protocol/wit" });

use std::hint::black_box;

use dunlin::function::types::Retry;
use dunlin::function::{host, state};
use serde_json::{Value, json};

struct Trouble;

export!(Trouble);

impl Guest for Trouble {
    fn handle(batch: Vec<Event>) -> Result<Vec<Output>, Failure> {
        let mut outputs = Vec::new();
        for (place, event) in batch.iter().enumerate() {
            let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
            let word = payload.get("do").and_then(Value::as_str).unwrap_or("nothing");
            match make(word, &event.key)? {
                Made::One(payload) => outputs.push(output(Some(place as u32), payload)),
                Made::Many(count, payload) => {
                    outputs.extend((0..count).map(|_| output(Some(place as u32), payload.clone())))
                }
                Made::CausedBy(cause) => outputs.push(output(Some(cause), "{}".into())),
                Made::Keyed(key, time_ms) => {
                    outputs.push(Output { key, time_ms, ..output(Some(place as u32), "{}".into()) });
                }
            }
        }
        Ok(outputs)
    }
}

enum Made {
    One(String),
    Many(u32, String),
    CausedBy(u32),
    Keyed(String, u64),
}

fn make(word: &str, key: &str) -> Result<Made, Failure> {
    match word {
        "panic" => panic!("this guest panics on purpose"),
        "loop" => loop {
            black_box(0);
        },
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "eat" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => _ = black_box(recurse(1)),
        "exit" => std::process::exit(3),
        "give-up" => return Err(Failure::GiveUp("it will never work".into())),
        "retry" => {
            return Err(Failure::RetryAfter(Retry { after_ms: 1500, reason: "not yet".into() }));
        }
        "flood-state" => loop {
            black_box(state::get(key));
        },
        // Some milliseconds, no trouble at all.
        "work" => (0..1_000_000_u64).for_each(|n| _ = black_box(n)),
        "flood-host" => loop {
            black_box(host::random());
        },
        "flood-log" => (0..1000).for_each(|line| host::log(host::Level::Info, &format!("line {line}"))),
        "other-key" => state::put("somebody-else", b"mine now"),
        "longer-key" => state::put(&format!("{key}0"), b"mine now"),
        "big-state" => state::put(&format!("{key}/big"), &vec![7; 7 << 20]),
        "long-state-key" => state::put(&format!("{key}/{}", "x".repeat(4096)), b"far too long"),
        "big-output" => return Ok(Made::One(format!("\"{}\"", "x".repeat(7 << 20)))),
        "many-outputs" => return Ok(Made::Many(300_000, "{}".into())),
        "long-key" => return Ok(Made::Keyed("x".repeat(1025), 1)),
        "end-of-time" => return Ok(Made::Keyed(key.into(), u64::MAX)),
        "gigabyte" => return Ok(Made::Many(1024, format!("\"{}\"", "x".repeat(1 << 20)))),
        "wrong-cause" => return Ok(Made::CausedBy(1000)),
        "file" => {
            let error = std::fs::read_to_string("/etc/passwd").unwrap_err();
            return Ok(Made::One(json!({ "refused": error.to_string() }).to_string()));
        }
        "environment" => {
            let variables = std::env::vars().count() + std::env::args().count();
            return Ok(Made::One(json!({ "variables": variables }).to_string()));
        }
        "socket" => {
            let refused = std::net::TcpStream::connect("127.0.0.1:80").is_err();
            return Ok(Made::One(json!({ "refused": refused }).to_string()));
        }
        "now" => {
            let wasi = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let now = json!({ "host": host::now(), "wasi": wasi.as_millis() as u64 });
            return Ok(Made::One(now.to_string()));
        }
        "random" => {
            let mut map = std::collections::HashMap::new();
            (0..20).for_each(|n| _ = map.insert(n, n));
            let order: Vec<&i32> = map.keys().collect();
            return Ok(Made::One(
                json!({ "host": [host::random(), host::random()], "order": order }).to_string(),
            ));
        }
        "scan" => {
            state::put(&format!("{key}/b"), b"2");
            state::put(&format!("{key}/a"), b"1");
            state::put(key, b"0");
            let found: Vec<String> = state::scan(key, 10).into_iter().map(|(key, _)| key).collect();
            state::delete(&format!("{key}/a"));
            return Ok(Made::One(json!({ "found": found, "left": state::scan(key, 10).len() }).to_string()));
        }
        _ => {}
    }
    Ok(Made::One("{}".into()))
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let weight = black_box([depth; 64]);
    recurse(black_box(depth + 1)) + weight[63]
}

fn output(cause: Option<u32>, payload: String) -> Output {
    Output { cause, key: "made".into(), time_ms: 1, headers: Vec::new(), payload: payload.into_bytes() }
}
