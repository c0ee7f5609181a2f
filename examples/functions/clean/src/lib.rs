//! Cleans fares: drops rows without a price, rounds prices to cents, and adds `days_left` (to
//! departure), `carrier` (the letters of the flight's code) and, when configured, `currency`.
//!
//! ```toml
//! [stage.clean]
//! from   = ["quotes"]
//! wasm   = "functions/clean.wasm"
//! config = { currency = "EUR" }
//! ```

use serde_json::{Map, Value};

wit_bindgen::generate!({ world: "function", path: "../../../protocol/wit" });

use dunlin::function::host;

struct Clean;

export!(Clean);

impl Guest for Clean {
    fn handle(batch: Vec<Event>) -> Result<Vec<Output>, Failure> {
        let config: Value = serde_json::from_str(&host::config()).unwrap_or_default();
        let currency = config.get("currency").and_then(Value::as_str);

        let mut outputs = Vec::new();
        for (place, event) in batch.into_iter().enumerate() {
            let Ok(Value::Object(mut fare)) = serde_json::from_slice(&event.payload) else {
                return Err(Failure::GiveUp(format!("event {} is no JSON object", event.id)));
            };
            if !clean(&mut fare, event.time_ms, currency) {
                continue;
            }
            outputs.push(Output {
                cause: Some(place as u32),
                key: event.key,
                time_ms: event.time_ms,
                headers: event.headers,
                payload: Value::Object(fare).to_string().into_bytes(),
            });
        }
        Ok(outputs)
    }
}

/// False when the row has no usable price and is to be dropped.
fn clean(fare: &mut Map<String, Value>, time_ms: u64, currency: Option<&str>) -> bool {
    let price = fare.get("price").and_then(Value::as_f64).unwrap_or(0.0);
    if price <= 0.0 {
        return false;
    }
    fare.insert("price".into(), ((price * 100.0).round() / 100.0).into());

    if let Some(departure) = fare.get("departure").and_then(Value::as_str).and_then(epoch_ms) {
        let days = (departure - time_ms as i64) as f64 / 86_400_000.0;
        fare.insert("days_left".into(), ((days * 100.0).round() / 100.0).into());
    }
    if let Some(flight) = fare.get("flight").and_then(Value::as_str) {
        let carrier: String = flight.chars().take_while(char::is_ascii_alphabetic).collect();
        fare.insert("carrier".into(), carrier.into());
    }
    if let Some(currency) = currency {
        fare.insert("currency".into(), currency.into());
    }
    true
}

/// `2019-04-01T08:10:00Z` or `2019-04-01 08:10:00` (UTC) as milliseconds since 1970.
fn epoch_ms(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days since 1970 of a Gregorian date, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day;
    Some((((days - 719_469) * 24 + hour) * 60 + minute) * 60_000 + second * 1000)
}
