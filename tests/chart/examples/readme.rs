//! Writes the table at the end of the chart's README again, from the chart's `values.yaml`.
#![expect(clippy::unwrap_used, reason = "a tool for who works on the chart")]

fn main() {
    let readme = chart::read("charts/kubedaemon/README.md");
    let (before, _) = readme.split_once("## Values\n").unwrap();
    let table = chart::values_table(&chart::read("charts/kubedaemon/values.yaml"));
    let path = chart::root().join("charts/kubedaemon/README.md");
    std::fs::write(path, format!("{before}## Values\n\n{table}")).unwrap();
}
