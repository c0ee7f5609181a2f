//! The figures of a report: what was gathered becomes drawings with a sentence on how to read them.

use std::collections::BTreeMap;

use dunlin_protocol::time::Time;

use super::bins::{Bins, Join};
use super::drawing::{Plot, Size, escaped};
use super::gathered::{Errors, Gathered, OfTarget, WIDTH, WIDTHS};
use super::page::ahead;
use super::path::{Ends, LATEST, Path, Point};
use super::scale::{Scale, count, exact, moment, number, percent};

/// Keys whose series are drawn.
const KEYS_MAX: usize = 3;
/// Points beyond which a line is drawn fine, and without dots.
const DENSE: usize = 200;
/// Points of a line of errors: more would be all noise.
const POINTS: usize = 120;
/// Stretches of probability.
const GROUPS: usize = 20;
/// Fills for so many models; more share the last one.
const FILLS: usize = 8;

fn figure(title: &str, reading: &str, keys: &[(&str, &str)], svg: &str) -> String {
    let keys: String = keys
        .iter()
        .map(|(colour, text)| {
            let (colour, class) = match colour.strip_prefix("wide ") {
                Some(colour) => (colour, " class=\"wide\""),
                None => (*colour, ""),
            };
            format!("<span{class} style=\"--c: var(--{colour})\">{}</span>", escaped(text))
        })
        .collect();
    let keys = if keys.is_empty() { keys } else { format!("<div class=\"keys\">{keys}</div>") };
    format!(
        "<figure><figcaption><b>{}</b><span>{}</span></figcaption>{keys}{svg}</figure>\n",
        escaped(title),
        escaped(reading)
    )
}

// --- predictions and outcomes ---

/// Predictions with their intervals against outcomes, of the busiest keys.
pub fn paths(of: &OfTarget) -> String {
    let mut out = String::new();
    for path in of.busiest(KEYS_MAX) {
        let horizon = |index: usize| {
            if of.horizons.len() > 1 { format!(", {}", ahead(of, index)) } else { String::new() }
        };
        let key = if path.key.is_empty() { String::new() } else { format!(" of {}", path.key) };
        let later = path.ahead();
        if path.first.latest.is_empty() && later.is_empty() {
            continue;
        }
        let latest: Vec<Point> = path.first.latest.iter().copied().collect();
        let title = format!("Predictions and outcomes{key}{}", horizon(0));
        let reading = match (path.n as usize > latest.len(), later.is_empty()) {
            (true, false) => format!("The last {LATEST} outcomes, and what is expected next (dashed)."),
            (true, true) => format!("The last {LATEST} outcomes."),
            (false, false) => "All outcomes, and what is expected next (dashed).".to_string(),
            (false, true) => "All outcomes.".to_string(),
        };
        out.push_str(&drawn(&title, &reading, &latest, &later));
        if path.n as usize > LATEST {
            out.push_str(&whole(&path.first, path, &format!("All of it{key}{}", horizon(0))));
        }
        if of.horizons.len() > 1 && !path.last.latest.is_empty() {
            let last = of.horizons.len() - 1;
            out.push_str(&whole(
                &path.last,
                path,
                &format!("Predictions and outcomes{key}{}", horizon(last)),
            ));
        }
    }
    out
}

fn whole(ends: &Ends, path: &Path, title: &str) -> String {
    let points: Vec<Point> = ends.all.values().copied().collect();
    let reading = if path.n as usize > points.len() {
        format!("{} of {} outcomes, evenly over time.", count(points.len() as u64), count(path.n))
    } else {
        "All outcomes.".to_string()
    };
    drawn(title, &reading, &points, &[])
}

