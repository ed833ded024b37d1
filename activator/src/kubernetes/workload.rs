//! What an annotated Deployment or StatefulSet asks for, as far as the activator has to know.

use crate::targets::TargetName;
use contract::annotations::INJECT;
use contract::broker::BrokerUrl;
use contract::settings::{Annotations, Layered, Naming, PORT, Problems, QUEUE, Setting, Source, parse};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, Probe as PodProbe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Selector;
use std::collections::BTreeMap;

/// What stands in a `protocol` that is absent.
const TCP: &str = "TCP";

/// Which of the two kinds of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
}

impl Kind {
    /// The kind as Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// A workload that can be called.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    pub(crate) name: TargetName,
    /// The version of which all this is true.
    pub(crate) version: String,
    /// `spec.replicas`; Kubernetes takes 1 when it is absent.
    pub(crate) replicas: i32,
    /// How many replicas a wake asks for: `min-replicas`, at least 1.
    pub(crate) wakes_to: u32,
    /// The worker's port.
    pub(crate) port: u16,
    pub(crate) queue: Option<String>,
    pub(crate) broker: BrokerUrl,
    /// Which pods are its own.
    pub(crate) selector: Selector,
    /// The labels that its pods get, which Services select by.
    pub(crate) pod_labels: BTreeMap<String, String>,
    /// The TCP ports of its containers that have a name.
    pub(crate) named_ports: BTreeMap<String, u16>,
    /// The name of the worker's container: the first.
    pub(crate) worker: String,
    pub(crate) readiness: Readiness,
    /// Why its controller cannot make pods, in the API server's words.
    pub(crate) refused: Option<String>,
}

/// What has to be true before a worker is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Its socket accepts connections.
    Socket,
    /// It answers this GET with a status from 200 to 399, which the activator may ask itself.
    Http(HttpProbe),
    /// The kubelet says so.
    Kubelet,
}

/// A readiness probe of kind `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpProbe {
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What both kinds of workload have in common.
struct Shape<'a> {
    kind: Kind,
    metadata: &'a ObjectMeta,
    replicas: Option<i32>,
    selector: &'a LabelSelector,
    template: &'a PodTemplateSpec,
    refused: Option<String>,
}

/// Whether annotations of the workload itself and of its template, of which the former win, make it a target.
pub(crate) fn is_target(own: Option<&BTreeMap<String, String>>, template: Option<&PodTemplateSpec>) -> bool {
    let template = template
        .and_then(|template| template.metadata.as_ref())
        .and_then(|metadata| metadata.annotations.as_ref());
    let get = |name: &str| {
        own.and_then(|own| own.get(name))
            .or_else(|| template.and_then(|template| template.get(name)))
    };
    match get(INJECT).map(String::as_str) {
        Some("false") => false,
        Some("true") => true,
        _ => get(&QUEUE.annotation()).is_some(),
    }
}

impl Workload {
    /// Reads a Deployment; `None` when it is no target. `defaults` has what its annotations may leave out.
    ///
    /// # Errors
    /// What is wrong with its annotations.
    pub(crate) fn of_deployment(
        object: &Deployment,
        defaults: &dyn Source,
    ) -> Option<Result<Self, Problems>> {
        let spec = object.spec.as_ref()?;
        let conditions = object
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let refused = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
            .and_then(|condition| condition.message.clone());
        let shape = Shape {
            kind: Kind::Deployment,
            metadata: &object.metadata,
            replicas: spec.replicas,
            selector: &spec.selector,
            template: &spec.template,
            refused,
        };
        shape.read(defaults)
    }

    /// Reads a StatefulSet; `None` when it is no target.
    ///
    /// # Errors
    /// As [`of_deployment`](Self::of_deployment).
    pub(crate) fn of_stateful_set(
        object: &StatefulSet,
        defaults: &dyn Source,
    ) -> Option<Result<Self, Problems>> {
        let spec = object.spec.as_ref()?;
        let shape = Shape {
            kind: Kind::StatefulSet,
            metadata: &object.metadata,
            replicas: spec.replicas,
            selector: &spec.selector,
            template: &spec.template,
            refused: None,
        };
        shape.read(defaults)
    }
}

