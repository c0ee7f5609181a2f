//! The storage against real files in temporary folders.
