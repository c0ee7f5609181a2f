//! An event as the experts see it: named numbers and hashed tokens.
//!
//! Fields are taken by their kind: numbers as they are; times as their distance from the event's
//! time and their calendar parts; texts as categories (and, when they are made of parts, by their
//! first part too). The key's own path is always there.

use dunlin_protocol::event::Event;
use dunlin_protocol::time::Time;
use serde_json::{Map, Value};

use super::cells::{cell_of, named, place_of, text};
use super::lately::GROUPS_MAX;
use super::series::Series;

const HOUR: f64 = 3_600_000.0;
const DAY: f64 = 24.0 * HOUR;
/// Fields of each kind that take part in crosses.
const CROSSED: usize = 3;
/// Categories that are crossed with two other things at once.
const CROSSED_TWICE: usize = 2;
/// Categories whose rows are groups.
const GROUPED: usize = 4;
/// Numbers of which a coarse level is a group, the logarithm of its width, and categories that it is
/// crossed with.
const LEVELS: usize = 1;
const LEVEL: f64 = 0.35;
const LEVELLED: usize = 2;
/// Cells of a row at most.
const TOKENS_MAX: usize = 64;
/// Beyond, a number counts as missing: its square must stay finite.
const NUMBER_MAX: f64 = 1e100;

/// Names are hashed: see `cells::text` and `cells::named`.
#[derive(Debug, Default)]
pub struct Row {
    pub numbers: Vec<(u64, f64)>,
    /// Those among them that are fields of the event.
    pub own: Vec<(u64, f64)>,
    pub tokens: Vec<u16>,
    /// Tokens whose cell's means are inputs of the lines as well.
    pub encoded: Vec<(u64, u16)>,
    /// What is remembered of lately: categories, pairs of them, each at its hour, and all together.
    pub groups: Vec<(u64, u16)>,
    /// Whose values moved lately.
    pub moves: Vec<Moves>,
    /// Where the mean change of each class is known more closely: first cells, one for each class behind.
    pub reads: Vec<u16>,
    /// Whether the event has a key, and so a past of its own.
    pub keyed: bool,
    parts: Parts,
}

/// A group of series whose moves are remembered.
#[derive(Debug, Clone, Copy)]
pub struct Moves {
    pub name: u64,
    /// That of the row, as it is now, and the one it belonged to before it moved.
    pub place: u16,
    pub from: u16,
}

/// What a row is made of besides the event.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub features: Option<&'a [String]>,
    /// Fields that are not features by default: target, label and its time.
    pub hidden: [&'a str; 2],
    pub seed: u64,
    pub series: &'a Series,
    /// The naive line's value; what it is measured against.
    pub value: f64,
    pub unit: f64,
    /// The value before this event.
    pub before: Option<f64>,
    /// The horizon, or a day: the measure of distances in time.
    pub span: f64,
    /// The field that the label is measured from, by name; the outer one is none while that is open.
    pub measured_from: Option<Option<u64>>,
    /// Whether there is a path to tell of: something was seen, and if its values are labels of rows, the
    /// rows have a key.
    pub path: bool,
}

/// A field as a number; `None` when missing or beyond all measure.
pub fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64().filter(|n| n.abs() < NUMBER_MAX),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        _ => None,
    }
}

/// A text that reads as an instant.
pub fn instant(value: &str) -> Option<Time> {
    let dated = value.len() >= 10
        && value.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && value.as_bytes().get(4) == Some(&b'-');
    if dated { Time::parse(value) } else { None }
}

impl Row {
    /// Makes this the event's row, whatever it was before.
    pub fn fill(&mut self, event: &Event, payload: &Map<String, Value>, context: &Context) {
        self.numbers.clear();
        self.own.clear();
        self.tokens.clear();
        self.encoded.clear();
        self.groups.clear();
        self.moves.clear();
        self.reads.clear();
        self.keyed = !event.key.is_empty();
        let mut parts = core::mem::take(&mut self.parts);
        parts.clear();
        Maker { row: self, context }.fields(event, payload, &mut parts);
        self.parts = parts;
    }
}

