//! The machine on which was measured, and how busy others kept it.

use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;

/// Stands beside every published figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Mebibytes of memory.
    pub memory_mib: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Name and version of each program that took part and tells it.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let cpu = read("/proc/cpuinfo");
        let processor = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let memory = read("/proc/meminfo");
        let kib = memory.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        Self {
            processor: processor.map_or_else(
                || "unknown".to_owned(),
                |rest| rest.trim_start_matches([':', ' ', '\t']).to_owned(),
            ),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or(0_u64) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: [
                ("RabbitMQ", package("rabbitmq-server")),
                ("Erlang", package("erlang-base")),
                ("Rust", said("rustc", &["--version"])),
                ("Node.js", said("node", &["--version"])),
                ("Java", said("java", &["--version"])),
            ]
            .into_iter()
            .filter_map(|(name, version)| Some((name.to_owned(), version?)))
            .collect(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn package(name: &str) -> Option<String> {
    said("dpkg-query", &["--show", "--showformat=${Version}", name])
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.trim().lines().next()?.to_owned();
    output.status.success().then_some(line)
}

/// Processor time of the whole machine so far, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticks {
    total: u64,
    stolen: u64,
}

impl Ticks {
    /// Reads `/proc/stat`.
    pub fn now() -> Self {
        Self::parse(&read("/proc/stat"))
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        Self {
            total: fields.iter().sum(),
            stolen: fields.get(7).copied().unwrap_or_default(),
        }
    }

    /// The share of the time since `earlier` that the hypervisor took away, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "ticks of some hours")]
    pub fn stolen_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        if total == 0 {
            return 0.0;
        }
        self.stolen.saturating_sub(earlier.stolen) as f64 / total as f64
    }
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split_whitespace()
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Machine, Ticks};

    #[test]
    fn steal_is_a_share_of_all_time() {
        let earlier = Ticks::parse("cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1");
        let later = Ticks::parse("cpu  150 0 100 740 0 0 0 110 50 0");
        assert!((later.stolen_since(earlier) - 0.1).abs() < 1e-9);
        assert!(later.stolen_since(later).abs() < 1e-9);
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::look();
        assert!(machine.processors > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty(), "{machine:?}");
    }
}
