//! What can go wrong between us and a broker, as sentences.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use std::time::Duration;

/// Why something at the broker did not work. `Display` is one sentence.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker could not be reached, or the connection was lost.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// The broker did not answer within the time.
    #[error("the broker did not answer {what} within {} s", .within.as_secs())]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// User, password, vhost or a permission is missing or wrong.
    #[error("the broker refuses access: {0}; check user, password, vhost and permissions")]
    AccessRefused(String),
    /// There is no such queue or exchange.
    #[error("the broker says: {0}")]
    NotFound(String),
    /// The queue exists with other arguments, or the message breaks a rule of the queue.
    #[error("the broker says: {0}")]
    Precondition(String),
    /// Another connection owns the queue exclusively.
    #[error("the broker says: {0}; an exclusive queue can be used by its own connection only")]
    Locked(String),
    /// The certificate or the TLS handshake.
    #[error(
        "TLS to the broker failed: {0}; a private authority is trusted through SSL_CERT_FILE, a port without TLS wants amqp://"
    )]
    Tls(String),
    /// Anything else the broker said.
    #[error("the broker says: {0}")]
    Protocol(String),
}

impl Error {
    /// A bounded word for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::AccessRefused(_) => "access_refused",
            Self::NotFound(_) => "not_found",
            Self::Precondition(_) => "precondition",
            Self::Locked(_) => "locked",
            Self::Tls(_) => "tls",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether waiting may help without anyone changing a setting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut { .. } | Self::Protocol(_) => true,
            Self::AccessRefused(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::Locked(_)
            | Self::Tls(_) => false,
        }
    }
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(protocol) => {
                let text = protocol.get_message().to_string();
                match protocol.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Self::AccessRefused(text),
                    AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::NotFound(text),
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Self::Precondition(text),
                    AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Self::Locked(text),
                    AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => Self::Unreachable(text),
                    _ => Self::Protocol(text),
                }
            }
            ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                Self::Tls(io.to_string())
            }
            ErrorKind::IOError(io) => Self::Unreachable(io.to_string()),
            ErrorKind::ParsingError(_) => Self::Unreachable(
                "what answers there does not speak AMQP; a port with TLS wants amqps://".to_owned(),
            ),
            ErrorKind::MissingHeartbeatError => {
                Self::Unreachable("no heartbeat came for too long".to_owned())
            }
            ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => {
                Self::Unreachable("the connection is closed".to_owned())
            }
            _ => Self::Protocol(error.to_string()),
        }
    }
}
