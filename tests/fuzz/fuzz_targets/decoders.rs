//! The first byte chooses the decoder, the rest is for it.
#![no_main]

#[allow(dead_code)]
#[path = "../../../protocol/tests/decoders/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, bytes)) = bytes.split_first() else { return };
    let target = &targets::TARGETS[usize::from(*chosen) % targets::TARGETS.len()];
    (target.run)(bytes);
});
