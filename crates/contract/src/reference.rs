//! The reference page of the settings, written from the table.

use crate::annotations;
use crate::settings::{Component, SETTINGS, Setting};

/// The command, run at the top of the tree, that brings `docs/reference/settings.md` up to date.
pub const SETTINGS_PAGE_COMMAND: &str =
    "cargo run -q -p contract --example settings-page > docs/reference/settings.md";

/// `docs/reference/settings.md`, whole.
pub fn settings_page() -> String {
    let rows: String = SETTINGS.iter().map(row).collect();
    let sections: String = SETTINGS.iter().map(section).collect();
    format!(
        "<!-- Written from the table in crates/contract/src/settings/table.rs. Do not edit; run:\n     \
         {SETTINGS_PAGE_COMMAND} -->\n\n\
         {HEAD}\
         | Setting | Accepted | Default | What it does |\n|---|---|---|---|\n\
         {rows}{sections}\n\
         ## Annotations that are not settings\n\n- `{}`: {INJECT}\n",
        annotations::INJECT
    )
}

const HEAD: &str = "\
# Settings

Every setting has one name, written in three ways: as an annotation of a Deployment or StatefulSet, as an
environment variable, and as a flag. Where a component takes more than one of them, a flag outweighs a variable, and
a variable outweighs the default.

- **Durations** are written as in Go and Kubernetes, always with a unit: `300ms`, `30s`, `1m30s`, `1.5h`.
- **The broker's address** may hold `@`, `:` and `/` in its password as they are or percent-encoded; a virtual host is
  percent-encoded, except that no path or `/` alone is the virtual host `/`. IPv6 addresses stand in `[ ]`. After a
  `?`, `heartbeat=SECONDS` is the only option. Passwords are never shown.
- **Annotations are strings**: write numbers in quotes, `kubedaemon.io/concurrency: \"4\"`.
- **A wrong value is refused** with a sentence that names the setting, the value and the accepted form; all problems
  are told at once. A name that is not known has no effect and is reported with the nearest one that is.
- An environment variable that is set but empty counts as not set.
- Retry queues are named after the queue, `<queue>.retry.<delay>`, and the dead-letter queue is `<queue>.dead`;
  AMQP allows 255 bytes for a name, and the queue's own name must leave room for that.

";

const INJECT: &str = "`\"false\"` keeps the sidecar out of a workload that is annotated; `\"true\"` takes in one that \
    has no queue and is only called over HTTP.";

fn row(setting: &Setting) -> String {
    let (name, sentence) = (setting.name, setting.sentence);
    format!(
        "| [`{name}`](#{name}) | {} | {} | {sentence}. |\n",
        setting.accepted(),
        default(setting)
    )
}

fn section(setting: &Setting) -> String {
    let components: Vec<&str> = setting
        .components
        .iter()
        .copied()
        .map(Component::as_str)
        .collect();
    let unit = setting.unit();
    format!(
        "\n## {}\n\n{}.\n\n\
         | | |\n|---|---|\n\
         | Annotation | `{}` |\n| Environment variable | `{}` |\n| Flag | `{} {}` |\n\
         | Type | {} |\n| Accepted | {} |\n| Unit | {} |\n| Default | {} |\n| Used by | {} |\n\n\
         When to change it: {}.\n",
        setting.name,
        setting.sentence,
        setting.annotation(),
        setting.env(),
        setting.flag(),
        setting.value_name(),
        setting.kind.as_str(),
        setting.accepted(),
        if unit.is_empty() { "–" } else { unit },
        default(setting),
        components.join(", "),
        lower_first(setting.when),
    )
}

fn default(setting: &Setting) -> String {
    setting.default.map_or_else(
        || setting.default_note.to_owned(),
        |default| format!("`{default}`"),
    )
}

fn lower_first(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
