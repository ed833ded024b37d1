//! Plots as SVG: the ratios with their intervals, and every sample of every runner. Light background, labelled axes,
//! nothing to click.

use crate::leg::{Sample, unit};
use crate::state::Pair;
use crate::stats;
use crate::summary::{Row, number};
use crate::workload::Better;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 40.0;
const ROW: f64 = 34.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 58.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#d9dfe5";
const QUIET: &str = "#6b7785";
const OURS: &str = "#0b6e8f";
const MUST: &str = "#c2410c";
const AIM: &str = "#15803d";

/// A horizontal axis from `low` to `high` in steps that people count in.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From 0 (or below, when a value is) to beyond the largest, in 4 to 10 steps of 1, 2 or 5 times a power of ten.
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (0.0_f64, 0.0_f64);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        let span = if high > low { high - low } else { 1.0 };
        let power = 10_f64.powf((span / 8.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(|step| span / step <= 8.0).unwrap_or(span);
        let high = (high / step).floor() * step + step;
        Self {
            low: (low / step).floor() * step,
            high,
            step,
        }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, step) = (self.low, self.step);
        let count = ((self.high - low) / step).round();
        (0_u8..=20)
            .map(f64::from)
            .take_while(move |at| *at <= count)
            .map(move |at| low + at * step)
    }
}

/// A drawing that grows downwards.
struct Drawing {
    body: String,
    height: f64,
}

