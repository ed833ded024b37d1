//! `bench`: measures every turn of the schedule, keeps each, and writes the report. `tools/bench` builds and calls it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: progress on standard error, the table on standard output"
)]

use anyhow::{Context, ensure};
use bench::leg::{self, Sample, Stage, unit};
use bench::machine::{Machine, Ticks, load};
use bench::plot;
use bench::runner::{Programs, Runner};
use bench::schedule::{Turn, schedule};
use bench::state::{Pair, State, may_set_aside};
use bench::summary::{Described, Measured, Summary, csv, number};
use bench::workload::{Better, Kind, Workload};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use testkit::Broker;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// The exit code of a run that was measured but is rejected by its gate.
const REJECTED: u8 = 3;
/// The exit code of a run that was stopped by a signal.
const STOPPED: u8 = 130;

fn command() -> Command {
    let value = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    Command::new("bench")
        .about("Measures runners in interleaved pairs")
        .args([
            value("room", "The directory with workloads/ and runners.json").required(true),
            value(
                "state",
                "Where samples are kept, and from where a run is taken up again",
            )
            .required(true),
            value("peers", "Where the programs of peers are").required(true),
            value("images", "Where the archives of images are [default: nowhere]"),
            value(
                "publish",
                "Where the report goes, besides the state, when the run is accepted",
            ),
            value(
                "seed",
                "Of the order [default: random, or the one of the run that is taken up]",
            ),
            value(
                "pairs",
                "How many pairs of each match, instead of what workloads say",
            ),
            value(
                "minutes",
                "After how many minutes only what a report needs is measured: the gates, and two pairs of each match [default: 150]",
            ),
            value("only", "Only workloads whose name contains this").action(ArgAction::Append),
        ])
        .args(["smoke", "fresh"].map(|name| Arg::new(name).long(name).action(ArgAction::SetTrue)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let matches = command().get_matches();
    let stopped = async {
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    // Dropping the run kills its processes; what was measured is kept.
    let ended = tokio::select! {
        ended = run(&matches) => ended,
        () = stopped => {
            eprintln!("\nbench: stopped; the same command goes on from here");
            return ExitCode::from(STOPPED);
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done, read from the arguments.
struct Run {
    workloads: Vec<Workload>,
    runners: BTreeMap<String, Runner>,
    programs: Programs,
    directory: PathBuf,
    deadline: Duration,
    smoke: bool,
}

impl Run {
    fn read(matches: &ArgMatches) -> anyhow::Result<Self> {
        let path = |name| PathBuf::from(matches.get_one::<String>(name).cloned().unwrap_or_default());
        let number = |name| number_of(matches, name);
        let (room, smoke) = (path("room"), matches.get_flag("smoke"));
        let only: Vec<&String> = matches.get_many("only").into_iter().flatten().collect();
        let mut workloads = Workload::read_all(&room.join("workloads"))?;
        workloads.retain(|workload| {
            only.is_empty() || only.iter().any(|part| workload.name.contains(part.as_str()))
        });
        if smoke {
            workloads = workloads.into_iter().filter_map(Workload::smoke).collect();
        }
        if let Some(pairs) = number("pairs")? {
            for workload in &mut workloads {
                workload.set_pairs(usize::try_from(pairs)?);
            }
        }
        ensure!(!workloads.is_empty(), "there is no workload of that name");
        let runners = Runner::read_all(&room.join("runners.json"))?;
        Ok(Self {
            workloads,
            runners: runners
                .into_iter()
                .map(|runner| (runner.name.clone(), runner))
                .collect(),
            programs: Programs::beside(&std::env::current_exe()?, path("peers"), path("images"))?,
            directory: path("state"),
            deadline: Duration::from_mins(number("minutes")?.unwrap_or(150)),
            smoke,
        })
    }

    /// Removes what cannot be measured here from the workloads, and says why.
    fn leave_out_absent(&mut self) -> anyhow::Result<Vec<String>> {
        let mut absent = BTreeMap::new();
        for workload in &self.workloads {
            for found in workload.matches() {
                for name in std::iter::once(found.a).chain(found.b) {
                    let runner = self
                        .runners
                        .get(&name)
                        .with_context(|| format!("{name} is not in runners.json"))?;
                    if let Err(error) = runner.path(&self.programs) {
                        absent.insert(name, error.to_string());
                    }
                }
            }
        }
        for workload in &mut self.workloads {
            workload.figures.retain(|figure| {
                !absent.contains_key(&figure.of)
                    && figure.over.as_ref().is_none_or(|over| !absent.contains_key(over))
            });
        }
        let sentences = absent.into_iter().map(|(name, why)| format!("{name}: {why}"));
        Ok(sentences.collect())
    }

    /// The runners with what they are made of.
    fn described(&self) -> Vec<Described> {
        let runners = self.runners.values();
        runners
            .map(|runner| Described {
                runner: runner.clone(),
                versions: runner.versions(&self.programs),
            })
            .collect()
    }

    /// Everything that samples depend on: files and programs, by size and time. How many samples there are to be is not
    /// among it: a run may be given more.
    fn fingerprint(&self) -> anyhow::Result<String> {
        let mut workloads = self.workloads.clone();
        for workload in &mut workloads {
            workload.set_pairs(0);
        }
        let mut text = serde_json::to_string(&(&workloads, &self.runners))?;
        for runner in self.runners.values() {
            if let Ok(path) = runner.path(&self.programs) {
                let about = fs::metadata(path)?;
                let (bytes, modified) = (about.len(), about.modified()?);
                let versions = runner.versions(&self.programs);
                // Writing to a string cannot fail.
                let _written = write!(text, "{} {bytes} {modified:?} {versions:?};", runner.name).is_ok();
            }
        }
        // FNV-1a, 64 bits: told apart, not kept secret.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(format!("{hash:016x}"))
    }
}

fn number_of(matches: &ArgMatches, name: &str) -> anyhow::Result<Option<u64>> {
    let text = matches.get_one::<String>(name);
    text.map(|text| {
        text.parse()
            .with_context(|| format!("--{name} is {text:?}, which is no number"))
    })
    .transpose()
}

async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut run = Run::read(matches)?;
    let mut absent = run.leave_out_absent()?;
    for sentence in &absent {
        eprintln!("bench: not measured: {sentence}");
    }
    if matches.get_flag("fresh") || run.smoke {
        State::forget(&run.directory)?;
    }
    let (mut state, seed) = State::open(&run.directory, number_of(matches, "seed")?, &run.fingerprint()?)?;
    let turns = schedule(&run.workloads, seed);
    let done = state.done();
    let mut queue: VecDeque<&Turn> = turns.iter().filter(|turn| !done.contains(&turn.id)).collect();
    let before = turns.len() - queue.len();
    eprintln!(
        "bench: seed {seed}, {} turns, {before} of them measured before; samples in {}",
        turns.len(),
        run.directory.display()
    );
    let logs = run.directory.join("logs");
    fs::create_dir_all(&logs)?;
    let broker = Broker::try_start("").await?;
    let stage = Stage {
        amqp: broker.amqp().await,
        broker: &broker,
        programs: run.programs.clone(),
        logs,
    };

    let mut progress = Progress::new(turns.len(), before);
    let began = Instant::now();
    let mut left_out = 0;
    while let Some(turn) = queue.pop_front() {
        if began.elapsed() > run.deadline && !turn.is_needed() {
            progress.skip();
            left_out += 1;
            continue;
        }
        match measure(&run, &stage, turn).await {
            Ok(pair) => {
                if let Some(pair) = state.add(pair, may_set_aside(turns.len()))? {
                    progress.tell(turn, &run.workloads[turn.workload], pair);
                } else {
                    eprintln!(
                        "\nbench: {}: the hypervisor took too much meanwhile; again, after all others",
                        turn.id
                    );
                    // What disturbs lasts for a while.
                    queue.push_back(turn);
                }
            }
            Err(error) => {
                progress.skip();
                eprintln!("\nbench: {}: {error:#}", turn.id);
                absent.push(format!("{}: {error:#}", turn.id));
            }
        }
    }
    progress.end();
    if left_out > 0 {
        eprintln!("bench: the time was up with {left_out} turns to go; the same command goes on from here");
    }
    drop(stage);
    drop(broker);
    let measured = Measured {
        workloads: &run.workloads,
        pairs: &state.pairs,
        set_aside: state.set_aside.len(),
        seed,
        absent: &absent,
        runners: &run.described(),
    };
    let summary = Summary::of(measured, Machine::look(), ops::clock::since_epoch().as_secs());
    report(&run, &state, &summary, &run.directory.join("report"))?;
    println!("{}", summary.table());
    conclude(matches, &run, &state, &summary)
}

/// One pair, in its order.
async fn measure(run: &Run, stage: &Stage<'_>, turn: &Turn) -> anyhow::Result<Pair> {
    let workload = &run.workloads[turn.workload];
    let (load, before) = (load(), Ticks::now());
    let leg = async |workload: &Workload, name: &String| {
        let runner = run
            .runners
            .get(name)
            .with_context(|| format!("there is no runner {name}"))?;
        leg::run(stage, workload, runner).await
    };
    let second = |b| workload.second(&turn.found.a, b);
    let (a, b) = match &turn.found.b {
        None => (leg(workload, &turn.found.a).await?, None),
        Some(b) if turn.b_first => {
            let b = leg(&second(b), b).await?;
            (leg(workload, &turn.found.a).await?, Some(b))
        }
        Some(b) => {
            let a = leg(workload, &turn.found.a).await?;
            (a, Some(leg(&second(b), b).await?))
        }
    };
    Ok(Pair {
        id: turn.id.clone(),
        workload: workload.name.clone(),
        gate: turn.gate,
        b_first: turn.b_first,
        load,
        stolen: Ticks::now().stolen_since(before),
        a,
        b,
    })
}

/// Writes summary, table, samples and plots.
fn report(run: &Run, state: &State, summary: &Summary, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let write = |name: &str, text: String| {
        fs::write(directory.join(name), text).with_context(|| directory.join(name).display().to_string())
    };
    write(
        "summary.json",
        format!("{}\n", serde_json::to_string_pretty(summary)?),
    )?;
    write("table.md", summary.table())?;
    write("samples.csv", csv(&state.pairs))?;
    write("set-aside.csv", csv(&state.set_aside))?;
    for (name, title, better) in [
        ("throughput-ratios.svg", "How fast, pair by pair", Better::Higher),
        ("cost-ratios.svg", "What it costs, pair by pair", Better::Lower),
    ] {
        if let Some(svg) = plot::forest(title, &summary.rows, better) {
            write(name, svg)?;
        }
    }
    // What is sent back by its gate is not drawn either.
    let is_told = |workload: &&Workload| summary.rows.iter().any(|row| row.workload == workload.name);
    for workload in run.workloads.iter().filter(is_told) {
        for measure in measures(workload.kind) {
            let title = format!("{}: {}", workload.name, workload.about);
            if let Some(svg) = plot::samples(&title, &state.pairs, &workload.name, measure) {
                write(&format!("{}-{measure}.svg", workload.name), svg)?;
            }
        }
    }
    Ok(())
}

/// What is drawn of a workload.
fn measures(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Drain => &["throughput", "cpu_per_message", "peak_rss"],
        Kind::Steady => &["latency_p50", "latency_p99", "cpu_per_message"],
        Kind::Footprint => &["startup", "idle_rss", "wake_ups"],
        Kind::Recovery => &["recovery"],
        Kind::Size => &["size"],
        Kind::Proxy => &["throughput", "latency_p50", "latency_p99", "cpu_per_message"],
    }
}

/// Says how it ended, and publishes what is accepted.
fn conclude(matches: &ArgMatches, run: &Run, state: &State, summary: &Summary) -> anyhow::Result<ExitCode> {
    println!("report: {}", run.directory.join("report").display());
    let broken: Vec<String> = state
        .pairs
        .iter()
        .chain(&state.set_aside)
        .flat_map(|pair| {
            let found = |workload: &&Workload| workload.name == pair.workload;
            let workload = run.workloads.iter().find(found);
            let prefetch = workload.map_or(0, |workload| workload.prefetch);
            let a = std::iter::once((pair, &pair.a, prefetch));
            a.chain(pair.b.iter().map(move |b| {
                let second = workload.map(|workload| workload.second(&pair.a.runner, &b.runner));
                (pair, b, second.map_or(0, |second| second.prefetch))
            }))
        })
        .filter(|(_, sample, prefetch)| !sample.is_whole(*prefetch))
        .map(|(pair, sample, _)| {
            format!(
                "{} of {}: lost {}, corrupt {}, unsettled {}",
                sample.runner, pair.id, sample.lost, sample.corrupt, sample.unsettled
            )
        })
        .collect();
    for sentence in &broken {
        println!("not whole: {sentence}");
    }
    if run.smoke {
        println!("A few small pairs, of debug builds perhaps: these numbers say nothing of anybody's speed.");
        // The harness is tested, not the machine: whole samples and rows are what counts.
        let is_right = broken.is_empty() && !summary.rows.is_empty() && !summary.gates.is_empty();
        println!("smoke: {}", if is_right { "passed" } else { "FAILED" });
        return Ok(if is_right {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if let Some(sentence) = &summary.rejected {
        println!("REJECTED, no figure of this run may be quoted: {sentence}");
        return Ok(ExitCode::from(REJECTED));
    }
    println!("accepted");
    // What is published is always the whole table.
    if let Some(directory) = matches.get_one::<String>("publish")
        && !matches.contains_id("only")
    {
        report(run, state, summary, Path::new(directory))?;
        println!("published to {directory}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is shown while it goes on.
struct Progress {
    turns: usize,
    done: usize,
    measured: u32,
    began: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(turns: usize, done: usize) -> Self {
        Self {
            turns,
            done,
            measured: 0,
            began: Instant::now(),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn skip(&mut self) {
        self.done += 1;
    }

    fn tell(&mut self, turn: &Turn, workload: &Workload, pair: &Pair) {
        self.done += 1;
        self.measured += 1;
        let left = u32::try_from(self.turns - self.done).unwrap_or(u32::MAX);
        let left = (self.began.elapsed() / self.measured * left).as_secs();
        let measure = measures(workload.kind)[0];
        let show = |sample: &Sample| {
            let value = sample.measures.get(measure).copied().map(number);
            let value = value.unwrap_or_else(|| "unfinished".to_owned());
            format!("{} {value} {}", sample.runner, unit(measure))
        };
        let mut line = format!(
            "[{}/{}] {}: {}",
            self.done,
            self.turns,
            workload.name,
            show(&pair.a)
        );
        if let Some(b) = &pair.b {
            line = format!("{line} | {}", show(b));
        }
        let gate = if turn.gate { " (gate)" } else { "" };
        line = format!("{line}{gate}, {} min {:02} s left", left / 60, left % 60);
        if self.is_terminal {
            // One line that is written over: \x1b[K clears what is left of the longer one before it.
            eprint!("\r{line}\x1b[K");
            let _shown = std::io::stderr().flush().is_ok();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}
