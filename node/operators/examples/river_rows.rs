//! Rows of River's benchmark tables, by the same protocol: each row is predicted, then learned, with
//! default parameters; the mean over all rows. The data sets are River's own (`river/` in the folder
//! that `DUNLIN_DATA` names, or the first argument; by default `../shared/data` beside the repository).
//!
//! Where the algorithm is the same, the printed digits are.
//!
//! `cargo run --release -p dunlin-operators --example river_rows [data folder]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot run may stop")]
#![allow(dead_code, reason = "a test compares what the example prints")]

use std::io::Read;
use std::path::{Path, PathBuf};

use dunlin_operators::models::linear::Linear;
use dunlin_operators::models::model::Regressor;
use dunlin_operators::models::standard::Standardised;
use dunlin_operators::models::tree_regressor::TreeRegressor;

/// Inputs of each row, and the outcome.
#[derive(Debug)]
pub struct Table {
    pub rows: Vec<(Vec<f64>, f64)>,
}

pub fn folder() -> PathBuf {
    std::env::var_os("DUNLIN_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
}

/// The file, packed or not; none where it is not there.
fn text(folder: &Path, name: &str) -> Option<String> {
    let path = folder.join("river").join(name);
    let Ok(packed) = std::fs::File::open(path.with_extension("csv.gz")) else {
        return std::fs::read_to_string(path).ok();
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn table(folder: &Path, name: &str, target: &str) -> Option<Table> {
    let text = text(folder, name)?;
    let mut lines = text.lines();
    let place = lines.next()?.split(',').position(|column| column == target)?;
    let row = |line: &str| {
        let mut row: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        let outcome = row.remove(place);
        (row, outcome)
    };
    Some(Table { rows: lines.map(row).collect() })
}

pub fn absolute_error(model: &mut dyn Regressor, table: &Table) -> f64 {
    let mut sum = 0.0;
    for (row, outcome) in &table.rows {
        sum += (model.predict(row) - outcome).abs();
        model.learn(row, *outcome);
    }
    sum / table.rows.len() as f64
}

/// What was measured, on what; River's figure; and ours.
#[derive(Debug)]
pub struct Line {
    pub what: &'static str,
    pub on: &'static str,
    pub river: f64,
    pub ours: f64,
}

/// None where the data is not there.
pub fn lines(folder: &Path) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    let sets = [
        ("TrumpApproval", "trump_approval.csv", "five_thirty_eight", 1.3145, 0.9561),
        ("ChickWeights", "chick-weights.csv", "weight", 23.7587, 23.1619),
    ];
    for (on, file, target, line, tree) in sets {
        let table = table(folder, file, target)?;
        let ours = absolute_error(&mut Standardised::new(Linear::default()), &table);
        lines.push(Line { what: "MAE, StandardScaler | LinearRegression", on, river: line, ours });
        let ours = absolute_error(&mut Standardised::new(TreeRegressor::new()), &table);
        lines.push(Line { what: "MAE, StandardScaler | HoeffdingTreeRegressor", on, river: tree, ours });
    }
    Some(lines)
}

fn main() {
    let folder = std::env::args().nth(1).map_or_else(folder, PathBuf::from);
    let Some(lines) = lines(&folder) else {
        println!("{} has no folder river/ with River's data sets, so nothing was measured", folder.display());
        return;
    };
    for Line { what, on, river, ours } in lines {
        println!("{on:<14} {what:<46} here {ours:>8.4}   River {river:>8.4}");
    }
}
