//! What the measuring examples share.

/// What this thread has used of a processor, in seconds, where the system says so (other work on the
/// machine does not count).
pub fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse::<f64>().ok().map(|nanos| nanos / 1e9)
}
