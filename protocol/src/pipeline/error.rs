//! The one error that a wrong pipeline file gets: where, what, why, and what to write instead.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

/// A pipeline file that cannot be deployed. Nothing was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}{place}: {reason}; {hint}")]
pub struct ManifestError {
    pub file: String,
    pub place: Place,
    pub reason: String,
    /// The nearest valid spelling, or what to do.
    pub hint: String,
}

/// Where in the text, as exactly as the format tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Both from 1; columns count characters.
    Line { line: usize, column: usize },
    /// In JSON: the way from the root, `stage.clean.from[0]`; the root itself is empty.
    Path(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { line, column } => write!(f, ":{line}:{column}"),
            Place::Path(path) if path.is_empty() => Ok(()),
            Place::Path(path) => write!(f, ": at {path}"),
        }
    }
}

/// A `ManifestError` that does not know its file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub place: Place,
    pub reason: String,
    pub hint: String,
}

impl Problem {
    pub fn new(place: &Place, reason: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { place: place.clone(), reason: reason.into(), hint: hint.into() }
    }

    pub fn in_file(self, file: &str) -> ManifestError {
        ManifestError { file: file.to_string(), place: self.place, reason: self.reason, hint: self.hint }
    }
}

/// "did you mean 'x'?" when one of `known` is near, else what there is.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let mut best: Option<(f64, &str)> = None;
    for candidate in &known {
        let near = strsim::normalized_damerau_levenshtein(&wrong.to_lowercase(), &candidate.to_lowercase());
        if near >= 0.5 && best.is_none_or(|(so_far, _)| near > so_far) {
            best = Some((near, candidate));
        }
    }
    match best {
        Some((_, candidate)) => format!("did you mean '{candidate}'?"),
        None if known.is_empty() => "there is none to choose from".to_string(),
        None => format!("valid here: {}", known.join(", ")),
    }
}
