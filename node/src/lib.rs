//! Dunlin.