fn drawn(title: &str, reading: &str, points: &[Point], later: &[Point]) -> String {
    let x = |point: &Point| point.at.0 as f64;
    let all = || points.iter().chain(later);
    let time = Scale::around(all().map(x));
    let (first, last) = (all().map(x).fold(f64::INFINITY, f64::min), all().map(x).fold(0.0, f64::max));
    let time = if last > first { Scale { from: first, to: last } } else { time };
    let mut plot = Plot::over_time(Size::Wide, time, height(all()));
    let band = |points: &[Point]| -> Vec<(f64, f64, f64)> {
        points.iter().map(|point| (x(point), point.low, point.high)).collect()
    };
    plot.band("", &band(points));
    // What is expected goes on where what was said ends.
    let joined: Vec<Point> = points.last().into_iter().chain(later).copied().collect();
    plot.band("", &band(&joined));
    plot.line("ahead", joined.iter().map(|point| (x(point), point.value)));
    let dense = points.len() > DENSE;
    let (model, truth_line, dot) =
        if dense { ("model fine", "truth fine", "ghost") } else { ("model", "truth", "truth-dot") };
    plot.line(model, points.iter().map(|point| (x(point), point.value)));
    let truths = || points.iter().filter_map(|point| Some((point, point.truth?)));
    plot.line(truth_line, truths().map(|(point, truth)| (x(point), truth)));
    for (point, truth) in truths() {
        let tells = format!(
            "{}: {} came true; said was {} ({} to {}), the last value {}",
            moment(point.at),
            exact(truth),
            exact(point.value),
            exact(point.low),
            exact(point.high),
            exact(point.last_value)
        );
        plot.dot(dot, (x(point), truth), &tells);
    }
    let keys = [("ink", "outcome"), ("model", "prediction"), ("wide band", "its interval")];
    figure(title, reading, &keys, &plot.svg(title, ""))
}

/// Room for what was said and what came true; intervals may run off where they are far wider.
fn height<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> Scale {
    let middle = points.clone().flat_map(|point| [Some(point.value), point.truth]).flatten();
    let near = Scale::around(middle);
    let room = near.to - near.from;
    let bounds = points.flat_map(|point| [point.low, point.high]);
    let bounds = bounds.map(|bound| bound.clamp(near.from - 0.5 * room, near.to + 0.5 * room));
    Scale::around(bounds.chain([near.from, near.to]))
}

// --- errors ---

/// Errors over time and by horizon, beside the naive line's.
pub fn errors(of: &OfTarget) -> String {
    let mut out = String::new();
    let many = of.horizons.len() > 1;
    for (horizon, bins) in of.chosen.iter().zip(&of.over_time) {
        if bins.len() < 2 {
            continue;
        }
        let title = match many {
            true => format!("Error over time, {}", ahead(of, *horizon)),
            false => "Error over time".to_string(),
        };
        let points = coarse(bins);
        let both = points.iter().flat_map(|(_, errors)| [errors.mae(), errors.mae_last_value()]);
        let (time, height) = (stretch(&points), Scale::from_zero(both));
        let mut plot = Plot::over_time(Size::Low, time, height);
        plot.line("naive", points.iter().map(|(at, errors)| (*at, errors.mae_last_value())));
        plot.line("model", points.iter().map(|(at, errors)| (*at, errors.mae())));
        let mut keys = vec![("model", "the stage"), ("naive", "the last value")];
        if *horizon == 0 {
            for (at, marks) in of.drifts.iter() {
                let tells = format!("{} drift marks about {}", marks.0, moment(Time(at as u64)));
                plot.mark("drift", at, &tells);
            }
            if of.drifts.len() > 0 {
                keys.push(("drift", "drift marks"));
            }
        }
        let reading = format!(
            "Mean absolute error of the outcomes of each stretch of time, {} in all; lower is better.",
            count(points.iter().map(|(_, errors)| errors.n).sum())
        );
        out.push_str(&figure(&title, &reading, &keys, &plot.svg(&title, "")));
    }
    out.push_str(&gains(of));
    if many {
        out.push_str(&by_horizon(of));
    }
    out
}

/// The bins, several in one where they are many.
fn coarse(bins: &Bins<Errors>) -> Vec<(f64, Errors)> {
    let all: Vec<(f64, Errors)> = bins.iter().map(|(at, errors)| (at, *errors)).collect();
    let joined = |some: &[(f64, Errors)]| {
        let mut sum = Errors::default();
        some.iter().for_each(|(_, errors)| sum.join(*errors));
        (some.iter().map(|(at, _)| at).sum::<f64>() / some.len() as f64, sum)
    };
    all.chunks(all.len().div_ceil(POINTS).max(1)).map(joined).collect()
}