impl Drawing {
    fn new(title: &str, subtitle: &str, axis: &Axis, label: &str, rows: usize) -> Self {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let bottom = TOP + ROW * f64::from(rows);
        let mut drawing = Self {
            body: String::new(),
            height: bottom + BOTTOM,
        };
        drawing.text((16.0, 26.0), "start", 17, INK, title);
        drawing.text((16.0, 46.0), "start", 12, QUIET, subtitle);
        for tick in axis.ticks() {
            let x = axis.x(tick);
            drawing.line((x, TOP - 6.0), (x, bottom), FAINT, 1.0);
            drawing.text(
                (x, bottom + 18.0),
                "middle",
                12,
                QUIET,
                &tick_label(tick, axis.step),
            );
        }
        drawing.line((axis.x(axis.low), bottom), (axis.x(axis.high), bottom), INK, 1.0);
        let middle = f64::midpoint(axis.x(axis.low), axis.x(axis.high));
        drawing.text((middle, bottom + 42.0), "middle", 13, INK, label);
        drawing
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) {
        // Writing to a string cannot fail, here and below.
        let _written = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        )
        .is_ok();
    }

    fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str, opacity: f64) {
        let _written = writeln!(
            self.body,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{colour}" fill-opacity="{opacity}"/>"#
        )
        .is_ok();
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, size: u8, colour: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _written = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>"#
        )
        .is_ok();
    }

    fn end(self) -> String {
        let (height, body) = (self.height, self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui, sans-serif\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

fn tick_label(tick: f64, step: f64) -> String {
    let decimals = match step {
        step if step >= 1.0 => 0,
        step if step >= 0.1 => 1,
        step if step >= 0.01 => 2,
        _ => 3,
    };
    format!("{tick:.decimals$}")
}

/// Ratios with their intervals, a row each, and what has to be met. Only rows of the one direction; `None` when there
/// is none.
pub fn forest(title: &str, rows: &[Row], better: Better) -> Option<String> {
    let is_shown = |row: &&Row| row.unit == "ratio" && row.better == better;
    let rows: Vec<&Row> = rows.iter().filter(is_shown).collect();
    if rows.is_empty() {
        return None;
    }
    let values = rows.iter().flat_map(|row| {
        let targets = [row.must, row.aim].into_iter().flatten();
        targets.chain([row.low, row.high, row.median, 1.0])
    });
    let axis = Axis::of(values);
    let subtitle = "dot: median of the pairs; bar: 95 % interval; orange and green: what must be met and what is aimed at";
    let label = match better {
        Better::Higher => "ratio (more is better; the stroke is 1, as fast as the other)",
        Better::Lower => "ratio (less is better; the stroke is 1, as much as the other)",
    };
    let mut drawing = Drawing::new(title, subtitle, &axis, label, rows.len());
    let bottom = drawing.height - BOTTOM;
    drawing.line((axis.x(1.0), TOP - 6.0), (axis.x(1.0), bottom), QUIET, 1.5);
    let mut y = TOP + ROW / 2.0;
    for row in rows {
        drawing.text((LEFT - 12.0, y), "end", 13, INK, &row.name.replace('_', " "));
        let note = format!(
            "{} pairs, lost {}, duplicates {}",
            row.pairs, row.lost, row.duplicates
        );
        drawing.text((LEFT - 12.0, y + 13.0), "end", 10, QUIET, &note);
        for (target, colour) in [(row.must, MUST), (row.aim, AIM)] {
            if let Some(target) = target {
                let x = axis.x(target);
                drawing.line((x, y - 11.0), (x, y + 11.0), colour, 2.0);
            }
        }
        drawing.line((axis.x(row.low), y), (axis.x(row.high), y), OURS, 4.0);
        drawing.dot((axis.x(row.median), y), 5.5, OURS, 1.0);
        drawing.text(
            (axis.x(row.median), y - 9.0),
            "middle",
            11,
            INK,
            &number(row.median),
        );
        y += ROW;
    }
    Some(drawing.end())
}

/// Every sample of every runner on a workload, with the median. `None` when there is no sample of the measure.
pub fn samples(title: &str, pairs: &[Pair], workload: &str, measure: &str) -> Option<String> {
    let mut runners: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for pair in pairs.iter().filter(|pair| pair.workload == workload) {
        let mut add = |label: String, sample: &Sample| {
            if let Some(value) = sample.measures.get(measure) {
                runners.entry(label).or_default().push(*value);
            }
        };
        add(pair.a.runner.clone(), &pair.a);
        if let Some(b) = &pair.b {
            // A runner against itself, and no gate: the second has other sizes.
            let is_other = b.runner == pair.a.runner && !pair.gate;
            let label = if is_other { " (other sizes)" } else { "" };
            add(format!("{}{label}", b.runner), b);
        }
    }
    if runners.is_empty() {
        return None;
    }
    let axis = Axis::of(runners.values().flatten().copied());
    let label = format!("{} ({})", measure.replace('_', " "), unit(measure));
    let subtitle = "a dot for each sample, a stroke for the median; absolutes move with the machine, ratios are the claim";
    let mut drawing = Drawing::new(title, subtitle, &axis, &label, runners.len());
    let mut y = TOP + ROW / 2.0;
    for (runner, values) in runners {
        let colour = if runner == "sidecar" { OURS } else { QUIET };
        drawing.text((LEFT - 12.0, y), "end", 13, INK, &runner);
        drawing.text(
            (LEFT - 12.0, y + 13.0),
            "end",
            10,
            QUIET,
            &format!("{} samples", values.len()),
        );
        for (at, value) in values.iter().enumerate() {
            // Spread, so that equal ones can be told apart.
            let spread = f64::from(u8::try_from(at % 5).unwrap_or_default()) * 3.0 - 6.0;
            drawing.dot((axis.x(*value), y + spread), 3.0, colour, 0.45);
        }
        if let Some(median) = stats::median(&values) {
            let x = axis.x(median);
            drawing.line((x, y - 13.0), (x, y + 13.0), INK, 2.5);
            drawing.text((x + 5.0, y - 6.0), "start", 11, INK, &number(median));
        }
        y += ROW;
    }
    Some(drawing.end())
}

#[cfg(test)]
mod tests {
    use super::{Axis, LEFT, RIGHT, WIDTH, forest, samples};
    use crate::leg::Sample;
    use crate::state::Pair;
    use crate::summary::{Row, Verdict};
    use crate::workload::Better;
    use proptest::prelude::*;

    fn row(name: &str, median: f64) -> Row {
        Row {
            name: name.to_owned(),
            unit: "ratio".to_owned(),
            better: Better::Higher,
            median,
            low: median * 0.9,
            high: median * 1.2,
            pairs: 20,
            must: Some(0.75),
            aim: Some(0.85),
            lost: 0,
            duplicates: 0,
            measure: "throughput".to_owned(),
            workload: "d1".to_owned(),
            of: "sidecar".to_owned(),
            over: None,
            lost_by_other: 0,
            duplicates_by_other: 0,
            discarded: 0,
            verdict: Verdict::Aim,
        }
    }

    #[test]
    fn a_forest_has_a_labelled_row_for_each_figure_of_the_unit() {
        let mut other = row("memory", 8.0);
        other.unit = "MB".to_owned();
        let svg = forest(
            "Ratios",
            &[row("throughput_vs_raw", 0.8), row("a<b&c", 1.4), other],
            Better::Higher,
        )
        .unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(">throughput vs raw<") && svg.contains(">a&lt;b&amp;c<"));
        assert!(!svg.contains(">memory<"));
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">ratio (more is better"), "the axis has its unit");
        assert_eq!(forest("", &[], Better::Higher), None);
    }

    #[test]
    fn every_sample_is_a_dot() {
        let sample = |runner: &str, value| Sample {
            runner: runner.to_owned(),
            measures: [("throughput".to_owned(), value)].into(),
            ..Sample::default()
        };
        let pair = Pair {
            id: "x".to_owned(),
            workload: "d1".to_owned(),
            gate: false,
            b_first: false,
            load: 0.0,
            stolen: 0.0,
            a: sample("sidecar", 20_000.0),
            b: Some(sample("go", 9_000.0)),
        };
        let svg = samples("Drain", &[pair.clone(), pair], "d1", "throughput").unwrap();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains(">throughput (1/s)<") && svg.contains(">go<"));
        assert_eq!(samples("", &[], "d1", "throughput"), None);
    }

    proptest! {
        #[test]
        fn every_value_is_on_the_axis_which_has_few_ticks(
            values in prop::collection::vec(-1e6_f64..1e6, 1..20),
        ) {
            let axis = Axis::of(values.iter().copied());
            let ticks = axis.ticks().count();
            prop_assert!((2..=12).contains(&ticks), "{} ticks of {:?}", ticks, axis);
            for value in values {
                prop_assert!(axis.low <= value && value <= axis.high);
                prop_assert!((LEFT..=WIDTH - RIGHT).contains(&axis.x(value)));
            }
        }
    }
}
