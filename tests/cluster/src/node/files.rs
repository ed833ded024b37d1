//! The directory of a node: what its components are told.

use super::addresses::Addresses;
use super::certificates;
use std::fs;
use std::io;
use std::path::Path;

/// All components.
pub(super) const COMPONENTS: [&str; 8] = [
    "containerd",
    "etcd",
    "kube-apiserver",
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
];

/// The kubeconfig of the administrator below the directory.
pub(crate) const KUBECONFIG: &str = "kubeconfig";

/// The name of the node, and with it of its kubelet's user.
pub(crate) const NODE: &str = "node";

/// The image of the process that holds a pod.
pub(crate) const PAUSE: &str = "localhost/pause:1";

/// Who has a kubeconfig: file name and certificate.
const KUBECONFIGS: [(&str, &str); 6] = [
    (KUBECONFIG, "admin"),
    ("controller-manager.kubeconfig", "controller-manager"),
    ("coredns.kubeconfig", "coredns"),
    ("kubelet.kubeconfig", "kubelet"),
    ("proxy.kubeconfig", "proxy"),
    ("scheduler.kubeconfig", "scheduler"),
];

/// Writes everything that the node's components read. `programs` is the directory of Kubernetes' programs.
pub(super) fn write(dir: &Path, programs: &Path, addresses: Addresses) -> io::Result<()> {
    for name in ["commands", "logs", "cni", "kubelet"] {
        fs::create_dir(dir.join(name))?;
    }
    fs::write(dir.join("addresses"), addresses.shell())?;
    certificates::write(&dir.join("pki"), addresses)?;
    for (name, client) in KUBECONFIGS {
        fs::write(dir.join(name), kubeconfig(dir, client, addresses))?;
    }
    let place = dir.display();
    let group = dir.file_name().unwrap_or_default().display();
    fs::write(dir.join("containerd.toml"), containerd(dir))?;
    fs::write(dir.join("cni/10-pods.conflist"), cni(addresses))?;
    fs::write(
        dir.join("kubelet.yaml"),
        kubelet(dir, &group.to_string(), addresses),
    )?;
    fs::write(dir.join("proxy.yaml"), proxy(dir, addresses))?;
    fs::write(dir.join("Corefile"), corefile(dir, addresses))?;
    // Pods that ask for the node's resolver get none: nothing of a test leaves the machine.
    fs::write(dir.join("resolv.conf"), "")?;
    let environment = format!("env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME={place} LC_ALL=C.UTF-8");
    for name in COMPONENTS {
        let program = match name {
            "containerd" | "etcd" => name.to_owned(),
            _ => programs.join(name).display().to_string(),
        };
        let arguments = arguments(name, dir, addresses).join(" ");
        let script = format!("exec {environment} {program} {arguments}\n");
        fs::write(dir.join("commands").join(name), script)?;
    }
    Ok(())
}

fn kubeconfig(dir: &Path, client: &str, addresses: Addresses) -> String {
    let (pki, node) = (dir.join("pki"), addresses.node());
    let pki = pki.display();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://{node}:6443', certificate-authority: {pki}/ca.pem}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         users: [{{name: test, user: {{client-certificate: {pki}/{client}.pem, client-key: {pki}/{client}-key.pem}}}}]\n"
    )
}

/// The options of a component. Ports are the usual ones: the network is the node's own.
fn arguments(name: &str, dir: &Path, addresses: Addresses) -> Vec<String> {
    let (dir, node, services) = (dir.display(), addresses.node(), addresses.services());
    let pki = format!("{dir}/pki");
    let text = match name {
        "containerd" => format!("--config={dir}/containerd.toml"),
        // No test outlives its machine, so that nothing need reach the disk.
        "etcd" => format!("--data-dir={dir}/etcd --unsafe-no-fsync"),
        "kube-apiserver" => format!(
            "--etcd-servers=http://127.0.0.1:2379 --advertise-address={node} --service-cluster-ip-range={services} \
             --tls-cert-file={pki}/apiserver.pem --tls-private-key-file={pki}/apiserver-key.pem \
             --client-ca-file={pki}/ca.pem --kubelet-certificate-authority={pki}/ca.pem \
             --kubelet-client-certificate={pki}/apiserver-kubelet.pem \
             --kubelet-client-key={pki}/apiserver-kubelet-key.pem \
             --kubelet-preferred-address-types=InternalIP \
             --service-account-issuer=https://kubernetes.default.svc \
             --service-account-key-file={pki}/accounts.pem \
             --service-account-signing-key-file={pki}/accounts-key.pem \
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
             --endpoint-reconciler-type=lease \
             --requestheader-client-ca-file={pki}/ca.pem --requestheader-allowed-names=front-proxy \
             --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
             --requestheader-extra-headers-prefix=X-Remote-Extra- \
             --proxy-client-cert-file={pki}/front-proxy.pem --proxy-client-key-file={pki}/front-proxy-key.pem"
        ),
        "kube-controller-manager" => format!(
            "--kubeconfig={dir}/controller-manager.kubeconfig --controllers=*,-nodeipam,-cloud-node-lifecycle \
             --leader-elect=false --use-service-account-credentials --root-ca-file={pki}/ca.pem \
             --service-account-private-key-file={pki}/accounts-key.pem \
             --cluster-signing-cert-file={pki}/ca.pem --cluster-signing-key-file={pki}/ca-key.pem"
        ),
        "kube-scheduler" => format!("--kubeconfig={dir}/scheduler.kubeconfig --leader-elect=false"),
        "kubelet" => format!(
            "--config={dir}/kubelet.yaml --kubeconfig={dir}/kubelet.kubeconfig --hostname-override={NODE} \
             --node-ip={node} --root-dir={dir}/kubelet --cert-dir={dir}/kubelet/pki"
        ),
        "kube-proxy" => format!("--config={dir}/proxy.yaml"),
        "coredns" => format!("-conf {dir}/Corefile"),
        _ => String::new(),
    };
    text.split_whitespace().map(str::to_owned).collect()
}

