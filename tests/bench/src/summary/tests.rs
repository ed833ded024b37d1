use super::{Described, Measured, Summary, Verdict, csv, number};
use crate::leg::Sample;
use crate::machine::Machine;
use crate::runner::{Envelope, Runner};
use crate::state::Pair;
use crate::workload::{Against, Better, Compare, Figure, Judged, Queue, Workload};
use serde_json::json;
use std::path::Path;

fn machine() -> Machine {
    Machine {
        processor: "x".to_owned(),
        processors: 2,
        memory_mib: 1,
        kernel: "6".to_owned(),
        versions: Vec::new(),
    }
}

fn figure(name: &str, of: &str, over: Option<&str>, compare: Compare) -> Figure {
    Figure {
        name: name.to_owned(),
        measure: "throughput".to_owned(),
        of: of.to_owned(),
        over: over.map(str::to_owned),
        compare,
        unit: "ratio".to_owned(),
        better: Better::Higher,
        must: Some(1.5),
        aim: Some(2.5),
        judged: Judged::Median,
        discard_disturbed: false,
    }
}

fn workload(figures: Vec<Figure>) -> Workload {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let mut all = Workload::read_all(&directory).unwrap();
    let mut workload = all.swap_remove(all.iter().position(|found| found.same.is_some()).unwrap());
    workload.figures = figures;
    workload
}

fn sample(runner: &str, throughput: f64) -> Sample {
    Sample {
        runner: runner.to_owned(),
        measures: [("throughput".to_owned(), throughput)].into(),
        ..Sample::default()
    }
}

fn pair(workload: &Workload, a: Sample, b: Option<Sample>) -> Pair {
    Pair {
        id: format!("{}-{:?}", a.runner, a.measures),
        workload: workload.name.clone(),
        gate: b.as_ref().is_some_and(|b| b.runner == a.runner),
        b_first: true,
        load: 1.0,
        stolen: 0.0,
        a,
        b,
    }
}

fn described(name: &str) -> Described {
    Described {
        runner: Runner {
            name: name.to_owned(),
            about: "about".to_owned(),
            program: "peer:x/run".to_owned(),
            arguments: vec!["--setting".to_owned()],
            envelope: Envelope::None,
            is_sink: false,
            for_tests: false,
        },
        versions: vec!["x 1.2".to_owned()],
    }
}

fn summary(workload: &Workload, pairs: &[Pair]) -> Summary {
    let measured = Measured {
        workloads: std::slice::from_ref(workload),
        pairs,
        set_aside: 2,
        seed: 1,
        absent: &["go: not there".to_owned()],
        runners: &["x", "unused"].map(described),
    };
    Summary::of(measured, machine(), 7)
}

/// Twelve times the same ratio against itself.
fn quiet(workload: &Workload) -> Vec<Pair> {
    (0..12)
        .map(|_| pair(workload, sample("sidecar", 1.0), Some(sample("sidecar", 1.0))))
        .collect()
}

#[test]
fn pairs_become_ratios_differences_and_absolutes() {
    let workload = workload(vec![
        figure("ratio", "x", Some("y"), Compare::Ratio),
        figure("difference", "x", Some("y"), Compare::Difference),
        figure("absolute", "y", None, Compare::Absolute),
        figure("nobody", "z", None, Compare::Absolute),
    ]);
    let mut pairs = quiet(&workload);
    for (x, y) in [(20.0, 10.0), (600.0, 200.0), (40.0, 20.0)] {
        pairs.push(pair(&workload, sample("x", x), Some(sample("y", y))));
    }
    let summary = summary(&workload, &pairs);
    assert_eq!(summary.rejected, None);
    let medians: Vec<(&str, f64, usize)> = summary
        .rows
        .iter()
        .map(|row| (row.name.as_str(), row.median, row.pairs))
        .collect();
    assert_eq!(
        medians,
        [("ratio", 2.0, 3), ("difference", 20.0, 3), ("absolute", 20.0, 3)]
    );
    assert_eq!(summary.rows[0].verdict, Verdict::Must);
    assert_eq!(summary.not_measured, ["go: not there", "nobody: no sample"]);
}