fn stretch(points: &[(f64, Errors)]) -> Scale {
    match (points.first(), points.last()) {
        (Some((from, _)), Some((to, _))) if to > from => Scale { from: *from, to: *to },
        _ => Scale::around(points.iter().map(|(at, _)| *at)),
    }
}

/// What was gained over the naive line until then.
fn gains(of: &OfTarget) -> String {
    let lines: Vec<Vec<(f64, f64)>> = of
        .over_time
        .iter()
        .map(|bins| {
            let mut sum = Errors::default();
            let gain = |(at, errors): (f64, &Errors)| {
                sum.join(*errors);
                sum.gain().map(|gain| (at, 100.0 * gain))
            };
            bins.iter().filter_map(gain).collect()
        })
        .collect();
    let Some(first) = lines.first().filter(|line| line.len() > 1) else { return String::new() };
    let (Some((from, _)), Some((to, _))) = (first.first(), first.last()) else { return String::new() };
    // The first outcomes swing: the scale is that of what comes behind them.
    let calm = lines.iter().flat_map(|line| line.iter().skip(line.len() / 20).map(|(_, gain)| *gain));
    let height = Scale::around(calm.map(|gain| gain.max(-100.0)).chain([0.0]));
    let mut plot = Plot::over_time(Size::Low, Scale { from: *from, to: *to }, height);
    plot.level("asked", 0.0);
    let classes = ["model", "w2l", "w3l"];
    let mut keys = Vec::new();
    let colours = ["model", "w2", "w3"];
    let names: Vec<String> = of.chosen.iter().map(|horizon| ahead(of, *horizon)).collect();
    for (((line, class), colour), name) in lines.iter().zip(classes).zip(colours).zip(&names) {
        plot.line(class, line.iter().copied());
        keys.push((colour, name.as_str()));
    }
    if of.chosen.len() == 1 {
        keys.clear();
    }
    let title = "Running gain over the last value";
    let reading = "By how many per cent the mean absolute error of everything settled until then is below that of the \
                   last value; under zero, the last value is better.";
    figure(title, reading, &keys, &plot.svg(title, ""))
}

fn by_horizon(of: &OfTarget) -> String {
    let at: Vec<f64> = match of.spans.iter().copied().collect::<Option<Vec<u64>>>() {
        Some(spans) => spans.iter().map(|millis| *millis as f64 / 3_600_000.0).collect(),
        None => (1..=of.horizons.len()).map(|steps| steps as f64).collect(),
    };
    let both = of.horizons.iter().flat_map(|errors| [errors.mae(), errors.mae_last_value()]);
    let (x, y) = (Scale { from: 0.0, to: at.last().copied().unwrap_or(1.0) }, Scale::from_zero(both));
    let mut plot = Plot::over_numbers(Size::Low, x, y);
    plot.line("naive", at.iter().copied().zip(of.horizons.iter().map(Errors::mae_last_value)));
    plot.line("model", at.iter().copied().zip(of.horizons.iter().map(Errors::mae)));
    for (at, (index, errors)) in at.iter().zip(of.horizons.iter().enumerate()) {
        let tells = format!(
            "{}: {}, the last value {}",
            ahead(of, index),
            number(errors.mae()),
            number(errors.mae_last_value())
        );
        plot.dot("model-dot", (*at, errors.mae()), &tells);
    }
    let below = if of.spans.iter().all(Option::is_some) { "hours ahead" } else { "steps ahead" };
    let (title, reading) = ("Error by horizon", "Mean absolute error over everything that is kept.");
    let keys = [("model", "the stage"), ("naive", "the last value")];
    figure(title, reading, &keys, &plot.svg(title, below))
}

// --- weights ---

