//! How fast each model predicts and learns, and how large it is: rows of 27 inputs, one after the
//! other, on one core.
//!
//! Each takes rows in for half a second at least. Rows a second are by the processor's time, where the
//! system tells it; the 99th percentile is of
//! single rows by the clock, so a busy machine shows in it; bytes are those of the state as it is kept,
//! after all rows. The models alone: no events, no JSON, no keyed state.
//!
//! `cargo run --release -p dunlin-operators --example model_speed [rows [json]]`; `.ci/beside-river`
//! runs it beside River.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot run may stop")]

mod measure;

use std::time::Instant;

use dunlin_operators::forecast::Rls;
use dunlin_operators::models::adwin::Adwin;
use dunlin_operators::models::crosses::Crosses;
use dunlin_operators::models::diagonal::Diagonal;
use dunlin_operators::models::elman::Elman;
use dunlin_operators::models::forest::{ForestClassifier, ForestRegressor};
use dunlin_operators::models::half_space::{HalfSpaceTrees, WINDOW};
use dunlin_operators::models::linear::{Linear, Logistic};
use dunlin_operators::models::model::{Classifier, Regressor};
use dunlin_operators::models::patches::PatchesClassifier;
use dunlin_operators::models::recurrent::{Net, Recurrent};
use dunlin_operators::models::standard::Standardised;
use dunlin_operators::models::state::Kept;
use dunlin_operators::models::tree_classifier::TreeClassifier;
use dunlin_operators::models::tree_regressor::TreeRegressor;

use measure::processor_seconds;

const INPUTS: usize = 27;
/// Different rows; they come again and again.
const ROWS: usize = 4096;

const SECONDS_MIN: f64 = 0.5;

/// Between -1 and 1.
fn noise(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

struct Speed {
    rows: Vec<Vec<f64>>,
    /// How many to take in, again and again, for [`SECONDS_MIN`].
    count: usize,
    json: bool,
}

impl Speed {
    fn outcome(&self, place: usize) -> f64 {
        let row = &self.rows[place];
        row[0] - row[1] + if row[2] > 0.3 { 2.0 } else { 0.0 } + 0.3 * noise(place as u64 + 9_000_000)
    }

    /// `step` predicts and learns one row, and gives what was said; `bytes`: of the state afterwards.
    fn measure(&self, name: &str, mut step: impl FnMut(&[f64], f64) -> f64) {
        let outcomes: Vec<f64> = (0..ROWS).map(|place| self.outcome(place)).collect();
        let (mut nanos, mut sum, mut seconds) = (Vec::new(), 0.0, 0.0);
        let (used, began) = (processor_seconds(), Instant::now());
        // The system counts the processor's time in ticks.
        while seconds < SECONDS_MIN {
            for i in 0..self.count {
                let start = Instant::now();
                sum += step(&self.rows[i % ROWS], outcomes[i % ROWS]);
                nanos.push(start.elapsed().as_nanos() as u64);
            }
            let since = processor_seconds().zip(used).map(|(now, before)| now - before);
            seconds = since.unwrap_or_else(|| began.elapsed().as_secs_f64());
        }
        assert!(sum.is_finite());
        nanos.sort_unstable();
        let p99 = nanos[nanos.len() * 99 / 100] as f64 / 1000.0;
        let rate = nanos.len() as f64 / seconds;
        if self.json {
            print!("{{\"model\":\"{name}\",\"rows_per_s\":{rate:.0},\"p99_us\":{p99:.2}");
        } else {
            print!("{name:<38} {rate:>10.0} rows/s   p99 {p99:>8.2} us");
        }
    }

    fn size(&self, bytes: usize) {
        if self.json { println!(",\"bytes\":{bytes}}}") } else { println!("   {bytes:>9} bytes") }
    }

    fn regressor<M: Regressor + Kept>(&self, name: &str, mut model: M) {
        self.measure(name, |row, outcome| {
            let said = model.predict(row);
            model.learn(row, outcome);
            said
        });
        self.size(model.pack().len());
    }

    fn classifier<M: Classifier + Kept>(&self, name: &str, mut model: M) {
        self.measure(name, |row, outcome| {
            let said = model.probability(row);
            model.learn(row, outcome > 0.5);
            said
        });
        self.size(model.pack().len());
    }

    fn network<N: Net + Kept>(&self, name: &str, net: N) {
        let mut model = Recurrent::new(net);
        self.measure(name, |row, outcome| {
            model.step(row);
            let said = model.says();
            model.learn(outcome);
            said
        });
        self.size(model.pack().len());
    }
}

fn main() {
    let count = std::env::args().nth(1).map_or(20_000, |text| text.parse().unwrap());
    let json = std::env::args().nth(2).is_some_and(|word| word == "json");
    let row = |place: u64| (0..INPUTS as u64).map(|input| noise(place * 31 + input)).collect();
    let speed = Speed { rows: (0..ROWS as u64).map(row).collect(), count, json };
    let mut rls = Rls::new(1000.0, INPUTS, 1);
    speed.measure("least squares, recursive", |row, outcome| {
        let said = rls.predict(row).next().unwrap_or(0.0);
        let gain = rls.gain(row);
        rls.learn(0, row, &gain, outcome);
        said
    });
    speed.size(dunlin_protocol::wire::codec::encode(&rls).len());
    speed.regressor("line, standardised", Standardised::new(Linear::default()));
    speed.classifier("logistic line, standardised", Standardised::new(Logistic::default()));
    speed.classifier("logistic line over values and pairs", Crosses::new(1));
    speed.regressor("Hoeffding tree, numbers", Standardised::new(TreeRegressor::new()));
    speed.classifier("Hoeffding tree, yes or no", TreeClassifier::new());
    speed.regressor("Mondrian forest, numbers", ForestRegressor::new(INPUTS, 1));
    speed.classifier("Mondrian forest, yes or no", ForestClassifier::new(INPUTS, 1));
    speed.classifier("random patches, yes or no", PatchesClassifier::new(INPUTS, 1));
    speed.network("Elman network, 8 units", Elman::new(INPUTS, 8, 1));
    speed.network("Elman network, 16 units", Elman::new(INPUTS, 16, 1));
    speed.network("diagonal units, 8 cells", Diagonal::new(INPUTS, 8, 1));
    let mut trees = HalfSpaceTrees::new(INPUTS, WINDOW, 1);
    speed.measure("half-space trees", |row, _| {
        let said = trees.score(row);
        trees.learn(row);
        said
    });
    speed.size(trees.pack().len());
    let mut adwin = Adwin::new(0.002);
    speed.measure("ADWIN, one number", |row, _| f64::from(u8::from(adwin.learn(row[0].abs()).is_some())));
    speed.size(dunlin_protocol::wire::codec::encode(&adwin).len());
}
