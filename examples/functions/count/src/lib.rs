//! Counts events by key: the smallest function with state.

wit_bindgen::generate!({ world: "function", path: "../../../protocol/wit" });

use dunlin::function::state;
use serde_json::json;

struct Count;

export!(Count);

impl Guest for Count {
    fn handle(batch: Vec<Event>) -> Result<Vec<Output>, Failure> {
        let mut outputs = Vec::new();
        for (place, event) in batch.into_iter().enumerate() {
            let count = state::get(&event.key).map_or(0, |bytes| number(&bytes)) + 1;
            state::put(&event.key, count.to_string().as_bytes());
            let payload = json!({ "key": event.key, "count": count });
            outputs.push(Output {
                cause: Some(place as u32),
                key: event.key,
                time_ms: event.time_ms,
                headers: Vec::new(),
                payload: payload.to_string().into_bytes(),
            });
        }
        Ok(outputs)
    }
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
