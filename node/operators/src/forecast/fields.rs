//! The numbers beside a target: what a key's events carry, each with its own size.

use serde::{Deserialize, Serialize};

use super::scale::Scale;

/// Fields of a key at most, the targets included. Later ones are left out.
pub const FIELDS_MAX: usize = 12;
/// Inputs that each field gives: its level and its last move.
pub const PER_FIELD: usize = 2;
/// Inputs are held within so many units.
pub const INPUT_MAX: f64 = 20.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fields {
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Field {
    scale: Scale,
    value: Option<f64>,
    previous: Option<f64>,
    /// What the unit's last change multiplies its inputs by; one while it did not change.
    changed: f64,
}

impl Fields {
    pub fn new(fields: usize) -> Fields {
        Fields { fields: vec![Field { changed: 1.0, ..Field::default() }; fields] }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Takes an event's numbers in; a missing one stays what it was. True: a unit changed.
    pub fn observe(&mut self, values: &[Option<f64>]) -> bool {
        let mut any = false;
        for (field, value) in self.fields.iter_mut().zip(values) {
            field.changed = 1.0;
            let Some(value) = value else { continue };
            if let Some(factor) = field.scale.observe(*value) {
                field.changed = factor;
                any |= factor != 1.0;
            }
            field.previous = field.value.or(Some(*value));
            field.value = Some(*value);
        }
        any
    }

    /// What the last change of units multiplies the inputs by.
    pub fn factors(&self) -> impl Iterator<Item = f64> + '_ {
        self.fields.iter().flat_map(|field| [field.changed; PER_FIELD])
    }

    /// Level and last move of each; nothing of the field at `own`, which is the target itself.
    pub fn inputs(&self, own: Option<usize>, x: &mut Vec<f64>) {
        for (index, Field { scale, value, previous, .. }) in self.fields.iter().enumerate() {
            let there = value.zip(*previous).filter(|_| Some(index) != own && scale.unit > 0.0);
            let (level, moved) = match there {
                Some((value, previous)) => {
                    ((value - scale.mean) / scale.unit, (value - previous) / scale.unit)
                }
                None => (0.0, 0.0),
            };
            x.extend([level, moved].map(|input| input.clamp(-INPUT_MAX, INPUT_MAX)));
        }
    }
}
