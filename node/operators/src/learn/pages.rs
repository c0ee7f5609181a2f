//! Bytes in pages, of which only those that changed are written.
//!
//! A model is large beside what one event changes of some of its parts: a remembered residual, a bin
//! of a metric. So each part is cut into pages, and a page that is as it was written last stays.

use bytes::Bytes;

use super::store::{self, Unreadable};
use crate::operator::State;

/// Bytes of a page.
const PAGE: usize = 512;
/// Pages of a part at most, as its number's two bytes allow: 32 MiB.
const PAGES_MAX: usize = 1 << 16;

/// One part as it stands in state.
#[derive(Debug, Default)]
pub struct Pages {
    written: Bytes,
}

impl Pages {
    /// All pages whose keys begin with `name`; none when nothing was written.
    pub fn read(name: [u8; 3], state: &mut dyn State) -> Result<Option<Pages>, Unreadable> {
        let pages = state.scan(&name, PAGES_MAX);
        if pages.is_empty() {
            return Ok(None);
        }
        let mut written = Vec::with_capacity(pages.len() * PAGE);
        for (number, (key, value)) in pages.iter().enumerate() {
            if **key != page_key(name, number) {
                return Err(Unreadable("a page is missing".to_string()));
            }
            written.extend_from_slice(store::body(value)?);
        }
        Ok(Some(Pages { written: Bytes::from(written) }))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.written
    }

    /// `bytes` take the place of what stood there.
    pub fn write(&mut self, name: [u8; 3], bytes: Bytes, state: &mut dyn State) {
        let mut before = self.written.chunks(PAGE);
        for (number, page) in bytes.chunks(PAGE).enumerate() {
            if before.next() != Some(page) {
                store::put(state, &page_key(name, number), page.len(), |out| out.extend_from_slice(page));
            }
        }
        let kept = bytes.len().div_ceil(PAGE);
        (0..before.len()).for_each(|beyond| state.delete(&page_key(name, kept + beyond)));
        self.written = bytes;
    }
}

fn page_key([zero, kind, part]: [u8; 3], number: usize) -> Bytes {
    let [high, low] = (number as u16).to_be_bytes();
    Bytes::copy_from_slice(&[zero, kind, part, high, low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_state::MemoryState;

    const NAME: [u8; 3] = [0, b'm', 1];

    #[test]
    fn only_what_changed_is_written_and_it_comes_back() {
        let (mut state, mut pages) = (MemoryState::new(), Pages::default());
        let mut bytes: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        let mut write = |bytes: &[u8]| {
            pages.write(NAME, Bytes::copy_from_slice(bytes), &mut state);
            let changes = state.stage().len();
            state.commit_all();
            let read = Pages::read(NAME, &mut state).unwrap();
            assert_eq!(read.as_ref().map_or(&[][..], Pages::bytes), bytes);
            changes
        };
        assert_eq!(write(&bytes), 10);
        assert_eq!(write(&bytes), 0);
        bytes[700] ^= 1;
        assert_eq!(write(&bytes), 1);
        bytes.extend([7; 300]);
        assert_eq!(write(&bytes), 2);
        assert_eq!(write(&bytes[..600]), 10);
        assert_eq!(write(&[]), 2);
    }

    #[test]
    fn a_missing_page_is_told() {
        let (mut state, mut pages) = (MemoryState::new(), Pages::default());
        pages.write(NAME, Bytes::from(vec![1; 2000]), &mut state);
        state.delete(&page_key(NAME, 1));
        assert!(Pages::read(NAME, &mut state).unwrap_err().to_string().contains("missing"));
    }
}
