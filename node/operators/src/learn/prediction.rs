//! A prediction with all that its settling needs, as it waits in state.

use bytes::Bytes;
use dunlin_protocol::time::Time;

use super::classes::Word;
use super::pack::{self, Unpack};
use super::settings::EXPERTS;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    pub at: Time,
    pub due: Time,
    /// The how manieth of its model it was.
    pub number: u64,
    /// Not stored where the place it waits in names it.
    pub key: Bytes,
    pub last_value: f64,
    pub value: f64,
    /// What the experts say together, whether it was heard or not.
    pub combined: f64,
    pub low: f64,
    pub high: f64,
    pub probability: Option<f64>,
    pub weights: [f64; EXPERTS.len()],
    /// The label of the same row, not looked at before it is due.
    pub truth: Option<f64>,
    pub experts: [f64; EXPERTS.len()],
    pub anchor: f64,
    pub unit: f64,
    pub step: f64,
    pub word: Word,
    /// What the lines saw.
    pub inputs: Vec<f32>,
    pub tokens: Vec<u16>,
    /// First cells of what is known of each class.
    pub reads: Vec<u16>,
    /// Of what the row is one, for what was left over lately: places.
    pub groups: Vec<u16>,
    /// The row's numbers and what was left over lately, as the lines saw them (see `model::wide`).
    pub lately: Vec<f32>,
    /// What the line on the row's numbers said: a change.
    pub plain: f64,
    /// The row's own numbers, by place; missing ones are NaN.
    pub own: Vec<f64>,
}

impl Prediction {
    /// Bytes that `pack` adds.
    pub fn packed_len(&self) -> usize {
        let there = usize::from(self.probability.is_some()) + usize::from(self.truth.is_some());
        let floats = 11 + 2 * EXPERTS.len() + there + self.own.len();
        let singles = self.inputs.len() + self.lately.len();
        let places = self.tokens.len() + self.groups.len() + self.reads.len();
        3 * 8 + 1 + 6 * 2 + 8 * floats + 4 * singles + 2 * places + self.key.len()
    }

    pub fn pack(&self, out: &mut Vec<u8>) {
        for word in [self.at.0, self.due.0, self.number] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let plain = [
            self.last_value,
            self.value,
            self.combined,
            self.low,
            self.high,
            self.anchor,
            self.unit,
            self.step,
            self.word.sure,
            self.word.lean,
            self.plain,
        ];
        pack::floats(out, &plain);
        pack::floats(out, &self.weights);
        pack::floats(out, &self.experts);
        out.push(u8::from(self.probability.is_some()) | u8::from(self.truth.is_some()) << 1);
        for value in [self.probability, self.truth].into_iter().flatten() {
            pack::floats(out, &[value]);
        }
        for length in [
            self.inputs.len(),
            self.lately.len(),
            self.tokens.len(),
            self.groups.len(),
            self.own.len(),
            self.reads.len(),
        ] {
            out.extend_from_slice(&(length as u16).to_le_bytes());
        }
        pack::singles(out, &self.inputs);
        pack::singles(out, &self.lately);
        pack::floats(out, &self.own);
        self.tokens
            .iter()
            .chain(&self.groups)
            .chain(&self.reads)
            .for_each(|token| out.extend_from_slice(&token.to_le_bytes()));
        out.extend_from_slice(&self.key);
    }

    pub fn unpack(bytes: &[u8]) -> Option<Prediction> {
        let mut from = Unpack(bytes);
        let [at, due, number] = [from.word()?, from.word()?, from.word()?];
        let [last_value, value, combined, low, high, anchor, unit, step, sure, lean, plain] =
            from.floats()?;
        let (weights, experts) = (from.floats()?, from.floats()?);
        let there = from.byte()?;
        let probability = if there & 1 != 0 { Some(from.float()?) } else { None };
        let truth = if there & 2 != 0 { Some(from.float()?) } else { None };
        let mut length = || from.short().map(usize::from);
        let (inputs, lately, tokens) = (length()?, length()?, length()?);
        let (groups, own, reads) = (length()?, length()?, length()?);
        let (mut inputs, mut lately) = (vec![0.0; inputs], vec![0.0; lately]);
        from.singles(&mut inputs)?;
        from.singles(&mut lately)?;
        let own = (0..own).map(|_| from.float()).collect::<Option<Vec<f64>>>()?;
        let mut places = |count: usize| {
            let bytes = from.bytes(2 * count)?.as_chunks().0;
            Some(bytes.iter().map(|place| u16::from_le_bytes(*place)).collect())
        };
        let (tokens, groups, reads) = (places(tokens)?, places(groups)?, places(reads)?);
        Some(Prediction {
            at: Time(at),
            due: Time(due),
            number,
            key: Bytes::copy_from_slice(from.0),
            last_value,
            value,
            combined,
            low,
            high,
            probability,
            weights,
            truth,
            experts,
            anchor,
            unit,
            step,
            word: Word { sure, lean },
            inputs,
            tokens,
            reads,
            groups,
            lately,
            plain,
            own,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_bit_for_bit() {
        let mut prediction = Prediction {
            at: Time(7),
            due: Time(u64::MAX),
            key: Bytes::from_static(b"key"),
            value: 0.1,
            weights: [0.25; EXPERTS.len()],
            inputs: vec![1.0, -0.5, f32::MIN_POSITIVE],
            tokens: vec![0, 8191],
            groups: vec![7, 9, 11],
            reads: vec![5],
            lately: vec![0.25, -3.5],
            own: vec![1e99, -0.0],
            ..Prediction::default()
        };
        for (probability, truth) in [(None, None), (Some(0.5), None), (None, Some(-1.0))] {
            (prediction.probability, prediction.truth) = (probability, truth);
            let mut bytes = Vec::new();
            prediction.pack(&mut bytes);
            assert_eq!(bytes.len(), prediction.packed_len());
            assert_eq!(Prediction::unpack(&bytes), Some(prediction.clone()));
            assert_eq!(Prediction::unpack(&bytes[..40]), None);
        }
    }
}