struct Maker<'a> {
    row: &'a mut Row,
    context: &'a Context<'a>,
}

/// Time and category tokens of the fields, by hashed name, for crosses.
#[derive(Debug, Default)]
struct Parts {
    /// With a coarse and a fine step of the distance.
    distances: Vec<(u64, u64, u64)>,
    clocks: Vec<(u64, u64, u64)>,
    categories: Vec<(u64, u64)>,
    levels: Vec<(u64, u64)>,
}

impl Parts {
    fn clear(&mut self) {
        self.distances.clear();
        self.clocks.clear();
        self.categories.clear();
        self.levels.clear();
    }
}

impl Maker<'_> {
    fn number(&mut self, name: u64, value: f64) {
        self.row.numbers.push((name, value));
    }

    fn token(&mut self, kind: u64, parts: &[u64]) -> u16 {
        let cell = cell_of(self.context.seed, kind, parts);
        if self.row.tokens.len() < TOKENS_MAX && !self.row.tokens.contains(&cell) {
            self.row.tokens.push(cell);
        }
        cell
    }

    fn encode(&mut self, kind: u64, parts: &[u64]) {
        let cell = self.token(kind, parts);
        self.row.encoded.push((named(const { text("mean of") }, kind), cell));
    }

    fn fields(&mut self, event: &Event, payload: &Map<String, Value>, parts: &mut Parts) {
        let key = core::str::from_utf8(&event.key).unwrap_or("");
        match self.context.features {
            Some(names) => {
                for name in names {
                    self.field(name, payload.get(name), event.time, key, parts);
                }
            }
            None => {
                let hidden = self.context.hidden;
                for (name, value) in payload.iter().filter(|(name, _)| !hidden.contains(&name.as_str())) {
                    self.field(name, Some(value), event.time, key, parts);
                }
            }
        }
        self.token(const { text("all") }, &[]);
        let (hour, day) = clock(event.time);
        self.calendar(const { text("now") }, event.time);
        self.token(const { text("hour") }, &[hour / 3]);
        self.token(const { text("day") }, &[day]);
        if !key.is_empty() {
            self.encode(const { text("key") }, &[text(key)]);
        }
        if self.context.path {
            self.path(event.time, day, parts);
        }
        self.crosses(parts);
        self.groups(hour, parts);
    }

    fn field(&mut self, name: &str, value: Option<&Value>, now: Time, key: &str, parts: &mut Parts) {
        let name = text(name);
        match value {
            Some(Value::String(value)) => match instant(value) {
                Some(at) => self.time(name, at, now, parts),
                None => {
                    // The key has a token of its own.
                    if value != key {
                        parts.categories.push((name, text(value)));
                    }
                    if let Some((first, _)) = value.split_once(|c: char| !c.is_alphanumeric())
                        && !first.is_empty()
                    {
                        parts.categories.push((named(const { text("first part") }, name), text(first)));
                    }
                }
            },
            other => {
                if let Some(n) = number(other) {
                    self.number(name, n);
                    self.row.own.push((name, n));
                    parts.levels.push((name, rung(n)));
                }
            }
        }
    }

    fn time(&mut self, name: u64, at: Time, now: Time, parts: &mut Parts) {
        let distance = at.0 as f64 - now.0 as f64;
        if distance.abs() < 1000.0 {
            // The event's own time: its calendar is there already.
            return;
        }
        let spans = distance / self.context.span;
        self.number(named(const { text("in") }, name), spans.clamp(-1e6, 1e6));
        self.number(named(const { text("in, log") }, name), spans.signum() * (1.0 + spans.abs() * 3.0).ln());
        self.calendar(name, at);
        let (hour, day) = clock(at);
        let step = |size: f64, even: f64| step_of(spans.abs() * size, even) * 2 + u64::from(distance < 0.0);
        parts.distances.push((name, step(3.0, 24.0), step(6.0, 72.0)));
        parts.clocks.push((name, hour, day));
    }

    fn calendar(&mut self, name: u64, at: Time) {
        let turn = at.0 as f64 / DAY * std::f64::consts::TAU;
        self.number(named(const { text("of day, sin") }, name), turn.sin());
        self.number(named(const { text("of day, cos") }, name), turn.cos());
        self.number(named(const { text("of week, sin") }, name), (turn / 7.0).sin());
        self.number(named(const { text("of week, cos") }, name), (turn / 7.0).cos());
    }

    fn path(&mut self, now: Time, day: u64, parts: &Parts) {
        let Context { series, value, unit, span, .. } = *self.context;
        let since = now.since(series.changed_at).0 as f64;
        let age = now.since(series.first_at).0 as f64;
        let previous = series.previous.unwrap_or(value);
        let relative = |other: f64| ((value - other) / unit).clamp(-10.0, 10.0);
        self.number(const { text("value") }, value.signum() * (1.0 + value.abs()).ln());
        self.number(const { text("since change") }, (1.0 + since / span * 3.0).ln());
        self.number(const { text("age") }, (1.0 + age / span * 3.0).ln());
        self.number(const { text("from own max") }, relative(series.max));
        self.number(const { text("from own min") }, relative(series.min));
        self.number(const { text("from own mean") }, relative(series.mean));
        self.number(const { text("last move") }, relative(previous));
        self.number(const { text("changes") }, (series.changes as f64 + 1.0).ln());
        let (here, before) = (rung(value), series.previous.map_or(0, rung));
        let oldest = series.earlier.map_or(0, rung);
        let quiet = (1.0 + since / HOUR).log2() as u64;
        let step = ((relative(previous) * 20.0).round() + 1000.0) as u64;
        self.encode(const { text("rung") }, &[here]);
        self.encode(const { text("rung, before") }, &[here, before]);
        self.token(const { text("rung, before, oldest") }, &[here, before, oldest]);
        self.token(const { text("rung, quiet") }, &[here, quiet]);
        self.token(const { text("rung, day") }, &[here, day]);
        self.token(const { text("move, quiet") }, &[step.min(2000), quiet]);
        let high = ((relative(series.max) * 10.0).round() + 1000.0) as u64;
        let low = ((relative(series.min) * 10.0).round() + 1000.0) as u64;
        self.token(const { text("high, low") }, &[high, low]);
        for (name, distance, fine) in parts.distances.iter().take(CROSSED) {
            self.encode(named(const { text("rung, in") }, *name), &[here, *distance]);
            self.encode(named(const { text("rung, in, fine") }, *name), &[here, *fine]);
        }
        if let Some((name, _, fine)) = parts.distances.first() {
            self.token(named(const { text("quiet, in") }, *name), &[quiet, *fine]);
            self.token(named(const { text("high, in") }, *name), &[high, *fine]);
            self.token(named(const { text("low, in") }, *name), &[low, *fine]);
        }
        for (name, hour, weekday) in parts.clocks.iter().take(CROSSED) {
            self.token(named(const { text("rung, hour") }, *name), &[here, *hour]);
            self.token(named(const { text("rung, day") }, *name), &[here, *weekday]);
        }
        for (name, category) in parts.categories.iter().take(CROSSED) {
            self.encode(named(const { text("rung, of") }, *name), &[here, *category]);
        }
        for (name, category) in parts.categories.iter().take(CROSSED_TWICE) {
            if let Some((_, _, fine)) = parts.distances.first() {
                self.encode(named(const { text("rung, of, in") }, *name), &[here, *category, *fine]);
            }
            if let Some((_, _, weekday)) = parts.clocks.first() {
                self.token(named(const { text("rung, of, day") }, *name), &[here, *category, *weekday]);
            }
        }
        self.close(here, parts);
    }

    /// What is known of this value more closely: how it changes, and how its like moved lately.
    fn close(&mut self, here: u64, parts: &Parts) {
        let Context { seed, before, value, .. } = *self.context;
        let mut read = |parts: &[u64]| self.row.reads.push(cell_of(seed, const { text("read") }, parts));
        read(&[here]);
        if let Some((name, category)) = parts.categories.first() {
            read(&[here, *name, *category]);
        }
        if before.is_none() {
            return;
        }
        let mut moves = |name: u64, part: u64, from: u64| {
            let name = named(const { text("moves") }, name);
            let place = |part: u64| place_of(seed, name, &[part]);
            self.row.moves.push(Moves { name, place: place(part), from: place(from) });
        };
        for (name, category) in parts.categories.iter().take(CROSSED_TWICE) {
            moves(*name, *category, *category);
        }
        moves(const { text("rung") }, here, rung(before.unwrap_or(value)));
    }

    fn group(&mut self, kind: u64, parts: &[u64]) {
        if self.row.groups.len() < GROUPS_MAX {
            let name = named(const { text("lately") }, kind);
            self.row.groups.push((name, place_of(self.context.seed, name, parts)));
        }
    }

    fn groups(&mut self, hour: u64, parts: &Parts) {
        let at_hour = const { text("at its hour") };
        self.group(const { text("all") }, &[]);
        let all = parts.categories.get(..GROUPED).unwrap_or(&parts.categories);
        let mut rest = all;
        rest.iter().for_each(|(name, category)| self.group(*name, &[*category]));
        self.group(at_hour, &[hour]);
        rest.iter().for_each(|(name, category)| self.group(named(at_hour, *name), &[*category, hour]));
        while let Some(((name, category), others)) = rest.split_first() {
            for (other, with) in others {
                self.group(named(*name, *other), &[*category, *with]);
            }
            rest = others;
        }
        // Rows that are about as far, as heavy, as long; but what the label is measured from is in it.
        let Some(but) = self.context.measured_from else { return };
        let levels = self.row.own.iter().filter(|(name, _)| Some(*name) != but).take(LEVELS);
        let levels: Vec<(u64, u64)> = levels.map(|(name, n)| (*name, step(*n, LEVEL))).collect();
        for (name, level) in levels {
            self.group(named(const { text("level") }, name), &[level]);
            for (other, category) in all.iter().take(LEVELLED) {
                let kind = named(named(const { text("level") }, name), *other);
                self.group(kind, &[level, *category]);
            }
        }
    }

    fn crosses(&mut self, parts: &Parts) {
        for (name, category) in parts.categories.iter().take(8) {
            self.encode(*name, &[*category]);
            if let Some((other, distance, _)) = parts.distances.first() {
                self.encode(named(*name, *other), &[*category, *distance]);
            }
        }
        for (name, category) in parts.categories.iter().take(CROSSED_TWICE) {
            let closer = parts.distances.first().zip(parts.clocks.first());
            let Some(((other, distance, fine), (_, _, day))) = closer else { break };
            let kind = named(*name, *other);
            self.encode(named(const { text("fine") }, kind), &[*category, *fine]);
            self.token(named(const { text("day") }, kind), &[*category, *day]);
            self.encode(named(const { text("day, in") }, kind), &[*category, *day, *distance]);
        }
        for ((name, distance, fine), (_, hour, day)) in
            parts.distances.iter().zip(&parts.clocks).take(CROSSED)
        {
            self.token(*name, &[*distance]);
            self.token(named(const { text("fine") }, *name), &[*fine]);
            self.token(named(const { text("in, hour") }, *name), &[*distance, *hour]);
            self.encode(named(const { text("in, day") }, *name), &[*distance, *day]);
            self.token(named(const { text("hour, day") }, *name), &[*hour, *day]);
        }
        for (name, level) in parts.levels.iter().take(CROSSED) {
            self.token(*name, &[*level]);
        }
    }
}

/// Values within about a percent are one rung.
fn rung(value: f64) -> u64 {
    step(value, 0.015)
}

/// The number on a ladder on which each step is larger by this logarithm.
fn step(value: f64, size: f64) -> u64 {
    let steps = (value.abs().max(1e-12).ln() / size).round() + 100_000.0;
    steps as u64 * 2 + u64::from(value < 0.0)
}

/// So many even steps, then such that grow.
fn step_of(size: f64, even: f64) -> u64 {
    let size = size.min(1e9);
    let step = if size < even { size } else { even + (size / even).log2() * 4.0 };
    step as u64
}

/// Hour of the day and day of the week, UTC.
fn clock(at: Time) -> (u64, u64) {
    (at.0 / 3_600_000 % 24, (at.0 / 86_400_000 + 4) % 7)
}
