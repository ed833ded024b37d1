//! The certificates of a cluster: <https://kubernetes.io/docs/setup/best-practices/certificates/>.

use super::addresses::Addresses;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::io;
use std::path::Path;

/// Who calls the API server: file name, user, group.
const CLIENTS: [(&str, &str, &str); 8] = [
    ("admin", "admin", "system:masters"),
    ("apiserver-kubelet", "kube-apiserver", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("coredns", "coredns", "system:masters"),
    ("kubelet", "system:node:node", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("front-proxy", "front-proxy", ""),
];

/// Writes an authority, `<name>.pem` and `<name>-key.pem` for each server and client, and the key of service
/// accounts into `dir`.
pub(super) fn write(dir: &Path, addresses: Addresses) -> io::Result<()> {
    fs::create_dir(dir)?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "kubedaemon test cluster");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(io::Error::other)?;
    fs::write(
        dir.join("ca.pem"),
        ca.self_signed(&key).map_err(io::Error::other)?.pem(),
    )?;
    fs::write(dir.join("ca-key.pem"), key.serialize_pem())?;
    let issuer = Issuer::new(ca, key);

    let mut names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend([
        "kubernetes.default.svc.cluster.local".to_owned(),
        "127.0.0.1".to_owned(),
        addresses.node().to_string(),
        addresses.first_service().to_string(),
    ]);
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    issue(
        dir,
        &issuer,
        "apiserver",
        ("kube-apiserver", ""),
        names,
        server.clone(),
    )?;
    let names = vec!["node".to_owned(), addresses.node().to_string()];
    issue(
        dir,
        &issuer,
        "kubelet-server",
        ("system:node:node", ""),
        names,
        server,
    )?;
    for (name, user, group) in CLIENTS {
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        issue(dir, &issuer, name, (user, group), Vec::new(), client)?;
    }
    let accounts = KeyPair::generate().map_err(io::Error::other)?;
    fs::write(dir.join("accounts.pem"), accounts.public_key_pem())?;
    fs::write(dir.join("accounts-key.pem"), accounts.serialize_pem())
}

/// One certificate; its user is the common name and its group the organization, as the API server reads them.
fn issue(
    dir: &Path,
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    (user, group): (&str, &str),
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
) -> io::Result<()> {
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.signed_by(&key, issuer).map_err(io::Error::other)?;
    fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
    fs::write(dir.join(format!("{name}-key.pem")), key.serialize_pem())
}
