//! Holds the documents to the code: words, names and sentences that pages list, files that they name, and links.
//!
//! Other components are read as text, because the sidecar must not depend on them.

use sidecar::domain::verdict::Reason;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

type Words = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn entries(folder: &str) -> impl Iterator<Item = std::fs::DirEntry> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    entries.flatten()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// Files of a kind below a folder, as paths from the root of the tree.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries(folder) {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(files(&path, extension));
        } else if has_extension(&path, extension) {
            found.push(path);
        }
    }
    found
}

/// Every page: those of `docs/`, and those at the root.
fn pages() -> Vec<String> {
    let names = entries(".").map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut pages: Vec<String> = names.filter(|name| has_extension(name, "md")).collect();
    pages.extend(files("docs", "md"));
    pages
}

/// The text of a page without its blocks of code.
fn prose(page: &str) -> String {
    let text = read(page);
    let outside = text.split("\n```").step_by(2);
    outside.collect::<Vec<_>>().join("\n")
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The quoted words in one column of the tables whose first row begins with `heading`.
fn column(page: &str, heading: &str, number: usize) -> Words {
    let text = prose(page);
    let mut words = Words::new();
    let mut is_inside = false;
    for line in text.lines() {
        is_inside = line.starts_with(&format!("| {heading} |")) || (is_inside && line.starts_with('|'));
        let cell = line.split('|').nth(number).filter(|_| is_inside);
        words.extend(quoted(cell.unwrap_or_default()).map(str::to_owned));
    }
    assert!(
        !words.is_empty(),
        "{page} has no table that begins with {heading:?}"
    );
    words
}

/// A source file without its tests, in one line, with texts that go over several lines joined.
fn source(path: &str) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let joined = code.split("\\\n").map(str::trim_start);
    joined.collect::<String>().replace('\n', " ")
}

/// The texts in a source file that stand directly behind `before`.
fn texts_after(path: &str, before: &str) -> Words {
    let source = source(path);
    let behind = source.split(before).skip(1);
    let texts = behind.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    texts.map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(page: &str, listed: &Words, known: &Words) {
    let missing: Vec<_> = known.difference(listed).collect();
    let stale: Vec<_> = listed.difference(known).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{page}: missing {missing:?}, not in the code {stale:?}"
    );
}

#[test]
fn verdicts_lists_every_reason() {
    let page = "docs/reference/verdicts.md";
    let known = Reason::ALL.map(|reason| reason.as_str().to_owned()).into();
    assert_same(page, &column(page, "What happened", 2), &known);
}

#[test]
fn metrics_lists_every_metric() {
    let page = "docs/reference/metrics.md";
    let mut known: Words = sidecar::telemetry::METRICS.map(str::to_owned).into();
    for component in ["sidecar", "autoscaler", "activator", "local"] {
        known.extend(texts_after(&format!("{component}/src/telemetry.rs"), ": &str ="));
    }
    assert_same(page, &column(page, "Metric", 1), &known);
}

#[test]
fn message_headers_lists_every_header() {
    let page = "docs/reference/message-headers.md";
    let constants = texts_after("crates/contract/src/headers.rs", ": &str =");
    let (amqp, http): (Words, Words) = constants
        .into_iter()
        .partition(|name| name.starts_with("x-kubedaemon-"));
    assert_same(page, &column(page, "AMQP header", 1), &amqp);
    let listed = &column(page, "Header", 1) | &column(page, "Header of the answer", 1);
    for name in http {
        // Some are listed with what stands behind them.
        assert!(
            listed.iter().any(|listed| listed.contains(&name)),
            "{page}: {name} is missing"
        );
    }
}

#[test]
fn rejections_lists_every_reason() {
    let page = "docs/reference/rejections.md";
    let known = texts_after("activator/src/domain/reject.rs", "=>");
    assert_same(page, &column(page, "Reason", 1), &known);
}

#[test]
fn decisions_lists_every_decision_and_reason() {
    let page = "docs/reference/decisions.md";
    let known = texts_after("autoscaler/src/domain/decision.rs", "=>");
    let listed = &column(page, "Decision", 1) | &column(page, "Decision", 2);
    assert_same(page, &listed, &known);
}

#[test]
fn admin_lists_every_variable_of_a_process() {
    let page = prose("docs/reference/admin.md");
    let variables: Words = sidecar::config::VARIABLES.map(str::to_owned).into();
    let mut known = texts_after("local/src/command.rs", "_ENV: &str =");
    known.extend(variables);
    for variable in known {
        assert!(page.contains(&format!("`{variable}`")), "{variable} is missing");
    }
}

#[test]
fn admin_lists_why_a_lever_is_refused() {
    let page = "docs/reference/admin.md";
    let known = texts_after("sidecar/src/domain/lever.rs", "=>");
    assert_same(page, &column(page, "Status", 2), &known);
}

#[test]
fn troubleshooting_quotes_what_the_programs_write() {
    let folders = [
        "sidecar",
        "autoscaler",
        "activator",
        "local",
        "crates/amqp",
        "crates/contract",
    ];
    let sources = folders
        .iter()
        .flat_map(|folder| files(&format!("{folder}/src"), "rs"));
    let sources: String = sources.map(|file| source(&file)).collect();
    let page = prose("docs/guide/troubleshooting.md");
    let headings = page
        .lines()
        .filter_map(|line| line.strip_prefix("### \"")?.strip_suffix('"'));
    for sentence in headings {
        assert!(sources.contains(sentence), "no program writes {sentence:?}");
    }
}

#[test]
fn files_that_pages_name_exist() {
    for page in pages() {
        for name in quoted(&prose(&page)).filter(|name| name.contains('/') && has_extension(name, "rs")) {
            assert!(
                name.contains('*') || root().join(name).is_file(),
                "{page} names {name}"
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = prose(&page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&page).parent().unwrap();
            let target = if path.is_empty() {
                PathBuf::from(&page)
            } else {
                folder.join(path)
            };
            assert!(root().join(&target).exists(), "{page} links to {link}");
            let has_anchor = || anchors(&target.to_string_lossy()).contains(anchor);
            assert!(
                anchor.is_empty() || has_anchor(),
                "{page} links to {link}, which has no such heading"
            );
        }
    }
}

/// The headings of a page as a browser addresses them.
fn anchors(page: &str) -> Words {
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(slug).collect()
}