#[test]
fn lost_messages_stand_beside_the_speed_and_spoil_the_verdict() {
    let workload = workload(vec![figure("ratio", "x", Some("y"), Compare::Ratio)]);
    let mut pairs = quiet(&workload);
    let mut liar = sample("x", 90.0);
    (liar.lost, liar.duplicates, liar.corrupt) = (2, 3, 1);
    let mut other = sample("y", 10.0);
    other.duplicates = 5;
    pairs.push(pair(&workload, liar, Some(other)));
    let mut summary = summary(&workload, &pairs);
    let table = summary.table();
    assert!(
        table.contains("| 3 | 3, the other 5 | loses messages |"),
        "{table}"
    );
    let row = summary.rows.remove(0);
    assert_eq!((row.lost, row.duplicates, row.duplicates_by_other), (3, 3, 5));
    assert_eq!(row.verdict, Verdict::Lossy);
}

#[test]
fn a_run_is_rejected_for_its_gate_for_steal_and_for_nothing_measured() {
    let workload = workload(vec![figure("ratio", "x", Some("y"), Compare::Ratio)]);
    let rejected = |pairs: &[Pair]| summary(&workload, pairs).rejected.unwrap_or_default();
    assert!(rejected(&[]).starts_with("not_measured"));
    let biased: Vec<Pair> = (0..12)
        .map(|_| pair(&workload, sample("sidecar", 1.2), Some(sample("sidecar", 1.0))))
        .collect();
    assert!(rejected(&biased).starts_with("biased"));
    let noisy: Vec<Pair> = (0..12)
        .map(|at| {
            let other = if at % 2 == 0 { 0.5 } else { 2.0 };
            pair(&workload, sample("sidecar", 1.0), Some(sample("sidecar", other)))
        })
        .collect();
    assert!(rejected(&noisy).starts_with("too_wide"));
    let mut stolen = quiet(&workload);
    let mut gateless = workload.clone();
    gateless.same = None;
    let rejected_without = summary(&gateless, &quiet(&workload)).rejected.unwrap_or_default();
    assert!(rejected_without.starts_with("not_measured"), "{rejected_without}");
    stolen[3].stolen = 0.03;
    assert!(rejected(&stolen).starts_with("stolen"));
    assert_eq!(rejected(&quiet(&workload)), "");
}

#[test]
fn a_gate_speaks_for_its_kind_of_queue() {
    let mut classic = workload(vec![figure("classic", "x", Some("y"), Compare::Ratio)]);
    let mut quorum = workload(vec![figure("quorum", "x", Some("y"), Compare::Ratio)]);
    (classic.name, classic.queue) = ("c".to_owned(), Queue::Classic);
    (quorum.name, quorum.queue) = ("q".to_owned(), Queue::Quorum);
    let mut pairs = quiet(&classic);
    for at in 0..12 {
        let other = if at % 2 == 0 { 0.5 } else { 2.0 };
        pairs.push(pair(
            &quorum,
            sample("sidecar", 1.0),
            Some(sample("sidecar", other)),
        ));
    }
    for workload in [&classic, &quorum] {
        pairs.push(pair(workload, sample("x", 2.0), Some(sample("y", 1.0))));
    }
    let summary = Summary::of(
        Measured {
            workloads: &[classic, quorum],
            pairs: &pairs,
            set_aside: 0,
            seed: 1,
            absent: &[],
            runners: &[],
        },
        machine(),
        7,
    );
    assert_eq!((summary.rejected, summary.gates.len()), (None, 2));
    let names: Vec<&str> = summary.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["classic"]);
    assert!(
        summary.not_measured[0].starts_with("quorum: a runner against itself"),
        "{:?}",
        summary.not_measured
    );
}

