//! Manifests, YAML or JSON, and what their annotations mean.

use crate::Target;
use crate::input::text;
use webhook_injector::domain::model::{Decision, decide};
use webhook_injector::manifest;
use webhook_injector::report::describe;

pub(crate) const TARGET: Target = Target {
    name: "manifest",
    what: "manifests and their annotations: a decision for each workload, a sentence for what cannot be read",
    run,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    for found in manifest::read("m.yaml", text) {
        match found {
            Ok(workload) => {
                let decision = decide(&workload);
                match &decision {
                    Decision::Inject(plan) => {
                        assert!(workload.containers.first() == Some(&plan.worker));
                    }
                    Decision::Deny(problems) => assert!(!problems.is_empty()),
                    Decision::Skip(_) => {}
                }
                let described = describe(&workload, &decision);
                assert!(described.ends_with('\n') && described.lines().count() > 0);
            }
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.starts_with("m.yaml"), "{sentence}");
                assert!(!sentence.contains(['\n', '\r']), "{sentence:?}");
            }
        }
    }
}
