//! Numbers as bytes, for the entries of state that are written per event: little-endian, packed.

#[derive(Debug)]
pub struct Unpack<'a>(pub &'a [u8]);

impl<'a> Unpack<'a> {
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn single(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub fn float(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    pub fn singles(&mut self, into: &mut [f32]) -> Option<()> {
        for place in into {
            *place = self.single()?;
        }
        Some(())
    }

    pub fn floats<const N: usize>(&mut self) -> Option<[f64; N]> {
        let mut floats = [0.0; N];
        for place in &mut floats {
            *place = self.float()?;
        }
        Some(floats)
    }
}

pub fn singles(out: &mut Vec<u8>, values: &[f32]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

pub fn floats(out: &mut Vec<u8>, values: &[f64]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}
