//! Every decoder against bytes that are almost right: valid encodings, mutated. None panics, none
//! takes more memory than its limit, and whatever decodes comes back from its own encoding.
//!
//! `DUNLIN_FUZZ_S=600` goes on for ten minutes and says how many executions that were; `tests/fuzz/`
//! hands the same targets to libFuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "this is test code: a panic is how it says what is wrong"
)]

#[path = "decoders/targets.rs"]
mod targets;

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use targets::{TARGETS, seeds};

/// What all decoders together may ever add to this process's address space.
const MEMORY_MAX: u64 = 256 << 20;

/// SplitMix64: a run is its seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One to five of the changes that find bugs: flips, extreme numbers, cuts, doubled and foreign parts.
fn mutate(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(5) {
        let at = chance.below(bytes.len());
        match chance.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            1 if !bytes.is_empty() => bytes[at] = chance.next() as u8,
            // The codec's marks for wide numbers, then a huge one.
            2 => {
                let wide = [251 + chance.below(4) as u8];
                let number = [0xff_u8; 8];
                let end = at.min(bytes.len());
                bytes.splice(end..end, wide.iter().chain(&number[..chance.below(9)]).copied());
            }
            3 => bytes.truncate(at),
            4 => {
                let end = at + chance.below(bytes.len() - at.min(bytes.len()));
                let part = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part);
            }
            5 => {
                let other = &seeds[chance.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[chance.below(other.len())..]);
            }
            6 => bytes.extend((0..chance.below(40)).map(|_| chance.0 as u8)),
            7 if bytes.len() >= 4 => {
                let at = at.min(bytes.len() - 4);
                let extreme = [0, 1, u32::MAX, u32::MAX - 1, 1 << 31, 8 << 20][chance.below(6)];
                bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
            }
            _ => {
                let end = (at + chance.below(12)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}

/// The largest address space that this process had, in bytes; none where the system does not tell.
fn most_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[test]
fn seeds_decode_and_come_back() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let decoded = seeds.iter().filter(|seed| (target.run)(seed)).count();
        assert!(decoded > 0, "no seed of {} decodes", target.name);
    }
}

#[test]
fn mutations_of_what_is_right_never_panic_and_never_take_much_memory() {
    let length = env::var("DUNLIN_FUZZ_S").ok().map(|text| text.parse().expect("DUNLIN_FUZZ_S is seconds"));
    let length = length.map_or(Duration::from_secs(4), Duration::from_secs);
    let seed = env::var("DUNLIN_FUZZ_SEED").ok().map(|text| text.parse().expect("a seed is a number"));
    let mut chance = Chance(seed.unwrap_or(length.as_secs() ^ 0xd0_0d1e));
    let all: Vec<Vec<Vec<u8>>> = TARGETS.iter().map(|target| seeds(target.name)).collect();
    let before = most_memory();
    let began = Instant::now();
    let (mut runs, mut decoded) = (0_u64, 0_u64);
    while began.elapsed() < length {
        for (target, seeds) in TARGETS.iter().zip(&all) {
            for _ in 0..64 {
                let bytes = mutate(&mut chance, seeds);
                runs += 1;
                decoded += u64::from((target.run)(&bytes));
            }
        }
    }
    eprintln!(
        "{runs} executions over {} decoders in {:.0?}, {decoded} decoded",
        TARGETS.len(),
        began.elapsed()
    );
    assert!(decoded > 0 && decoded < runs, "mutations are neither all right nor all wrong");
    if let (Some(before), Some(after)) = (before, most_memory()) {
        assert!(after - before < MEMORY_MAX, "{} bytes more address space", after - before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_at_all_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for target in TARGETS {
            (target.run)(&bytes);
        }
    }

    #[test]
    fn no_small_numbers_are_a_panic(bytes in prop::collection::vec(prop_oneof![0u8..6, 251u8..=255], 0..120)) {
        for target in TARGETS {
            (target.run)(&bytes);
        }
    }
}
