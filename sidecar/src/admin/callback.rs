//! `POST /callback/<token>/done`: the worker settles a message that it has deferred.

use super::Admin;
use crate::callbacks::{Callbacks, Refused};
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use serde_json::json;

impl Admin {
    /// Answers a call to the path of a callback; where there is no admin port, nothing else is served.
    pub async fn answer_callback(&self, request: AdminRequest) -> AdminResponse {
        let text = AdminResponse::text;
        if !Callbacks::is_callback(&request.path) {
            return AdminResponse::not_found("/callback/<token>/done");
        }
        if request.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "a callback takes POST");
        }
        // The worker is on this machine. Its token is in the address, which a page cannot know; nor need it try.
        if !request.peer.ip().to_canonical().is_loopback() || request.is_from_page {
            return text(
                StatusCode::FORBIDDEN,
                "callbacks are answered to programs on loopback only",
            );
        }
        let Some(body) = request.body else {
            let sentence = "the body broke off, or is longer than reply-max-bytes; nothing is settled";
            return text(StatusCode::PAYLOAD_TOO_LARGE, sentence);
        };
        let settling = self.handle.settle_deferred(&request.path, request.headers, body);
        match settling.await {
            Ok(settled) => AdminResponse::json(
                StatusCode::OK,
                &json!({"verdict": settled.verdict, "reason": settled.reason}),
            ),
            Err(refused) => text(status(refused), refused.sentence()),
        }
    }
}

fn status(refused: Refused) -> StatusCode {
    match refused {
        Refused::Unknown => StatusCode::NOT_FOUND,
        Refused::Settled => StatusCode::CONFLICT,
        Refused::Lost => StatusCode::GONE,
    }
}
