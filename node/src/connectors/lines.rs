//! Reading a file that may still be growing, line by line, in bounded memory.

use std::io::{self, BufRead};

/// A line beyond this is no event whatever it holds: its rest is passed over.
pub const LINE_BYTES_MAX: usize = dunlin_protocol::limits::EVENT_BYTES_MAX;

/// What the reader came upon. The text is in [`Lines::text`] until the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Line,
    /// A line longer than `LINE_BYTES_MAX`; its text is not kept.
    TooLong,
    /// The file ends here for now; `text` is the beginning of a line that has no end yet.
    End,
}

#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    text: Vec<u8>,
    /// `text` was handed out; the next call begins a new line.
    done: bool,
    too_long: bool,
    /// The line was taken before its end came: what still comes of it is passed over.
    taken: bool,
    /// Bytes read so far.
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, text: Vec::new(), done: false, too_long: false, taken: false, offset: 0 }
    }

    /// The line without its end.
    pub fn text(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    /// How far the file was read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the line that has no end yet as if it had one.
    pub fn take_unended(&mut self) {
        self.taken = true;
        self.text.clear();
    }

    pub fn advance(&mut self) -> io::Result<Found> {
        if self.done {
            self.text.clear();
            self.done = false;
            self.too_long = false;
        }
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => return Err(why),
            };
            if chunk.is_empty() {
                return Ok(Found::End);
            }
            let (part, ended) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(at) => (chunk.get(..=at).unwrap_or(chunk), true),
                None => (chunk, false),
            };
            let length = part.len();
            if self.text.len() + length > LINE_BYTES_MAX {
                self.too_long = true;
                self.text.clear();
            }
            if !self.too_long && !self.taken {
                self.text.extend_from_slice(part);
            }
            self.reader.consume(length);
            self.offset += length as u64;
            if !ended {
                continue;
            }
            if self.taken {
                self.taken = false;
                self.too_long = false;
                continue;
            }
            self.done = true;
            return Ok(if self.too_long { Found::TooLong } else { Found::Line });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that arrive in parts; an empty part is an end of file for now.
    struct Parts(Vec<&'static [u8]>);

    impl io::Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0);
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    #[track_caller]
    fn check(lines: &mut Lines<io::BufReader<Parts>>, found: Found, text: &str) {
        assert_eq!(lines.advance().unwrap(), found);
        assert_eq!(lines.text(), text.as_bytes());
    }

    #[test]
    fn a_line_is_whole_only_with_its_end() {
        let mut lines = Lines::new(io::BufReader::new(Parts(vec![b"a\r\nb", b"", b"c\n\n", b""])));
        check(&mut lines, Found::Line, "a");
        check(&mut lines, Found::End, "b");
        check(&mut lines, Found::Line, "bc");
        check(&mut lines, Found::Line, "");
        check(&mut lines, Found::End, "");
        assert_eq!(lines.offset(), 7);
    }

    #[test]
    fn what_follows_a_line_taken_early_is_passed_over() {
        let mut lines = Lines::new(io::BufReader::new(Parts(vec![b"a", b"", b"", b"x\nb\n", b""])));
        check(&mut lines, Found::End, "a");
        lines.take_unended();
        check(&mut lines, Found::End, "");
        check(&mut lines, Found::Line, "b");
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let long = io::Read::chain(io::repeat(b'x'), io::empty());
        let long = io::Read::chain(io::Read::take(long, 2 * LINE_BYTES_MAX as u64), &b"\nb\n"[..]);
        let mut lines = Lines::new(io::BufReader::new(long));
        assert_eq!(lines.advance().unwrap(), Found::TooLong);
        assert!(lines.text.capacity() <= 2 * LINE_BYTES_MAX);
        assert_eq!(lines.advance().unwrap(), Found::Line);
        assert_eq!(lines.text(), b"b");
    }
}
