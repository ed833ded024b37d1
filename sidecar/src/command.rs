//! `sidecar drain`: what a `preStop` hook runs, since an image of ours has no shell and no curl.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stops the intake of the sidecar whose admin port is `admin` and waits up to `grace` until nothing is in flight.
///
/// # Errors
/// A sentence: nobody listens there, the answer is not the expected one, or the time was over.
pub async fn drain(admin: SocketAddr, grace: Duration) -> Result<(), String> {
    let address = loopback(admin);
    match tokio::time::timeout(grace, ask_and_wait(address)).await {
        Ok(Ok(head)) if head.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(Ok(head)) => {
            let status = head.lines().next().unwrap_or("nothing");
            Err(format!(
                "the sidecar at {address} did not drain: it answered {status:?}"
            ))
        }
        Ok(Err(error)) => Err(format!(
            "the sidecar at {address} cannot be asked to drain: {error}"
        )),
        Err(_elapsed) => Err(format!(
            "the sidecar at {address} still has messages in flight after {}",
            contract::quantity::format_duration(grace)
        )),
    }
}

async fn ask_and_wait(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "POST /drain?wait HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// An admin port that listens on every address is reached over loopback, where draining is allowed.
fn loopback(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}
