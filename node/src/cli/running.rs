//! How learning stages do, for `show`: a line for each target and horizon, with the course of its error.

use dunlin_operators::running::{Ahead, KEY, OfTarget, Running};
use dunlin_protocol::id::Name;
use dunlin_protocol::rpc::{Request, Response, Shown};
use serde::Serialize;

use super::client::Client;
use super::output::Output;

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a course.
const COLUMNS: usize = 24;

/// One target and horizon of a stage, over all its shares and keys.
#[derive(Debug, Serialize)]
pub struct Learned {
    stage: String,
    target: String,
    /// How far ahead: steps, or a length of time; none where the label says when it is known.
    ahead: Option<String>,
    settled: u64,
    mae: f64,
    mae_last_value: f64,
    /// How often errors had begun to grow, of the first horizon.
    #[serde(skip_serializing_if = "Option::is_none")]
    drifts: Option<u64>,
    /// The mean error of the first horizon, from the first outcome to the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    course: Vec<f64>,
}

/// Of every stage that has it; what cannot be reached is left out.
pub fn learned(client: &dyn Client, shown: &Shown) -> Vec<Learned> {
    let mut lines = Vec::new();
    for stage in shown.stages.iter().filter(|stage| !stage.from.is_empty()) {
        let Ok(name) = stage.stage.parse::<Name>() else { continue };
        let key = String::from_utf8_lossy(KEY).into_owned();
        let request =
            Request::State { pipeline: shown.pipeline.clone(), stage: name, key: Some(key), limit: u32::MAX };
        let Ok(Response::State(entries)) = client.ask(request) else { continue };
        let shares: Vec<Running> = entries.iter().filter_map(|(_, value)| Running::of(value)).collect();
        lines.extend(together(&stage.stage, &shares));
    }
    lines
}

/// A table, if there is anything to say.
pub fn table(lines: &[Learned], out: &Output) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let row = |line: &Learned| {
        let gain = match line.mae_last_value > 0.0 {
            true => format!("{:.1} %", 100.0 * (1.0 - line.mae / line.mae_last_value)),
            false => "-".to_string(),
        };
        vec![
            line.stage.clone(),
            line.target.clone(),
            line.ahead.clone().unwrap_or_else(|| "-".to_string()),
            line.settled.to_string(),
            super::report::number(line.mae),
            super::report::number(line.mae_last_value),
            gain,
            line.drifts.map_or_else(String::new, |drifts| drifts.to_string()),
            sparks(&line.course),
        ]
    };
    let header =
        ["LEARNS", "TARGET", "AHEAD", "SETTLED", "ERROR", "LAST VALUE'S", "GAIN", "DRIFTS", "ERROR SO FAR"];
    out.table(&header, lines.iter().map(row).collect())
}

fn together(stage: &str, shares: &[Running]) -> Vec<Learned> {
    let mut names: Vec<&str> =
        shares.iter().flat_map(|share| &share.targets).map(|target| target.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut lines = Vec::new();
    for name in names {
        let targets: Vec<&OfTarget> =
            shares.iter().flat_map(|share| &share.targets).filter(|target| target.name == name).collect();
        let most = targets.iter().map(|target| target.horizons.len()).max().unwrap_or(0);
        for index in 0..most {
            let horizons: Vec<_> = targets.iter().filter_map(|target| target.horizons.get(index)).collect();
            let settled: u64 = horizons.iter().map(|horizon| horizon.n).sum();
            let mean = |sum: f64| sum / settled.max(1) as f64;
            lines.push(Learned {
                stage: stage.to_string(),
                target: name.to_string(),
                ahead: horizons.first().and_then(|horizon| ahead(horizon.ahead)),
                settled,
                mae: mean(horizons.iter().map(|horizon| horizon.absolute).sum()),
                mae_last_value: mean(horizons.iter().map(|horizon| horizon.absolute_last_value).sum()),
                drifts: (index == 0).then(|| targets.iter().map(|target| target.drifts).sum()),
                course: if index == 0 { course(&targets) } else { Vec::new() },
            });
        }
    }
    lines
}

fn ahead(ahead: Ahead) -> Option<String> {
    match ahead {
        Ahead::Known => None,
        Ahead::Steps(steps) => Some(steps.to_string()),
        Ahead::Millis(millis) => Some(super::report::span(millis)),
    }
}

/// The courses of all shares as one: each counts at every part of its life by its outcomes.
fn course(targets: &[&OfTarget]) -> Vec<f64> {
    let means: Vec<(Vec<f64>, f64)> = targets
        .iter()
        .map(|target| {
            let n = target.horizons.first().map_or(0, |horizon| horizon.n);
            (target.course.means(), n as f64)
        })
        .filter(|(means, _)| !means.is_empty())
        .collect();
    let columns = means.iter().map(|(means, _)| means.len()).max().unwrap_or(0).min(COLUMNS);
    let column = |column: usize| {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (means, n) in &means {
            let (from, to) = (column * means.len() / columns, (column + 1) * means.len() / columns);
            let some = means.iter().skip(from).take((to - from).max(1));
            sum += n * some.clone().sum::<f64>() / some.count().max(1) as f64;
            weight += n;
        }
        sum / weight
    };
    (0..columns).map(column).filter(|mean| mean.is_finite()).collect()
}

/// From the smallest to the largest of them.
fn sparks(means: &[f64]) -> String {
    let (least, most) =
        means.iter().fold((f64::INFINITY, 0.0f64), |(least, most), one| (least.min(*one), most.max(*one)));
    let spark = |mean: &f64| {
        let part = if most > least { (mean - least) / (most - least) } else { 0.0 };
        SPARKS.get((part * 7.0).round() as usize).copied().unwrap_or('▁')
    };
    means.iter().map(spark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_together() {
        let share = |error: f64, count: usize| {
            let mut running = Running::default();
            running.drifted("v", 1);
            for _ in 0..count {
                running.settled("v", [(Ahead::Millis(3_600_000), (error, 2.0))].into_iter());
            }
            running
        };
        let lines = together("s", &[share(1.0, 30), share(2.0, 10)]);
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((line.settled, line.mae, line.mae_last_value, line.drifts), (40, 1.25, 2.0, Some(2)));
        assert_eq!((line.ahead.as_deref(), line.course.len()), (Some("1 h"), COLUMNS));
        assert!(line.course.iter().all(|mean| (mean - 1.25).abs() < 1e-9), "{line:?}");
    }

    #[test]
    fn a_course_is_drawn_between_its_least_and_its_most() {
        assert_eq!(sparks(&[4.0, 2.0, 3.0, 2.0]), "█▁▅▁");
        assert_eq!(sparks(&[1.0, 1.0]), "▁▁");
        assert_eq!(sparks(&[]), "");
    }
}
