//! The report as one HTML file: what was gathered, in words, figures and drawings.

use std::fmt::Write;

use super::drawing::escaped;
use super::figures;
use super::gathered::{Errors, Gathered, OfTarget};
use super::scale::{count, moment, number, percent, span};

/// Targets that are shown at once; the others can be opened.
const OPEN_MAX: usize = 3;
const STYLE: &str = include_str!("style.css");

/// `stage`: as users name it, `PIPELINE/STAGE`.
pub fn page(stage: &str, gathered: &Gathered) -> String {
    let mut out = String::with_capacity(1 << 18);
    let title = format!("{} · dunlin report", escaped(stage));
    _ = writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>"
    );
    header(&mut out, stage, gathered);
    let many = gathered.targets.len() > 1 || gathered.targets.values().any(|of| of.horizons.len() > 1);
    if many && gathered.settled > 0 {
        out.push_str("<h2>All figures</h2>\n");
        table(&mut out, gathered);
    }
    let (mut open, mut closed) = (String::new(), String::new());
    for (index, (name, of)) in gathered.targets.iter().enumerate() {
        section(if index < OPEN_MAX { &mut open } else { &mut closed }, name, of, gathered);
    }
    out.push_str(&open);
    if !closed.is_empty() {
        let others = gathered.targets.len() - OPEN_MAX;
        _ = writeln!(out, "<details><summary>{others} more targets</summary>\n{closed}</details>");
    }
    out.push_str(&figures::weights(gathered));
    let unreadable = match gathered.unreadable {
        0 => String::new(),
        n => format!(" {} events are no predictions, and in no figure.", count(n)),
    };
    _ = writeln!(
        out,
        "<footer>Made by dunlin {} from what is kept of <code>{stage}</code> and <code>{stage}.scores</code>: \
         every prediction was made before its outcome could be known. All times are UTC; point at a dot or a bar for \
         its figures.{unreadable}</footer>\n</main>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION"),
        stage = escaped(stage),
    );
    out
}

fn header(out: &mut String, stage: &str, gathered: &Gathered) {
    let keys = match gathered.keys.estimate() {
        keys if keys <= 1.0 => String::new(),
        keys if gathered.keys.is_whole() => format!(" of {} keys", count(keys as u64)),
        keys => format!(" of about {} keys", number(keys)),
    };
    let stretch = match (gathered.first, gathered.last) {
        (Some(first), Some(last)) => format!(", {} to {}", moment(first), moment(last)),
        _ => String::new(),
    };
    _ = writeln!(
        out,
        "<header><h1>{}</h1>\n<p>{} predictions{keys}, {} of them settled{stretch}</p></header>",
        escaped(stage),
        count(gathered.predictions),
        count(gathered.settled)
    );
    if gathered.settled == 0 {
        out.push_str(
            "<p class=\"lead\">No outcome is known yet, so there are no errors to show: make the report again later.</p>\n",
        );
    }
}

fn section(out: &mut String, name: &str, of: &OfTarget, gathered: &Gathered) {
    if !name.is_empty() {
        _ = writeln!(out, "<h2>{}</h2>", escaped(name));
    }
    if let Some(first) = of.horizons.first().filter(|first| first.n > 0) {
        tiles(out, first, of, gathered);
    }
    out.push_str(&figures::paths(of));
    if of.horizons.iter().all(|errors| errors.n == 0) {
        return;
    }
    out.push_str(&figures::errors(of));
    out.push_str(&figures::calibration(of, gathered.interval));
}

fn tile(out: &mut String, what: &str, figure: &str, more: &str) {
    _ = writeln!(out, "<div class=\"tile\"><span>{what}</span><b>{figure}</b><i>{more}</i></div>");
}

fn tiles(out: &mut String, first: &Errors, of: &OfTarget, gathered: &Gathered) {
    let ahead = match of.horizons.len() {
        1 => String::new(),
        _ => format!(", {}", ahead(of, 0)),
    };
    out.push_str("<div class=\"tiles\">\n");
    tile(out, &format!("Settled{ahead}"), &count(first.n), &unscored(of));
    let than = match first.gain() {
        Some(gain) if gain >= 0.0 => format!("{} less than the last value", percent(gain)),
        Some(gain) => format!("{} more than the last value", percent(-gain)),
        None => "the last value is always right".to_string(),
    };
    tile(out, "Mean absolute error", &number(first.mae()), &than);
    tile(out, "Last value's error", &number(first.mae_last_value()), "had one said: it stays");
    tile(out, "Root mean square", &number(first.rmse()), "large errors count more");
    let asked =
        gathered.interval.map_or(String::new(), |interval| format!("asked for: {}", percent(interval)));
    tile(out, "Within the interval", &percent(first.inside()), &asked);
    if of.chances.n() > 0 {
        let auc = of.chances.auc().map_or("–".to_string(), |auc| format!("{auc:.3}"));
        tile(out, "AUC", &auc, &format!("it happened in {}", percent(of.chances.share())));
        tile(out, "Log loss", &format!("{:.3}", of.chances.log_loss()), "of the probability");
    }
    let marks: u64 = of.drifts.values().map(|marks| marks.0).sum();
    if marks > 0 {
        tile(out, "Drift marks", &count(marks), "errors had begun to grow");
    }
    out.push_str("</div>\n");
}

/// What is not in the figures, or was settled before what is kept.
fn unscored(of: &OfTarget) -> String {
    let Some(running) = of.running() else { return String::new() };
    let kept = of.horizons.first().map_or(0, |errors| errors.n);
    let mut words = Vec::new();
    if running.n > kept {
        words.push(format!("{} since it began, error {}", count(running.n), number(running.mae)));
    }
    if running.unscored > 0 {
        words.push(format!("{} found no place to wait in", count(running.unscored)));
    }
    words.join("; ")
}

/// How far ahead a horizon lies.
pub fn ahead(of: &OfTarget, horizon: usize) -> String {
    match of.spans.get(horizon).copied().flatten() {
        Some(millis) => format!("{} ahead", span(millis)),
        None if horizon == 0 => "1 step ahead".to_string(),
        None => format!("{} steps ahead", horizon + 1),
    }
}

fn table(out: &mut String, gathered: &Gathered) {
    out.push_str(
        "<table><thead><tr><th>Target</th><th>Horizon</th><th>Settled</th><th>Mean absolute error</th>\
         <th>Last value's</th><th>Gain</th><th>Root mean square</th><th>Within interval</th></tr></thead><tbody>\n",
    );
    for (name, of) in &gathered.targets {
        for horizon in &of.chosen {
            let Some(errors) = of.horizons.get(*horizon) else { continue };
            _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(name),
                ahead(of, *horizon),
                count(errors.n),
                number(errors.mae()),
                number(errors.mae_last_value()),
                errors.gain().map_or("–".to_string(), percent),
                number(errors.rmse()),
                percent(errors.inside())
            );
        }
    }
    out.push_str("</tbody></table>\n");
}