/// Weights of the models over time, one upon the other.
pub fn weights(gathered: &Gathered) -> String {
    let bins: Vec<(f64, BTreeMap<&str, f64>)> = gathered
        .weights
        .iter()
        .map(|(at, weights)| {
            let n = weights.n.max(1) as f64;
            (at, weights.sums.iter().map(|(name, sum)| (name.as_str(), sum / n)).collect())
        })
        .collect();
    let mut names: Vec<&str> = bins.iter().flat_map(|(_, weights)| weights.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    // What is naive lies at the bottom.
    names.sort_by_key(|name| *name != "last_value");
    let (Some((from, _)), Some((to, newest))) = (bins.first(), bins.last()) else { return String::new() };
    if to <= from || names.is_empty() {
        return String::new();
    }
    let mut plot = Plot::over_time(Size::Low, Scale { from: *from, to: *to }, Scale { from: 0.0, to: 1.0 });
    let mut floor = vec![0.0; bins.len()];
    let mut keys = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let fill = index.min(FILLS - 1);
        let band: Vec<(f64, f64, f64)> = bins
            .iter()
            .zip(&floor)
            .map(|((at, weights), low)| (*at, *low, low + weights.get(name).copied().unwrap_or(0.0)))
            .collect();
        plot.band(&format!("w{fill}"), &band);
        for (low, (_, _, high)) in floor.iter_mut().zip(&band) {
            *low = *high;
        }
        let now = newest.get(name).copied().unwrap_or(0.0);
        keys.push((format!("wide w{fill}"), format!("{name} {}", percent(now))));
    }
    let keys: Vec<(&str, &str)> =
        keys.iter().map(|(colour, text)| (colour.as_str(), text.as_str())).collect();
    let title = "Weights of the models";
    let reading = "How much each model is listened to, on average over what was said in each stretch of time; the figures \
                   are those of the last one.";
    format!("<h2>Models</h2>\n{}", figure(title, reading, &keys, &plot.svg(title, "")))
}

// --- calibration ---

/// Whether probabilities and intervals hold what they say.
pub fn calibration(of: &OfTarget, interval: Option<f64>) -> String {
    let mut out = String::from("<div class=\"pair\">\n");
    if of.chances.n() > 0 {
        out.push_str(&reliability(of));
        out.push_str(&chances(of));
    }
    out.push_str(&covered(of, interval));
    out.push_str(&pairs(of));
    out.push_str("</div>\n");
    out.push_str(&coverage(of, interval));
    out
}

fn reliability(of: &OfTarget) -> String {
    let unit = Scale { from: 0.0, to: 1.0 };
    let mut plot = Plot::over_numbers(Size::Half, unit, unit);
    plot.line("asked", [(0.0, 0.0), (1.0, 1.0)].into_iter());
    let groups = of.chances.groups(GROUPS);
    for group in &groups {
        let (low, high) = wilson(group.happened, group.n);
        plot.stalk("stalk", group.said, low, high);
    }
    plot.line("model", groups.iter().map(|group| (group.said, group.happened)));
    for group in &groups {
        let tells = format!(
            "said {}, happened in {} of {}",
            percent(group.said),
            percent(group.happened),
            count(group.n)
        );
        plot.dot("model-dot", (group.said, group.happened), &tells);
    }
    let title = "Reliability of the probability";
    let reading = "How often it happened where so much was said; on the diagonal, what is said is so. The upright lines \
                   are what chance alone may do (95 %).";
    figure(title, reading, &[], &plot.svg(title, "probability that was said"))
}

/// Where a share that was seen so often may really lie, 19 times of 20 (Wilson 1927).
fn wilson(share: f64, n: u64) -> (f64, f64) {
    const Z: f64 = 1.96;
    let n = n.max(1) as f64;
    let middle = share + Z * Z / (2.0 * n);
    let room = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let of = 1.0 + Z * Z / n;
    ((middle - room) / of, (middle + room) / of)
}

fn chances(of: &OfTarget) -> String {
    let groups = of.chances.groups(GROUPS);
    let most = groups.iter().map(|group| group.n).max().unwrap_or(1) as f64;
    let y = Scale { from: 0.0, to: most * 1.08 };
    let mut plot = Plot::over_numbers(Size::Half, Scale { from: 0.0, to: 1.0 }, y);
    for group in &groups {
        let from = (group.said * GROUPS as f64).floor().min(GROUPS as f64 - 1.0) / GROUPS as f64;
        let tells =
            format!("{} to {}: {}", percent(from), percent(from + 1.0 / GROUPS as f64), count(group.n));
        plot.bar("bar", (from, from + 1.0 / GROUPS as f64), group.n as f64, &tells);
    }
    let title = "How often each probability was said";
    figure(title, "The further apart, the more is known.", &[], &plot.svg(title, "probability that was said"))
}

