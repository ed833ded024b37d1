//! What the annotations of a workload ask for.

use super::workload::Workload;
use crate::domain::Policy;
use contract::annotations::INJECT;
use contract::broker::BrokerUrl;
use contract::settings::{self, Annotations, BROKER, QUEUE, Setting, Source, VHOST};
use std::collections::BTreeMap;

/// How a workload is to be scaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) broker: BrokerUrl,
    pub(super) queue: Option<String>,
    pub(super) dead_letter: Option<String>,
    pub(super) policy: Policy,
}

/// What the annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intent {
    /// It is none of ours.
    Absent,
    /// It is to be scaled.
    Scaled(Box<Scaled>),
    /// They cannot be read; a sentence for each problem.
    Bad(String),
}

/// Reads the annotations; the workload's own win over those of its pod template. `broker` is for those that name none.
pub(super) fn intent(workload: &Workload, broker: &BrokerUrl) -> Intent {
    let mut all: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in workload.template.iter().chain(&workload.own) {
        all.insert(name, value);
    }
    let has_queue = all.contains_key(QUEUE.annotation().as_str());
    match all.get(INJECT).copied() {
        Some("false") => return Intent::Absent,
        Some("true") => {}
        Some(other) => {
            return Intent::Bad(format!(
                "{INJECT} is {other:?}, which is neither: write \"true\" or \"false\""
            ));
        }
        None if has_queue => {}
        None => return Intent::Absent,
    }
    let given = all
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let annotations = Annotations::new(given);
    let settings = match settings::parse(&annotations) {
        Ok(settings) => settings,
        Err(problems) => return Intent::Bad(problems.to_string()),
    };
    let is_given = |setting: &Setting| annotations.get(setting).is_some();
    let broker = match (is_given(&BROKER), is_given(&VHOST)) {
        (true, _) => settings.broker,
        (false, true) => broker.clone().with_vhost(settings.broker.vhost),
        (false, false) => broker.clone(),
    };
    let policy = Policy::try_new(
        settings.min_replicas,
        settings.max_replicas,
        settings.messages_per_replica,
        settings.cool_down,
    );
    match policy {
        Ok(policy) => Intent::Scaled(Box::new(Scaled {
            broker,
            queue: settings.queue,
            dead_letter: settings.dead_letter,
            policy,
        })),
        Err(error) => Intent::Bad(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    fn intent_of(own: &serde_json::Value, template: &serde_json::Value) -> Intent {
        let deployment: Deployment = serde_json::from_value(serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "orders", "namespace": "shop", "annotations": own},
            "spec": {"selector": {}, "template": {"metadata": {"annotations": template}}},
        }))
        .unwrap();
        let broker: BrokerUrl = "amqp://rabbit/main".parse().unwrap();
        intent(&Workload::of_deployment(&deployment), &broker)
    }

    fn scaled(own: &serde_json::Value, template: &serde_json::Value) -> Scaled {
        match intent_of(own, template) {
            Intent::Scaled(scaled) => *scaled,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_queue_or_inject_makes_a_target() {
        let none = serde_json::json!({});
        assert_eq!(
            intent_of(&serde_json::json!({"kubedaemon.io/max-replicas": "5"}), &none),
            Intent::Absent
        );
        let off = serde_json::json!({"kubedaemon.io/inject": "false"});
        let queue = serde_json::json!({"kubedaemon.io/queue": "orders"});
        assert_eq!(intent_of(&off, &queue), Intent::Absent);
        assert_eq!(scaled(&none, &queue).queue.as_deref(), Some("orders"));
        let called = scaled(&serde_json::json!({"kubedaemon.io/inject": "true"}), &none);
        assert_eq!((called.queue, called.dead_letter), (None, None));
    }

    #[test]
    fn own_annotations_win_over_the_template() {
        let template =
            serde_json::json!({"kubedaemon.io/queue": "orders", "kubedaemon.io/max-replicas": "5"});
        let own = serde_json::json!({"kubedaemon.io/max-replicas": "7"});
        assert_eq!(scaled(&own, &template).policy.max_replicas(), 7);
    }

    #[test]
    fn the_broker_is_ours_unless_annotations_say_otherwise() {
        let with = |name: &str, value: &str| {
            let own = serde_json::json!({"kubedaemon.io/queue": "orders", name: value});
            scaled(&own, &serde_json::json!({})).broker
        };
        let plain = with("kubedaemon.io/path", "/");
        assert_eq!((plain.host.as_str(), plain.vhost.as_str()), ("rabbit", "main"));
        let vhost = with("kubedaemon.io/vhost", "team");
        assert_eq!((vhost.host.as_str(), vhost.vhost.as_str()), ("rabbit", "team"));
        assert_eq!(with("kubedaemon.io/broker", "amqp://other").host, "other");
    }

    #[test]
    fn what_cannot_be_read_is_told_in_sentences() {
        let own = serde_json::json!({"kubedaemon.io/queue": "orders", "kubedaemon.io/max-replicas": "many"});
        let Intent::Bad(said) = intent_of(&own, &serde_json::json!({})) else {
            panic!("it was read");
        };
        assert!(said.contains("kubedaemon.io/max-replicas is \"many\""), "{said}");
        let own = serde_json::json!({"kubedaemon.io/inject": "maybe"});
        assert!(matches!(intent_of(&own, &serde_json::json!({})), Intent::Bad(_)));
    }
}