#[test]
fn disturbed_pairs_are_left_out_and_counted() {
    let mut of = figure("ratio", "x", Some("y"), Compare::Difference);
    of.discard_disturbed = true;
    let workload = workload(vec![of]);
    let mut pairs = quiet(&workload);
    for (x, y) in [(2.0, 1.0), (3.0, 1.1), (500.0, 4.0), (2.5, 0.9)] {
        pairs.push(pair(&workload, sample("x", x), Some(sample("y", y))));
    }
    let row = summary(&workload, &pairs).rows.remove(0);
    assert_eq!((row.discarded, row.pairs), (1, 3));
    assert!(row.high < 3.0);
}

#[test]
fn a_claim_can_be_judged_by_the_worse_end() {
    let mut of = figure("ratio", "x", Some("y"), Compare::Ratio);
    of.judged = Judged::WorseEnd;
    let workload = workload(vec![of]);
    let mut pairs = quiet(&workload);
    for x in [1.4, 1.6, 1.6, 1.6, 1.4, 1.6, 1.6] {
        pairs.push(pair(&workload, sample("x", x), Some(sample("y", 1.0))));
    }
    let row = summary(&workload, &pairs).rows.remove(0);
    assert!(row.median >= 1.5 && row.low < 1.5, "{row:?}");
    assert_eq!(row.verdict, Verdict::Missed);
}

