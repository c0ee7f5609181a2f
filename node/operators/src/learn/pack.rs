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
        let bytes = self.bytes(4 * into.len())?.as_chunks().0;
        into.iter_mut().zip(bytes).for_each(|(place, bytes)| *place = f32::from_le_bytes(*bytes));
        Some(())
    }

    pub fn shorts(&mut self, count: usize) -> Option<Vec<u16>> {
        let bytes = self.bytes(2 * count)?.as_chunks().0;
        Some(bytes.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect())
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
    let room = room(out, 4 * values.len()).as_chunks_mut().0;
    room.iter_mut().zip(values).for_each(|(place, value)| *place = value.to_le_bytes());
}

pub fn floats(out: &mut Vec<u8>, values: &[f64]) {
    let room = room(out, 8 * values.len()).as_chunks_mut().0;
    room.iter_mut().zip(values).for_each(|(place, value)| *place = value.to_le_bytes());
}

pub fn shorts(out: &mut Vec<u8>, values: &[u16]) {
    let room = room(out, 2 * values.len()).as_chunks_mut().0;
    room.iter_mut().zip(values).for_each(|(place, value)| *place = value.to_le_bytes());
}

/// So many bytes more.
fn room(out: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    let behind = out.len();
    out.resize(behind + bytes, 0);
    out.get_mut(behind..).unwrap_or(&mut [])
}
