//! What a message is in the queue: its body and headers, or the task that Celery alone understands.

use crate::runner::Envelope;
use crate::workload::Workload;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use testkit::text;

/// The name of the task of the Celery peer.
const TASK: &str = "bench.post";

/// A message of a workload with this number and body: what is published, and its properties. Persistent.
pub fn message(
    envelope: Envelope,
    workload: &Workload,
    id: u64,
    body: Vec<u8>,
) -> (Vec<u8>, BasicProperties) {
    let mut headers = FieldTable::default();
    for number in 0..workload.headers {
        headers.insert(format!("x-bench-{number}").into(), text("sixteen bytes..."));
    }
    let properties = BasicProperties::default().with_delivery_mode(2);
    match envelope {
        Envelope::None => (body, properties.with_headers(headers)),
        Envelope::Celery => {
            task_headers(&mut headers, &task_id(workload, id));
            let properties = properties
                .with_headers(headers)
                .with_content_type("application/json".into())
                .with_content_encoding("utf-8".into())
                .with_correlation_id(task_id(workload, id).into());
            (task_body(&body), properties)
        }
    }
}

/// As Celery's clients write them: "Message Protocol", version 2, in its documentation.
fn task_headers(headers: &mut FieldTable, id: &str) {
    for (name, value) in [
        ("lang", "py"),
        ("task", TASK),
        ("id", id),
        ("root_id", id),
        ("argsrepr", "(...)"),
        ("kwargsrepr", "{}"),
        ("origin", "bench"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    for name in ["eta", "expires", "group", "parent_id", "shadow"] {
        headers.insert(name.into(), AMQPValue::Void);
    }
    headers.insert("retries".into(), AMQPValue::LongInt(0));
    headers.insert("ignore_result".into(), AMQPValue::Boolean(true));
}

/// Arguments, named arguments, and what is to be called next: nothing.
fn task_body(body: &[u8]) -> Vec<u8> {
    let argument = STANDARD.encode(body);
    let next = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;
    format!(r#"[["{argument}"], {{}}, {next}]"#).into_bytes()
}

/// In the form of a UUID, which Celery's own ids have.
fn task_id(workload: &Workload, id: u64) -> String {
    format!(
        "{:08x}-0000-4000-8000-{id:012x}",
        workload.seed & u64::from(u32::MAX)
    )
}

#[cfg(test)]
mod tests {
    use super::{Envelope, STANDARD, message};
    use crate::workload::Workload;
    use base64::Engine as _;
    use std::path::Path;

    fn workload() -> Workload {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let workloads = Workload::read_all(&directory).unwrap();
        let mut workloads = workloads.into_iter();
        workloads.find(|workload| workload.headers > 0).unwrap()
    }

    #[test]
    fn a_body_is_itself_without_an_envelope() {
        let (body, properties) = message(Envelope::None, &workload(), 7, vec![1, 2, 255]);
        assert_eq!(body, [1, 2, 255]);
        assert_eq!(*properties.delivery_mode(), Some(2));
        let headers = properties.headers().as_ref().unwrap();
        assert_eq!(headers.inner().len(), workload().headers);
    }

    #[test]
    fn a_task_of_celery_holds_the_body() {
        let (body, properties) = message(Envelope::Celery, &workload(), 7, vec![1, 2, 255]);
        let task: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let argument = task[0][0].as_str().unwrap();
        assert_eq!(STANDARD.decode(argument).unwrap(), [1, 2, 255]);
        assert!(task[1].as_object().unwrap().is_empty() && task[2].is_object());
        assert_eq!(*properties.delivery_mode(), Some(2));
        let id = properties.correlation_id().as_ref().unwrap().to_string();
        assert_eq!((id.len(), id.rsplit('-').next()), (36, Some("000000000007")));
        let headers = properties.headers().as_ref().unwrap().inner();
        for name in ["task", "id", "x-bench-0"] {
            assert!(headers.contains_key(name), "{name}");
        }
    }
}
