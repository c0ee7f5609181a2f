//! JSON objects whose fields are known, written without a detour.

use dunlin_protocol::time::Time;

/// An object that is being written. Names need no escapes.
#[derive(Debug)]
pub struct Object(Vec<u8>);

impl Object {
    pub fn with_capacity(bytes: usize) -> Object {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Object(text)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// What is not finite is null, as in all JSON.
    pub fn number(&mut self, name: &str, value: f64) {
        self.name(name);
        // Plain numbers and texts always serialise, and memory takes all bytes.
        _ = serde_json::to_writer(&mut self.0, &value);
    }

    pub fn count(&mut self, name: &str, value: u64) {
        self.name(name);
        _ = serde_json::to_writer(&mut self.0, &value);
    }

    pub fn yes_or_no(&mut self, name: &str, value: bool) {
        self.name(name);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        _ = serde_json::to_writer(&mut self.0, value);
    }

    pub fn time(&mut self, name: &str, value: Time) {
        self.name(name);
        self.0.push(b'"');
        value.spell(&mut self.0);
        self.0.push(b'"');
    }

    /// An object in this one, whose fields `write` adds.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object)) {
        self.name(name);
        self.0.push(b'{');
        write(self);
        self.0.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_it_was_written() {
        let mut object = Object::with_capacity(0);
        object.object("none", |_| {});
        object.object("two", |two| {
            two.number("a", 0.1 + 0.2);
            two.number("b", f64::NAN);
        });
        object.count("count", u64::MAX);
        object.yes_or_no("yes", true);
        object.text("text", "\"{");
        object.time("at", Time(1_551_525_014_250));
        let text = r#"{"none":{},"two":{"a":0.30000000000000004,"b":null},"count":18446744073709551615,"#;
        let rest = r#""yes":true,"text":"\"{","at":"2019-03-02T11:10:14.25Z"}"#;
        assert_eq!(String::from_utf8(object.end()).unwrap(), format!("{text}{rest}"));
    }
}
