//! What holds of every model, whatever comes: finite answers, the same ones from the same rows, and
//! the same ones after it was kept and read again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop")]
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

const INPUTS: u64 = 5;

/// Between -1 and 1.
fn noise(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn plain(i: u64) -> (Vec<f64>, f64) {
    let row: Vec<f64> = (0..INPUTS).map(|j| noise(i * INPUTS + j)).collect();
    let outcome = 2.0 * row[0] - row[1] + if row[2] > 0.3 { 3.0 } else { 0.0 } + 0.1 * noise(i + 7_000_000);
    (row, outcome)
}

type Stream = (&'static str, fn(u64) -> (Vec<f64>, f64));

/// Rows as they come, and as they should not.
const STREAMS: [Stream; 9] = [
    ("plain", plain),
    ("scaled up", |i| scaled(i, 1e12)),
    ("scaled down", |i| scaled(i, 1e-12)),
    ("shifted", |i| {
        let (row, outcome) = plain(i);
        (row.iter().map(|x| x + 1e9).collect(), outcome + 1e9)
    }),
    ("constant", |_| (vec![3.0; INPUTS as usize], 4.0)),
    ("missing", |i| {
        let (mut row, outcome) = plain(i);
        row[(i % INPUTS) as usize] = f64::NAN;
        (
            if i % 11 == 0 { vec![f64::NAN; INPUTS as usize] } else { row },
            if i % 5 == 0 { f64::NAN } else { outcome },
        )
    }),
    ("exploding", |i| scaled(i, 10f64.powi((i / 4) as i32))),
    ("strays", |i| if i % 50 == 0 { scaled(i, 1e99) } else { plain(i) }),
    ("endless", |i| {
        let (mut row, outcome) = plain(i);
        row[0] = [f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, -0.0][(i % 5) as usize];
        (row, if i % 7 == 0 { f64::INFINITY } else { outcome })
    }),
];

fn scaled(i: u64, by: f64) -> (Vec<f64>, f64) {
    let (row, outcome) = plain(i);
    (row.iter().map(|x| x * by).collect(), outcome * by)
}

#[track_caller]
fn regressor<M: Regressor + Kept + PartialEq>(make: impl Fn() -> M) {
    for (name, stream) in STREAMS {
        let (mut model, mut other) = (make(), make());
        for i in 0..2500 {
            let (row, outcome) = stream(i);
            let said = model.predict(&row);
            assert!(said.is_finite(), "{name}, row {i}: {said} of {model:?}");
            model.learn(&row, outcome);
            other.learn(&row, outcome);
            if i == 1500 {
                other = M::unpack(&other.pack()).unwrap();
            }
        }
        assert_eq!(model.pack(), other.pack(), "{name}");
    }
    let mut model = make();
    let (mut errors, mut naive) = (0.0, 0.0);
    for i in 0..4000 {
        let (row, outcome) = plain(i);
        if i >= 2000 {
            errors += (model.predict(&row) - outcome).abs();
            naive += (outcome - 1.05).abs();
        }
        model.learn(&row, outcome);
    }
    assert!(errors < 0.7 * naive, "it learns: {errors} against {naive} of {model:?}");
}

#[track_caller]
fn classifier<M: Classifier + Kept + PartialEq>(make: impl Fn() -> M) {
    for (name, stream) in STREAMS {
        let (mut model, mut other) = (make(), make());
        for i in 0..2500 {
            let (row, outcome) = stream(i);
            let said = model.probability(&row);
            assert!((0.0..=1.0).contains(&said), "{name}, row {i}: {said} of {model:?}");
            model.learn(&row, outcome > 1.0);
            other.learn(&row, outcome > 1.0);
            if i == 1500 {
                other = M::unpack(&other.pack()).unwrap();
            }
        }
        assert_eq!(model.pack(), other.pack(), "{name}");
    }
    let (mut model, mut right) = (make(), 0);
    for i in 0..4000 {
        let (row, outcome) = plain(i);
        right += u32::from(i >= 2000 && (model.probability(&row) > 0.5) == (outcome > 1.0));
        model.learn(&row, outcome > 1.0);
    }
    assert!(right > 1600, "it learns: {right} of 2000 are right by {model:?}");
}

#[test]
fn the_line() {
    regressor(|| Standardised::new(Linear::default()));
    classifier(|| Standardised::new(Logistic::default()));
}

#[test]
fn the_tree() {
    regressor(TreeRegressor::new);
    regressor(|| Standardised::new(TreeRegressor::new()));
    classifier(TreeClassifier::new);
}

#[test]
fn the_forests() {
    regressor(|| ForestRegressor::new(INPUTS as usize, 1));
    classifier(|| ForestClassifier::new(INPUTS as usize, 1));
    classifier(|| PatchesClassifier::new(INPUTS as usize, 1));
}

#[test]
fn the_pairs() {
    classifier(|| Crosses::new(1));
}

#[track_caller]
fn network<N: Net + Kept>(make: impl Fn() -> N) {
    for (name, stream) in STREAMS {
        let (mut model, mut other) = (Recurrent::new(make()), Recurrent::new(make()));
        for i in 0..2500 {
            let (row, outcome) = stream(i);
            for model in [&mut model, &mut other] {
                model.step(&row);
                assert!(model.says().is_finite(), "{name}, row {i}: {model:?}");
                model.learn(outcome);
            }
            if i == 1500 {
                other = Recurrent::<N>::unpack(&other.pack()).unwrap();
            }
        }
        assert_eq!(model.pack(), other.pack(), "{name}");
    }
}

#[test]
fn the_networks() {
    network(|| Elman::new(INPUTS as usize, 8, 1));
    network(|| Diagonal::new(INPUTS as usize, 8, 1));
}

#[test]
fn the_half_spaces() {
    for (name, stream) in STREAMS {
        let mut trees = HalfSpaceTrees::new(INPUTS as usize, WINDOW, 1);
        let mut other = trees.clone();
        for i in 0..2500 {
            let (row, _) = stream(i);
            let score = trees.score(&row);
            assert!((0.0..=1.0).contains(&score), "{name}, row {i}: {score}");
            trees.learn(&row);
            other.learn(&row);
            if i == 1500 {
                other = HalfSpaceTrees::unpack(&other.pack()).unwrap();
            }
        }
        assert_eq!(trees.pack(), other.pack(), "{name}");
    }
}
