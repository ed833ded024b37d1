//! Prints `docs/reference/settings.md` from the table of settings.

#![expect(clippy::print_stdout, reason = "printing is all that it does")]

fn main() {
    print!("{}", contract::reference::settings_page());
}
