//! What worker processes write, line by line, each line after its process's name.

use crate::display::Screen;
use crate::domain::line::Lines;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Shows everything that `pipe` yields until it is closed. When the display is behind, the pipe fills and the worker
/// waits, as it would with any slow reader.
pub(crate) async fn show_lines(mut pipe: impl AsyncRead + Unpin, replica: String, screen: Screen) {
    let mut lines = Lines::default();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        // A pipe that cannot be read any more has ended.
        let read = pipe.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        for line in lines.push(&chunk[..read]) {
            screen.worker_line(&replica, &line).await;
        }
    }
    if let Some(line) = lines.finish() {
        screen.worker_line(&replica, &line).await;
    }
}
