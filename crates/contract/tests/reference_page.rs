//! The committed reference page is the one that the table gives.

use contract::reference::{SETTINGS_PAGE_COMMAND, settings_page};
use std::path::Path;

#[test]
fn the_committed_settings_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/settings.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == settings_page(),
        "docs/reference/settings.md is stale; run at the top of the tree: {SETTINGS_PAGE_COMMAND}"
    );
}

#[test]
fn the_page_names_every_setting_in_its_three_ways() {
    let page = settings_page();
    for setting in contract::settings::SETTINGS {
        for name in [setting.annotation(), setting.env(), setting.flag()] {
            assert!(page.contains(&format!("`{name}")), "{name} is not on the page");
        }
        assert!(
            page.contains(&format!("\n## {}\n", setting.name)),
            "{} has no section",
            setting.name
        );
    }
}
