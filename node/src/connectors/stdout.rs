//! The `stdout` sink: one line per event on the daemon's standard output. At least once: a batch
//! that was printed before its commit failed is printed again.

use std::io::Write;

use dunlin_operators::operator::{Handled, Operator, State};
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::id::Name;
use dunlin_protocol::time::Time;

use super::line::write_line;

/// Writes to `W`, whole batches at a time, flushed.
#[derive(Debug)]
pub struct LineSink<W> {
    name: Name,
    out: W,
}

impl<W: Write + Send> LineSink<W> {
    pub fn new(name: &Name, out: W) -> Self {
        LineSink { name: name.clone(), out }
    }
}

impl<W: Write + Send> Operator for LineSink<W> {
    fn handle(
        &mut self,
        batch: &[Invoked],
        _now: Time,
        _state: &mut dyn State,
    ) -> Result<Handled, CallError> {
        let mut text = Vec::new();
        batch.iter().for_each(|invoked| write_line(&mut text, &invoked.placed, None));
        let written = self.out.write_all(&text).and_then(|()| self.out.flush());
        written.map_err(|why| CallError {
            stage: self.name.to_string(),
            reason: format!(
                "the sink '{}' cannot write to standard output ({why}): give the daemon one that is read; \
                 the events wait",
                self.name
            ),
            again: Again::Later,
        })?;
        Ok(Handled::default())
    }

    fn forget(&mut self) {}
}

#[cfg(test)]
mod tests {
    use dunlin_operators::memory_state::MemoryState;

    use super::super::sink::tests::batch;
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_per_event() {
        let mut sink = LineSink::new(&"screen".parse().unwrap(), Vec::new());
        sink.handle(&batch(0..3), Time(0), &mut MemoryState::new()).unwrap();
        assert_eq!(sink.out.iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[test]
    fn events_wait_for_an_output_that_is_gone() {
        let mut sink = LineSink::new(&"screen".parse().unwrap(), Closed);
        let error = sink.handle(&batch(0..3), Time(0), &mut MemoryState::new()).unwrap_err();
        assert_eq!(error.again, Again::Later);
    }
}
