//! How fast the least squares behind `forecast` predict and learn: 27 inputs, one row after the other,
//! each horizon's outcome learned as late as it comes.
//!
//! Wanted are half a million rows a second with one horizon and 150,000 with 48; measured were 2.4 and
//! 0.7 million. This is the kernel alone: no events, no JSON, no keyed state.
//!
//! `cargo run --release -p dunlin-operators --example least_squares_speed [rows]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot run may stop")]

mod measure;

use std::collections::VecDeque;
use std::time::Instant;

use dunlin_operators::forecast::Rls;

use measure::processor_seconds;

const INPUTS: usize = 27;

fn noise(i: u64) -> f64 {
    let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

fn measure(rows: usize, horizons: usize) {
    let inputs: Vec<Vec<f64>> = (0..4096u64)
        .map(|row| (0..INPUTS as u64).map(|j| if j == 0 { 1.0 } else { noise(row * 31 + j) }).collect())
        .collect();
    // A line of the inputs, and noise.
    let outcome = |row: usize| inputs[row % 4096].iter().take(5).sum::<f64>() + noise(row as u64 * 7);
    let mut rls = Rls::new(1000.0, INPUTS, horizons);
    let mut waiting: VecDeque<Vec<f64>> = VecDeque::new();
    let (mut said, mut error, mut scored) = (vec![0.0; horizons], 0.0, 0.0);
    let (began, used) = (Instant::now(), processor_seconds());
    for row in 0..rows {
        // At each horizon, the row that lies so far back is settled.
        for (horizon, gain) in waiting.iter().rev().enumerate() {
            let origin = row - horizon - 1;
            let truth = outcome(origin);
            if horizon == 0 {
                error += (said[0] - truth).abs();
                scored += 1.0;
            }
            rls.learn(horizon, &inputs[origin % 4096], gain, truth);
        }
        let x = &inputs[row % 4096];
        said.iter_mut().zip(rls.predict(x)).for_each(|(said, expects)| *said = expects);
        if waiting.len() == horizons {
            waiting.pop_front();
        }
        waiting.push_back(rls.gain(x));
    }
    let seconds = processor_seconds().zip(used).map(|(now, before)| now - before);
    let seconds = seconds.unwrap_or_else(|| began.elapsed().as_secs_f64());
    println!(
        "{horizons} horizons: {:.0} rows/s by the processor's time ({rows} rows, mean error at 1 {:.3})",
        rows as f64 / seconds,
        error / scored
    );
}

fn main() {
    let rows = std::env::args().nth(1).map_or(500_000, |text| text.parse().unwrap());
    measure(rows, 1);
    measure(rows / 4, 48);
}
