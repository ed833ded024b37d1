//! A decision in words, for `webhook-injector check`.

use crate::domain::model::Decision;
use crate::manifest::Workload;

/// What would happen to the workload: one line, then indented ones with settings, warnings or problems. Ends with a
/// line break; holds no password.
pub fn describe(workload: &Workload, decision: &Decision) -> String {
    let word = decision.as_str();
    let mut lines = Vec::new();
    match decision {
        Decision::Inject(plan) => {
            lines.push(format!(
                "{workload}: {word} beside container {}",
                plan.worker.name
            ));
            let settings = plan.settings.effective().into_iter();
            lines.extend(settings.map(|(setting, value)| format!("  {}: {value}", setting.name)));
            lines.extend(
                plan.warnings
                    .iter()
                    .map(|warning| format!("  warning: {warning}")),
            );
        }
        Decision::Skip(reason) => lines.push(format!("{workload}: {word}, {}: {reason}", reason.as_str())),
        Decision::Deny(problems) => {
            lines.push(format!("{workload}: {word}"));
            lines.extend(problems.iter().map(|problem| format!("  problem: {problem}")));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
