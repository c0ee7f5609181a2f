//! Reading fixed fields from bytes that may be anything.

/// What is left to read. Every take either gives all it was asked for or nothing.
pub(super) struct BytesIn<'a>(&'a [u8]);

impl<'a> BytesIn<'a> {
    pub fn new(bytes: &'a [u8]) -> BytesIn<'a> {
        BytesIn(bytes)
    }

    pub fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first `N` bytes of the blake3 hash over these parts, in order.
pub(super) fn check<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut check = [0; N];
    hasher.finalize_xof().fill(&mut check);
    check
}
