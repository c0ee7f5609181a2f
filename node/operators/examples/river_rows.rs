//! Rows of River's benchmark tables, by the same protocol: each row is predicted, then learned, with
//! default parameters; the mean over all rows. The data sets are River's own (`river/` in the folder
//! that `DUNLIN_DATA` names, or the first argument; by default `../shared/data` beside the repository).
//!
//! Where the algorithm is the same, the printed digits are. Phishing's best in River's table is a forest
//! of random patches with one seed; the line over pairs is at or above it with each of eight seeds.
//!
//! `cargo run --release -p dunlin-operators --example river_rows [data folder]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot run may stop")]
#![allow(dead_code, reason = "a test compares what the example prints")]

use std::io::Read;
use std::path::{Path, PathBuf};

use dunlin_operators::models::crosses::Crosses;
use dunlin_operators::models::forest::{ForestClassifier, ForestRegressor};
use dunlin_operators::models::linear::{Linear, Logistic};
use dunlin_operators::models::model::{Classifier, Regressor};
use dunlin_operators::models::patches::PatchesClassifier;
use dunlin_operators::models::standard::Standardised;
use dunlin_operators::models::tree_classifier::TreeClassifier;
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

/// What was measured, on what, and what is wanted of it.
#[derive(Debug)]
pub struct Line {
    pub what: &'static str,
    pub on: &'static str,
    pub ours: f64,
    pub wanted: Wanted,
}

#[derive(Debug)]
pub enum Wanted {
    /// River's figure to four digits: the same algorithm.
    Digits(f64),
    /// At least this accuracy: the best of River's table.
    AtLeast(f64),
    /// Another algorithm than River's, or other draws: shown beside nothing.
    Shown,
}

/// None where the data is not there.
pub fn lines(folder: &Path) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    let mut line = |what, on, ours, wanted| lines.push(Line { what, on, ours, wanted });
    let sets = [
        ("TrumpApproval", "trump_approval.csv", "five_thirty_eight", 1.3145, 0.9561),
        ("ChickWeights", "chick-weights.csv", "weight", 23.7587, 23.1619),
    ];
    for (on, file, target, linear, tree) in sets {
        let table = table(folder, file, target)?;
        let inputs = table.rows.first()?.0.len();
        let ours = absolute_error(&mut Standardised::new(Linear::default()), &table);
        line("MAE, StandardScaler | LinearRegression", on, ours, Wanted::Digits(linear));
        let ours = absolute_error(&mut Standardised::new(TreeRegressor::new()), &table);
        line("MAE, StandardScaler | HoeffdingTreeRegressor", on, ours, Wanted::Digits(tree));
        let ours = absolute_error(&mut ForestRegressor::new(inputs, 0), &table);
        line("MAE, Mondrian forest, 10 trees", on, ours, Wanted::Shown);
    }
    let on = "Phishing";
    let table = table(folder, "phishing.csv", "is_phishing")?;
    let inputs = table.rows.first()?.0.len();
    let ours = accuracy(&mut Standardised::new(Logistic::default()), &table, 0);
    line("accuracy, StandardScaler | LogisticRegression", on, ours, Wanted::Digits(0.8928));
    // River's trees say nothing of the first row.
    let ours = accuracy(&mut TreeClassifier::new(), &table, 1);
    line("accuracy, HoeffdingTreeClassifier", on, ours, Wanted::Digits(0.8799));
    let ours = accuracy(&mut Crosses::new(0), &table, 0);
    line("accuracy, logistic over values and pairs", on, ours, Wanted::AtLeast(0.9135));
    let ours = accuracy(&mut PatchesClassifier::new(inputs, 0), &table, 1);
    line("accuracy, random patches, 10 Hoeffding trees", on, ours, Wanted::Shown);
    let ours = accuracy(&mut ForestClassifier::new(inputs, 0), &table, 1);
    line("accuracy, Mondrian forest, 10 trees", on, ours, Wanted::Shown);
    Some(lines)
}

/// Of the rows behind the first so many.
pub fn accuracy(model: &mut dyn Classifier, table: &Table, first: usize) -> f64 {
    let mut right = 0.0;
    for (index, (row, outcome)) in table.rows.iter().enumerate() {
        let happened = *outcome > 0.5;
        right += f64::from(u8::from(index >= first && (model.probability(row) > 0.5) == happened));
        model.learn(row, happened);
    }
    right / (table.rows.len() - first) as f64
}

fn main() {
    let folder = std::env::args().nth(1).map_or_else(folder, PathBuf::from);
    let Some(lines) = lines(&folder) else {
        println!("{} has no folder river/ with River's data sets, so nothing was measured", folder.display());
        return;
    };
    for Line { what, on, ours, wanted } in lines {
        let beside = match wanted {
            Wanted::Digits(river) => format!("   River {river:>8.4}"),
            Wanted::AtLeast(river) => format!("   River's best {river:.4}"),
            Wanted::Shown => String::new(),
        };
        println!("{on:<14} {what:<46} here {ours:>8.4}{beside}");
    }
}
