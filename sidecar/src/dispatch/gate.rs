//! Whether the worker's port answers. No message is taken before it does: attempts must not be burnt on a worker that
//! is still starting.

use std::time::Duration;
use tokio::net::TcpStream;

/// How often the port is tried at first: a quick worker should not wait for us.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// How often it is tried later.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A port behind a black hole counts as silent after this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether somebody accepts connections there now.
pub(super) async fn answers(host: &str, port: u16) -> bool {
    matches!(
        tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect((host, port))).await,
        Ok(Ok(_))
    )
}

/// Waits until somebody does. Cancel safe.
pub(super) async fn until_it_answers(host: &str, port: u16) {
    let mut pause = FIRST_PAUSE;
    while !answers(host, port).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
