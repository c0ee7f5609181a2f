//! What the figures were taken on, and what processes cost: `/proc`, so on Linux only.

use std::fs;

use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Printed with every row: a figure without it means nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub system: String,
    pub version: &'static str,
    /// `release`, or `debug`: then the figures say nothing.
    pub build: &'static str,
}

impl Machine {
    pub fn this() -> Machine {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(kind).ok();
        let brand =
            system.as_ref().and_then(|system| Some(system.cpus().first()?.brand().trim().to_string()));
        let name = System::long_os_version().unwrap_or_default();
        let kernel = System::kernel_version().unwrap_or_default();
        Machine {
            cpu: brand.filter(|brand| !brand.is_empty()).unwrap_or_else(|| "unknown".to_string()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: system.map_or(0, |system| system.total_memory()),
            system: format!("{name}, kernel {kernel}"),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

/// Seconds of user and system time that a process has used, from `/proc/PID/stat`; in steps of a
/// clock tick (10 ms). None: there is no such process, or no such file on this system.
pub fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything; behind its bracket fields 3 and on follow, and 14 and 15 are times.
    let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_something() {
        let me = std::process::id();
        assert!(cpu_seconds(me).is_some_and(|seconds| seconds < 1e6));
        assert!(resident_bytes(me).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(cpu_seconds(u32::MAX), None);
        assert!(Machine::this().cores > 0);
    }
}