#[test]
fn the_json_has_the_shape_that_programs_read() {
    let workload = workload(vec![figure("ratio", "x", Some("y"), Compare::Ratio)]);
    let mut pairs = quiet(&workload);
    pairs.push(pair(&workload, sample("x", 3.0), Some(sample("y", 1.0))));
    let json = serde_json::to_value(summary(&workload, &pairs)).unwrap();
    assert_eq!(json["machine"]["processors"], 2);
    let row = &json["rows"][0];
    for key in [
        "name",
        "unit",
        "better",
        "median",
        "low",
        "high",
        "pairs",
        "must",
        "aim",
        "lost",
        "duplicates",
    ] {
        assert!(!row[key].is_null(), "{key} is missing in {row}");
    }
    assert_eq!(row["better"], "higher");
    let runners = json["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 1, "{runners:?}");
    let settings = (
        &runners[0]["name"],
        &runners[0]["arguments"],
        &runners[0]["versions"],
    );
    assert_eq!(settings, (&json!("x"), &json!(["--setting"]), &json!(["x 1.2"])));
    let described = &json["workloads"][0];
    assert_eq!(described["name"], workload.name);
    assert_eq!(described["body_bytes"], workload.body_bytes);
}

#[test]
fn growth_is_the_first_over_the_second_and_absolutes_are_those_of_the_first() {
    let mut workload = workload(vec![
        figure("growth", "x", Some("x"), Compare::Ratio),
        figure("absolute", "x", None, Compare::Absolute),
    ]);
    workload.against = Some(Against {
        messages: 1,
        warm_up: 0,
        body_bytes: 16,
        in_flight: 1,
        prefetch: 1,
    });
    let mut pairs = quiet(&workload);
    for _ in 0..3 {
        let mut pair = pair(&workload, sample("x", 30.0), Some(sample("x", 10.0)));
        pair.gate = false;
        pairs.push(pair);
    }
    let rows = summary(&workload, &pairs).rows;
    let medians: Vec<(f64, usize)> = rows.iter().map(|row| (row.median, row.pairs)).collect();
    assert_eq!(medians, [(3.0, 3), (30.0, 3)]);
}

/// What the project promises to measure: name, unit, must, aim.
#[test]
fn the_figures_of_the_table_are_all_there_with_their_targets() {
    let wanted: &[(&str, &str, f64, f64)] = &[
        ("throughput_vs_raw_classic", "ratio", 0.75, 0.85),
        ("throughput_vs_raw_quorum", "ratio", 0.65, 0.75),
        ("throughput_vs_go_classic", "ratio", 1.5, 1.8),
        ("throughput_vs_go_quorum", "ratio", 1.8, 2.3),
        ("cpu_vs_go_classic", "ratio", 0.45, 0.25),
        ("cpu_vs_go_quorum", "ratio", 0.45, 0.25),
        ("cpu_per_message_classic", "µs", 18.0, 10.0),
        ("cpu_per_message_quorum", "µs", 18.0, 10.0),
        ("added_latency_p50", "ms", 0.15, 0.08),
        ("added_latency_p99", "ms", 1.0, 0.5),
        ("startup_to_settled", "ms", 15.0, 10.0),
        ("idle_memory", "MB", 8.0, 5.0),
        ("peak_memory_100_in_flight", "MB", 12.0, 8.0),
        ("peak_memory_500_in_flight", "MB", 28.0, 16.0),
        ("idle_wake_ups", "1/s", 5.0, 1.0),
        ("one_at_a_time_vs_raw_quorum", "ratio", 0.9, 1.0),
        ("one_at_a_time_pipelined_vs_raw_quorum", "ratio", 0.9, 1.0),
        ("image_size", "MB", 12.0, 8.0),
        // Flat within 10 % where the work of a message is the same.
        ("growth_100_in_flight", "ratio", 1.1, 1.0),
        ("growth_1000_in_flight", "ratio", 1.1, 1.0),
        ("growth_backlog_1e6", "ratio", 1.1, 1.0),
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let workloads = Workload::read_all(&directory).unwrap();
    let find = |name: &str| {
        let mut figures = workloads.iter().flat_map(|workload| &workload.figures);
        figures
            .find(|figure| figure.name == name)
            .unwrap_or_else(|| panic!("there is no figure {name}"))
    };
    for (name, unit, must, aim) in wanted {
        let figure = find(name);
        assert_eq!(figure.unit, *unit, "{name}");
        assert_eq!((figure.must, figure.aim), (Some(*must), Some(*aim)), "{name}");
        let is_lower = figure.better == Better::Lower;
        assert_eq!(is_lower, aim < must, "{name}");
        let is_lower_end = name.starts_with("throughput_vs_go");
        assert_eq!(figure.judged == Judged::WorseEnd, is_lower_end, "{name}");
    }
    // Beside them, without a target of their own.
    for name in [
        "idle_anonymous",
        "growth_1_in_flight",
        "growth_10_in_flight",
        "growth_16_kib",
        "growth_256_kib",
    ] {
        assert_eq!(find(name).must, None, "{name}");
    }
}

#[test]
fn every_sample_is_a_line_of_the_csv() {
    let workload = workload(vec![figure("ratio", "x", Some("y"), Compare::Ratio)]);
    let mut other = sample("y", 1.5);
    other.measures.insert("cpu_per_message".to_owned(), 12.0);
    let text = csv(&[pair(&workload, sample("x", 3.0), Some(other))]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].ends_with("cpu_per_message [us],throughput [1/s]"),
        "{text}"
    );
    assert!(
        lines[1].contains(",a,false,x,") && lines[1].ends_with(",,3"),
        "{text}"
    );
    assert!(
        lines[2].contains(",b,true,y,") && lines[2].ends_with(",12,1.5"),
        "{text}"
    );
    let columns = lines[0].matches(',').count();
    assert!(
        lines.iter().all(|line| line.matches(',').count() == columns),
        "{text}"
    );
}

#[test]
fn numbers_have_three_digits_that_say_something() {
    let written: Vec<String> = [20_512.3, 15.72, 1.5, 0.85, 0.0123, -0.5, 0.0].map(number).into();
    assert_eq!(
        written,
        ["20512", "15.7", "1.50", "0.85", "0.0123", "-0.50", "0.00"]
    );
}
