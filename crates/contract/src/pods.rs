//! What the components agree on about injected pods: who puts it there, who asks for it.

/// The name of the sidecar's container in a pod.
pub const SIDECAR_CONTAINER: &str = "kubedaemon-sidecar";

/// The port of the pod on which the sidecar answers `/status`, `/drain`, `/resume` and `/drained`.
pub const SIDECAR_ADMIN_PORT: u16 = 9464;

/// The environment variable with the pod's name, of which permissions to drain speak.
pub const POD_NAME_ENV: &str = "KUBEDAEMON_POD_NAME";

/// The environment variable with the pod's namespace.
pub const POD_NAMESPACE_ENV: &str = "KUBEDAEMON_POD_NAMESPACE";

/// The environment variable with the public key that permissions to drain are checked with: 32 bytes of an Ed25519
/// key in base64url without padding.
pub const DRAIN_KEY_ENV: &str = "KUBEDAEMON_DRAIN_KEY";

/// A GET on the sidecar's admin port that is answered once the pod ends and what was in flight is settled: for the
/// worker's `preStop` hook.
pub const DRAINED_PATH: &str = "/drained";

/// The Secret, in the namespace of the components, with the key pair for permissions to drain. The injector makes it,
/// the autoscaler reads it.
pub const DRAIN_KEY_SECRET: &str = "kubedaemon-drain-key";

/// The entry of [`DRAIN_KEY_SECRET`] with the private key: PKCS #8 in base64url without padding.
pub const DRAIN_KEY_PRIVATE: &str = "private";

/// The entry of [`DRAIN_KEY_SECRET`] with the public key, as in [`DRAIN_KEY_ENV`].
pub const DRAIN_KEY_PUBLIC: &str = "public";

/// The annotation by which `ReplicaSet`s choose among pods that are equally ready
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#pod-deletion-cost>). The autoscaler sets it to
/// [`DRAINED_COST`] before it tells a pod to drain, by which the activator knows of it before the pod is not ready.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What drained pods cost; others cost 0.
pub const DRAINED_COST: &str = "-1000";

/// A GET on the activator's admin port: calls that wait or are being answered, as `{"calls": {"namespace/name": 2}}`;
/// a target that is not named has none.
pub const CALLS_PATH: &str = "/calls";