impl Shape<'_> {
    fn read(self, defaults: &dyn Source) -> Option<Result<Workload, Problems>> {
        let own = self.metadata.annotations.as_ref();
        if !is_target(own, Some(self.template)) {
            return None;
        }
        let name = TargetName {
            namespace: self.metadata.namespace.clone()?,
            name: self.metadata.name.clone()?,
        };
        let containers = &self.template.spec.as_ref()?.containers;
        let worker = containers.first()?;
        // What cannot be read selects nothing; the API server does not let it through.
        let selector = Selector::try_from(self.selector.clone()).ok()?;
        let template = self.template.metadata.as_ref();
        let mut annotations = template
            .and_then(|metadata| metadata.annotations.clone())
            .unwrap_or_default();
        annotations.extend(own.cloned().unwrap_or_default());
        let annotations = Annotations::new(annotations);
        let container_port = ContainerPort(tcp_ports(worker).next().map(|(_, port)| port));
        let settings = match parse(&Layered(&[&annotations, &container_port, defaults])) {
            Ok(settings) => settings,
            Err(problems) => return Some(Err(problems)),
        };
        let named_ports: BTreeMap<String, u16> = containers
            .iter()
            .flat_map(tcp_ports)
            .filter_map(|(name, port)| Some((name?.to_owned(), port)))
            .collect();
        Some(Ok(Workload {
            kind: self.kind,
            name,
            version: self.metadata.resource_version.clone().unwrap_or_default(),
            replicas: self.replicas.unwrap_or(1),
            wakes_to: settings.min_replicas.max(1),
            port: settings.port,
            queue: settings.queue,
            broker: settings.broker,
            selector,
            pod_labels: template
                .and_then(|metadata| metadata.labels.clone())
                .unwrap_or_default(),
            readiness: readiness(worker, settings.port, &named_ports),
            named_ports,
            worker: worker.name.clone(),
            refused: self.refused,
        }))
    }
}

/// The container's TCP ports, in order, with their names.
fn tcp_ports(container: &Container) -> impl Iterator<Item = (Option<&str>, u16)> {
    container
        .ports
        .iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().unwrap_or(TCP) == TCP)
        .filter_map(|port| Some((port.name.as_deref(), u16::try_from(port.container_port).ok()?)))
}

fn readiness(worker: &Container, port: u16, named: &BTreeMap<String, u16>) -> Readiness {
    // Until the startup probe has succeeded the kubelet does not ask the other one.
    if worker.startup_probe.is_some() {
        return Readiness::Kubelet;
    }
    let Some(probe) = &worker.readiness_probe else {
        return Readiness::Socket;
    };
    let PodProbe {
        http_get, tcp_socket, ..
    } = probe;
    let number = |asked: &IntOrString| match asked {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => named.get(name).copied().or_else(|| name.parse().ok()),
    };
    if let Some(socket) = tcp_socket
        && socket.host.is_none()
        && number(&socket.port) == Some(port)
    {
        return Readiness::Socket;
    }
    let Some(get) = http_get else {
        return Readiness::Kubelet;
    };
    let is_plain = get
        .scheme
        .as_deref()
        .unwrap_or("HTTP")
        .eq_ignore_ascii_case("HTTP")
        && get.host.is_none();
    match number(&get.port) {
        Some(port) if is_plain => Readiness::Http(HttpProbe {
            port,
            path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
            headers: get
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        }),
        _ => Readiness::Kubelet,
    }
}

/// The port that the worker's container names, in place of the fixed default; as the injector derives it.
struct ContainerPort(Option<u16>);

impl Source for ContainerPort {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0
            .filter(|_| setting.name == PORT.name)
            .map(|port| port.to_string())
    }

    fn name(&self, _: &Setting) -> String {
        "spec.template.spec.containers[0].ports[0].containerPort".to_owned()
    }
}

/// Removes what the activator does not need of a Deployment.
pub(crate) fn prune_deployment(object: &mut Deployment) {
    let template = object.spec.as_ref().map(|spec| &spec.template);
    if is_target(object.metadata.annotations.as_ref(), template) {
        if let Some(spec) = &mut object.spec {
            prune_template(&mut spec.template);
        }
    } else {
        (object.spec, object.status) = (None, None);
    }
    prune_metadata(&mut object.metadata);
}

/// Removes what the activator does not need of a StatefulSet.
pub(crate) fn prune_stateful_set(object: &mut StatefulSet) {
    let template = object.spec.as_ref().map(|spec| &spec.template);
    if is_target(object.metadata.annotations.as_ref(), template) {
        if let Some(spec) = &mut object.spec {
            prune_template(&mut spec.template);
            spec.volume_claim_templates = None;
        }
    } else {
        object.spec = None;
    }
    object.status = None;
    prune_metadata(&mut object.metadata);
}

fn prune_metadata(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| Naming::Annotation.has_prefix(name));
    }
    (metadata.labels, metadata.owner_references) = (None, None);
}

fn prune_template(template: &mut PodTemplateSpec) {
    let Some(spec) = &mut template.spec else { return };
    let containers = std::mem::take(&mut spec.containers)
        .into_iter()
        .map(|container| Container {
            name: container.name,
            ports: container.ports,
            readiness_probe: container.readiness_probe,
            startup_probe: container.startup_probe,
            ..Container::default()
        })
        .collect();
    *spec = k8s_openapi::api::core::v1::PodSpec {
        containers,
        ..Default::default()
    };
}

#[cfg(test)]
mod tests;
