//! What a process and all its descendants cost, read from `/proc` (`man 5 proc`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Ticks of `/proc/<pid>/stat` in a second: `USER_HZ` is 100 on every Linux that we build for.
const TICK: Duration = Duration::from_millis(10);

/// The processes of a tree that live now, the root first. Empty when the root has ended.
pub fn processes(root: u32) -> Vec<u32> {
    if !Path::new(&format!("/proc/{root}/stat")).exists() {
        return Vec::new();
    }
    let mut found = vec![root];
    let mut looked_at = 0;
    while let Some(pid) = found.get(looked_at).copied() {
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        looked_at += 1;
    }
    found
}

fn tasks(pid: u32) -> Vec<String> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    entries
        .map(|entry| format!("{directory}/{}", entry.file_name().to_string_lossy()))
        .collect()
}

/// What the threads of a tree had spent at one moment.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// By thread: the scheduler's count of nanoseconds on a processor.
    running: BTreeMap<u32, u64>,
    /// By thread: how often it gave the processor up by itself.
    given_up: BTreeMap<u32, u64>,
    /// Of the processes, with threads that have ended.
    ticks: Duration,
}

impl Spent {
    /// Reads what the tree has spent so far.
    pub fn now(root: u32) -> Self {
        let mut spent = Self::default();
        for pid in processes(root) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            spent.ticks += ticks(&stat).unwrap_or_default();
            for task in tasks(pid) {
                let thread = task.rsplit('/').next().and_then(|id| id.parse().ok());
                let thread = thread.unwrap_or_default();
                spent
                    .running
                    .insert(thread, running_ns(&task).unwrap_or_default());
                let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
                spent
                    .given_up
                    .insert(thread, field(&status, "voluntary_ctxt_switches:"));
            }
        }
        spent
    }

    /// Processor time since `earlier`.
    ///
    /// Nanoseconds of the threads that live now. What ended in between is only in the count of 10 ms: that is taken
    /// when it is more than it can be wrong by.
    pub fn processor_since(&self, earlier: &Self) -> Duration {
        let precise = Duration::from_nanos(growth(&self.running, &earlier.running));
        let coarse = self.ticks.saturating_sub(earlier.ticks);
        if coarse > precise + 2 * TICK + precise / 20 {
            coarse
        } else {
            precise
        }
    }

    /// How often threads that live now were woken since `earlier`.
    pub fn wake_ups_since(&self, earlier: &Self) -> u64 {
        growth(&self.given_up, &earlier.given_up)
    }
}

/// The sum of what each has grown by; what is new has grown from nothing.
fn growth(now: &BTreeMap<u32, u64>, earlier: &BTreeMap<u32, u64>) -> u64 {
    let of = |thread, count: &u64| count.saturating_sub(earlier.get(thread).copied().unwrap_or_default());
    now.iter().map(|(thread, count)| of(thread, count)).sum()
}

fn running_ns(task: &str) -> Option<u64> {
    let schedstat = fs::read_to_string(format!("{task}/schedstat")).ok()?;
    schedstat.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/<pid>/stat`: fields 14 and 15, counted after the name, which may hold anything.
fn ticks(stat: &str) -> Option<Duration> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

/// Memory of a tree in KiB, summed over its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (`VmRSS`), with pages of files.
    pub rss: u64,
    /// Of that, memory of its own (`RssAnon`).
    pub anonymous: u64,
    /// The most that was ever resident (`VmHWM`).
    pub peak_rss: u64,
}

/// Memory of the tree now.
pub fn memory(root: u32) -> Memory {
    let mut sum = Memory::default();
    for pid in processes(root) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.rss += field(&status, "VmRSS:");
        sum.anonymous += field(&status, "RssAnon:");
        sum.peak_rss += field(&status, "VmHWM:");
    }
    sum
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Spent, field, memory, processes, ticks};
    use std::process::Command;
    use std::time::Duration;
    use testkit::process::Process;
    use testkit::wait::{PATIENCE, until};

    #[test]
    fn fields_are_found() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t 7 kB\nvoluntary_ctxt_switches:\t12\n";
        assert_eq!((field(status, "VmHWM:"), field(status, "RssAnon:")), (2048, 7));
        assert_eq!(
            (field(status, "voluntary_ctxt_switches:"), field(status, "None:")),
            (12, 0)
        );
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn threads_that_end_and_begin_in_between_do_not_confuse() {
        let spent = |threads: &[(u32, u64)], ticks| Spent {
            running: threads.iter().copied().collect(),
            given_up: threads.iter().copied().collect(),
            ticks: Duration::from_millis(ticks),
        };
        let earlier = spent(&[(1, 5_000_000), (2, 900_000_000)], 910);
        let later = spent(&[(1, 9_000_000), (3, 1_000_000)], 920);
        assert_eq!(later.processor_since(&earlier), Duration::from_millis(5));
        assert_eq!(later.wake_ups_since(&earlier), 5_000_000);
        // A thread worked for half a second and ended.
        let later = spent(&[(1, 9_000_000)], 1420);
        assert_eq!(later.processor_since(&earlier), Duration::from_millis(510));
    }

    #[test]
    fn a_process_that_is_not_there_costs_nothing() {
        assert!(processes(u32::MAX).is_empty());
        assert_eq!(
            Spent::now(u32::MAX).processor_since(&Spent::default()),
            Duration::ZERO
        );
        assert_eq!(memory(u32::MAX).rss, 0);
    }

    /// A shell whose child counts for ever: the work of the child is the tree's.
    #[tokio::test]
    async fn the_work_of_children_counts() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sh -c 'while :; do :; done' & echo $!; wait"]);
        let shell = Process::start(command);
        until("both shells run", PATIENCE, || async {
            processes(shell.pid()).len() == 2
        })
        .await;
        let before = Spent::now(shell.pid());
        until("the child has worked for 50 ms", PATIENCE, || async {
            Spent::now(shell.pid()).processor_since(&before) > Duration::from_millis(50)
        })
        .await;
        let memory = memory(shell.pid());
        assert!(
            memory.rss > 0 && memory.peak_rss >= memory.rss && memory.anonymous > 0,
            "{memory:?}"
        );
        assert!(Spent::now(shell.pid()).wake_ups_since(&Spent::default()) > 0);
        let child = shell.lines()[0]
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(child.unwrap(), rustix::process::Signal::KILL).unwrap();
    }
}
