//! What somebody may have meant.

/// Below this likeness (0 to 1) a word is another one, not a misspelt one.
const LIKENESS_MIN: f64 = 0.5;

/// "did you mean 'x'?" when one of `known` is near, else what there is.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let likeness =
        |word: &str| strsim::normalized_damerau_levenshtein(&wrong.to_lowercase(), &word.to_lowercase());
    let best = known.iter().map(|word| (likeness(word), word)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN) {
        Some((_, word)) => format!("did you mean '{word}'?"),
        None => format!("there are: {}", known.join(", ")),
    }
}
