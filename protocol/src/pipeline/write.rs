//! A manifest as JSON text: one spelling for one manifest, so that it can be sent and digested.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::manifest::{
    AnomalySpec, Connector, ForecastSpec, Horizon, Label, LearnSpec, Manifest, Module, Operator, Outlet,
    Pace, PlacementRule, Sink, Source, Stage, StreamName, WasmSpec, WhenFull,
};
use super::parse::BY_DIGEST;
use super::quantity::spell_span;
use crate::id::Name;

impl Manifest {
    /// The canonical text: same manifest, same bytes; `Manifest::from_json` gives the manifest back.
    pub fn to_json(&self) -> String {
        let WhenFull::Block = self.retention.when_full;
        Object::new()
            .text("name", self.name.as_str())
            .text("durability", &self.durability.to_string())
            .raw("copies", self.copies.to_string())
            .raw(
                "retention",
                Object::new()
                    .text("age", &spell_span(self.retention.age))
                    .raw("bytes", self.retention.bytes.to_string())
                    .text("when_full", "block")
                    .end(),
            )
            .raw("source", named(&self.sources, source))
            .raw("stage", named(&self.stages, stage))
            .raw("sink", named(&self.sinks, sink))
            .raw("placement", named(&self.placement, placement))
            .end()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", texts.join(","))
}

fn named<T>(parts: &BTreeMap<Name, T>, write: impl Fn(&T) -> String) -> String {
    parts.iter().fold(Object::new(), |object, (name, part)| object.raw(name.as_str(), write(part))).end()
}

/// An object under construction; fields stand in the order of the calls.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object(String::new())
    }

    fn raw(mut self, key: &str, json: String) -> Object {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(&json);
        self
    }

    fn text(self, key: &str, text: &str) -> Object {
        self.raw(key, quoted(text))
    }

    fn some(self, key: &str, json: Option<String>) -> Object {
        match json {
            Some(json) => self.raw(key, json),
            None => self,
        }
    }

    fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

fn source(source: &Source) -> String {
    let object = Object::new()
        .some("key", source.key.as_deref().map(quoted))
        .some("time", source.time.as_deref().map(quoted))
        .text("lateness", &spell_span(source.lateness));
    match &source.connector {
        Connector::Publish => object,
        Connector::File { path, pace } => {
            let pace = match pace {
                Pace::Fast => "fast".to_string(),
                Pace::Times(1) => "real".to_string(),
                Pace::Times(times) => format!("{times}x"),
            };
            object.raw("file", Object::new().text("path", path).text("pace", &pace).end())
        }
        Connector::Host { every } => {
            object.raw("host", Object::new().text("every", &spell_span(*every)).end())
        }
    }
    .end()
}

fn from(streams: &[StreamName]) -> String {
    list(streams.iter().map(StreamName::to_string))
}

fn stage(stage: &Stage) -> String {
    let object = Object::new().raw("from", from(&stage.from)).some("key", stage.key.as_deref().map(quoted));
    match &stage.operator {
        Operator::Filter(expression) => object.text("filter", expression),
        Operator::Map(fields) => {
            let fields = fields.iter().fold(Object::new(), |map, (field, text)| map.text(field, text));
            object.raw("map", fields.end())
        }
        Operator::Wasm(WasmSpec { module, config, limits }) => {
            let module = match module {
                Module::Path(path) => path.clone(),
                Module::Digest(digest) => format!("{BY_DIGEST}{digest}"),
            };
            let limits = Object::new()
                .raw("fuel", limits.fuel.to_string())
                .raw("memory", limits.memory.to_string())
                .end();
            object.text("wasm", &module).raw("config", config.clone()).raw("limits", limits)
        }
        Operator::Learn(spec) => object.raw("learn", learn(spec)),
        Operator::Forecast(spec) => object.raw("forecast", forecast(spec)),
        Operator::Anomaly(spec) => object.raw("anomaly", anomaly(spec)),
    }
    .end()
}

/// Finite by construction, so always a JSON number.
fn number(value: f64) -> String {
    serde_json::Value::from(value).to_string()
}

fn learn(spec: &LearnSpec) -> String {
    let object = match &spec.label {
        Label::Later { target, after, rises_by } => Object::new()
            .text("target", target)
            .text("after", &spell_span(*after))
            .some("rises_by", rises_by.map(|fraction| number(fraction.0))),
        Label::SameRow { label, label_at } => {
            Object::new().text("label", label).some("label_at", label_at.as_deref().map(quoted))
        }
    };
    object
        .some("features", spec.features.as_ref().map(list))
        .some("models", spec.models.as_ref().map(list))
        .some("interval", spec.interval.map(|interval| number(interval.0)))
        .raw("seed", spec.seed.to_string())
        .end()
}

fn forecast(spec: &ForecastSpec) -> String {
    let horizon = match &spec.horizon {
        Horizon::Steps(steps) => steps.to_string(),
        Horizon::Spans(spans) => list(spans.iter().map(|span| spell_span(*span))),
    };
    Object::new()
        .raw("target", list(&spec.targets))
        .raw("horizon", horizon)
        .some("features", spec.features.as_ref().map(list))
        .some("models", spec.models.as_ref().map(list))
        .some("interval", spec.interval.map(|interval| number(interval.0)))
        .raw("seed", spec.seed.to_string())
        .end()
}

fn anomaly(spec: &AnomalySpec) -> String {
    Object::new()
        .some("features", spec.features.as_ref().map(list))
        .raw("window", spec.window.to_string())
        .raw("seed", spec.seed.to_string())
        .end()
}

fn sink(sink: &Sink) -> String {
    let object = Object::new().raw("from", from(&sink.from));
    match &sink.outlet {
        Outlet::Http { url } => object.raw("http", Object::new().text("url", url).end()),
        Outlet::File { path } => object.raw("file", Object::new().text("path", path).end()),
        Outlet::Stdout => object.raw("stdout", Object::new().end()),
    }
    .end()
}

fn placement(rule: &PlacementRule) -> String {
    let labels = rule.labels.iter().fold(Object::new(), |labels, (key, value)| labels.text(key, value));
    Object::new()
        .raw("labels", labels.end())
        .some("shares", rule.shares.map(|shares| shares.to_string()))
        .raw("spread", rule.spread.to_string())
        .end()
}