fn covered(of: &OfTarget, interval: Option<f64>) -> String {
    let to = WIDTHS as f64 / WIDTH as f64;
    let mut plot = Plot::over_numbers(Size::Half, Scale { from: 0.0, to }, Scale { from: 0.0, to: 1.0 });
    let curve = of.covered();
    plot.mark("asked", 1.0, "the interval as it was given");
    if let Some(interval) = interval {
        plot.level("asked", interval);
        plot.words(to * 0.72, interval - 0.08, &format!("asked for: {}", percent(interval)));
    }
    plot.line("model", curve.iter().copied());
    if let Some((at, inside)) = curve.get(WIDTH) {
        plot.dot("model-dot", (*at, *inside), &format!("within the interval: {}", percent(*inside)));
    }
    let title = "Coverage of the interval";
    let reading = "The part of outcomes within the interval, were it so many times as wide; at 1 it is the one that was given, \
                   and should hold what was asked for.";
    figure(title, reading, &[], &plot.svg(title, "widths of the interval"))
}

fn pairs(of: &OfTarget) -> String {
    // A few that lie far off do not press the others into a corner.
    let mut both: Vec<f64> = of.pairs.iter().flat_map(|(said, truth)| [*said, *truth]).collect();
    both.sort_unstable_by(f64::total_cmp);
    let few = both.len() / 200;
    let scale = Scale::around(both.iter().copied().skip(few).take(both.len() - 2 * few));
    let mut plot = Plot::over_numbers(Size::Half, scale, scale);
    plot.line("asked", [(scale.from, scale.from), (scale.to, scale.to)].into_iter());
    for (said, truth) in of.pairs.iter() {
        plot.dot("pair-dot", (*said, *truth), &format!("said {}, came true {}", exact(*said), exact(*truth)));
    }
    let title = "Said and come true";
    let reading = match of.pairs.is_whole() {
        true => "Every settled prediction; on the diagonal it was right.".to_string(),
        false => format!(
            "{} settled predictions, drawn evenly from all keys and times; on the diagonal they were right.",
            count(of.pairs.iter().count() as u64)
        ),
    };
    figure(title, &reading, &[], &plot.svg(title, "prediction"))
}

/// Coverage over time, for each horizon that is drawn.
fn coverage(of: &OfTarget, interval: Option<f64>) -> String {
    let lines: Vec<Vec<(f64, f64)>> = of.over_time.iter().map(smoothed).collect();
    let Some(first) = lines.first().filter(|line| line.len() > 1) else { return String::new() };
    let (Some((from, _)), Some((to, _))) = (first.first(), first.last()) else { return String::new() };
    let lowest = lines.iter().flatten().map(|(_, inside)| *inside).chain(interval).fold(1.0, f64::min);
    let height = Scale { from: (lowest - 0.05).max(0.0), to: 1.0 };
    let mut plot = Plot::over_time(Size::Low, Scale { from: *from, to: *to }, height);
    if let Some(interval) = interval {
        plot.level("asked", interval);
    }
    let names: Vec<String> = of.chosen.iter().map(|horizon| ahead(of, *horizon)).collect();
    let mut keys = Vec::new();
    for (((line, class), colour), name) in
        lines.iter().zip(["model", "w2l", "w3l"]).zip(["model", "w2", "w3"]).zip(&names)
    {
        plot.line(class, line.iter().copied());
        keys.push((colour, name.as_str()));
    }
    if of.chosen.len() == 1 {
        keys.clear();
    }
    if interval.is_some() {
        keys.push(("soft", "asked for"));
    }
    let title = "Coverage over time";
    let reading = "The part of outcomes within their interval, over about a twentieth of the time.";
    figure(title, reading, &keys, &plot.svg(title, ""))
}

/// Shares inside, each over a window of bins around it.
fn smoothed(bins: &Bins<Errors>) -> Vec<(f64, f64)> {
    let all: Vec<(f64, Errors)> = bins.iter().map(|(at, errors)| (at, *errors)).collect();
    let reach = all.len() / 40;
    let around = |(index, (at, _)): (usize, &(f64, Errors))| {
        let mut sum = Errors::default();
        let window = all.iter().skip(index.saturating_sub(reach)).take(2 * reach + 1);
        window.for_each(|(_, errors)| sum.join(*errors));
        (*at, sum.inside())
    };
    all.iter().enumerate().map(around).collect()
}