fn containerd(dir: &Path) -> String {
    let dir = dir.display();
    // Lowering oom_score_adj needs CAP_SYS_RESOURCE, which root in a container often lacks.
    format!(
        "version = 2\n\
         root = '{dir}/containerd'\n\
         state = '/run/containerd'\n\
         disabled_plugins = [\n\
         \x20 'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs',\n\
         \x20 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.zfs']\n\
         [grpc]\n\
         address = '/run/containerd/containerd.sock'\n\
         [plugins.'io.containerd.internal.v1.opt']\n\
         path = '{dir}/opt'\n\
         [plugins.'io.containerd.grpc.v1.cri']\n\
         sandbox_image = '{PAUSE}'\n\
         restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.grpc.v1.cri'.cni]\n\
         bin_dir = '/usr/lib/cni'\n\
         conf_dir = '{dir}/cni'\n"
    )
}

/// Pods are routed, each by a cable of its own, and not bridged: on a bridge the answer of a pod to its neighbour
/// would pass by the translation of Services, unless the machine has `br_netfilter`.
fn cni(addresses: Addresses) -> String {
    let pods = addresses.pods();
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{ "subnet": pods }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

fn kubelet(dir: &Path, group: &str, addresses: Addresses) -> String {
    let (dir, node) = (dir.display(), addresses.node());
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {dir}/pki/ca.pem}}}}\n\
         authorization: {{mode: Webhook}}\n\
         tlsCertFile: {dir}/pki/kubelet-server.pem\n\
         tlsPrivateKeyFile: {dir}/pki/kubelet-server-key.pem\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         cgroupDriver: cgroupfs\n\
         cgroupRoot: /{group}\n\
         clusterDNS: ['{node}']\n\
         clusterDomain: cluster.local\n\
         resolvConf: {dir}/resolv.conf\n\
         podLogsDir: {dir}/pods\n\
         volumePluginDir: {dir}/plugins\n\
         enforceNodeAllocatable: []\n\
         evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}\n\
         imageGCHighThresholdPercent: 100\n\
         failCgroupV1: false\n\
         failSwapOn: false\n\
         oomScoreAdj: 0\n\
         registryPullQPS: 0\n\
         serializeImagePulls: false\n\
         kubeAPIQPS: 100\n\
         kubeAPIBurst: 200\n"
    )
}

fn proxy(dir: &Path, addresses: Addresses) -> String {
    let (dir, pods) = (dir.display(), addresses.pods());
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         clientConnection: {{kubeconfig: {dir}/proxy.kubeconfig}}\n\
         hostnameOverride: {NODE}\n\
         mode: nftables\n\
         clusterCIDR: {pods}\n\
         nftables: {{minSyncPeriod: 100ms, syncPeriod: 30s}}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         oomScoreAdj: 0\n"
    )
}

/// Names outside of the cluster do not exist: nothing of a test leaves the machine. The two are apart because
/// `template` comes before `kubernetes` wherever it is written.
fn corefile(dir: &Path, addresses: Addresses) -> String {
    let (dir, node) = (dir.display(), addresses.node());
    format!(
        "cluster.local:53 in-addr.arpa:53 {{\n\
         \x20 bind {node}\n\
         \x20 errors\n\
         \x20 kubernetes cluster.local in-addr.arpa {{\n\
         \x20   kubeconfig {dir}/coredns.kubeconfig\n\
         \x20   ttl 1\n\
         \x20 }}\n\
         }}\n\
         .:53 {{\n\
         \x20 bind {node}\n\
         \x20 errors\n\
         \x20 template ANY ANY {{\n\
         \x20   rcode NXDOMAIN\n\
         \x20 }}\n\
         }}\n"
    )
}
