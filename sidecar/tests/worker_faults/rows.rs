//! The table.

use crate::play::{Counts, Row, TIMEOUT, Wire, does, play};
use Counts::{Ends, No, Yes};
use bytes::Bytes;
use std::time::Duration;
use testkit::raw::{Patience, Step};

const MEBIBYTE: usize = 1024 * 1024;

fn says(answer: &str) -> Wire {
    does([Step::send(answer)])
}

/// Says this, and closes.
fn ends(answer: &str) -> Wire {
    does([Step::send(answer), Step::Close])
}

/// Says this, and resets.
fn resets(answer: &str) -> Wire {
    // The reset must not overtake what was sent.
    does([
        Step::send(answer),
        Step::Pause(Duration::from_millis(50)),
        Step::Reset,
    ])
}

/// Says this, and nothing more for ever.
fn hangs(answer: &str) -> Wire {
    does([Step::send(answer), Step::Hang])
}

/// Answers before the body was read, with a body that no buffer of the kernel takes.
fn early(steps: impl IntoIterator<Item = Step>) -> Wire {
    Wire {
        patience: Patience::Head,
        body: vec![b'x'; 12 * MEBIBYTE],
        ..does(steps)
    }
}

/// A date of HTTP that far from now.
fn date(seconds: i64) -> String {
    let now = std::time::UNIX_EPOCH + ops::clock::since_epoch();
    let time = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { now - time } else { now + time })
}

macro_rules! rows {
    ($($name:ident: $worker:literal, $verdict:literal, $reason:literal, $counts:expr, $wire:expr;)+) => {
        /// Every row that is played with one message.
        pub(crate) const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            worker: $worker,
            verdict: $verdict,
            reason: $reason,
            counts: $counts,
        }),+];

        $(
            #[tokio::test]
            async fn $name() {
                let row = ROWS.iter().find(|row| row.name == stringify!($name)).unwrap();
                play(*row, $wire).await;
            }
        )+
    };
}

rows! {
    closes_before_the_status_line: "closes without a byte", "retry", "reset", Yes, does([Step::Close]);
    resets_before_the_status_line: "resets without a byte", "retry", "reset", Yes, does([Step::Reset]);
    closes_inside_the_status_line: "closes behind `HTTP/1.1 20`", "retry", "reset", Yes, ends("HTTP/1.1 20");
    closes_inside_the_headers: "closes inside the headers", "retry", "reset", Yes,
        ends("HTTP/1.1 200 OK\r\nContent-Le");
    resets_inside_the_headers: "resets inside the headers", "retry", "reset", Yes,
        resets("HTTP/1.1 200 OK\r\nContent-Le");
    closes_inside_the_body: "closes with less body than announced", "retry", "reset", Yes,
        ends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok");
    resets_inside_the_body: "resets inside the body", "retry", "reset", Yes,
        resets("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok");
    length_too_long: "sends less body than announced, and keeps the connection", "retry", "timed_out", Yes,
        hangs("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok");
    length_too_short: "sends more body than announced", "accepted", "succeeded", Ends,
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more");
    length_twice: "announces two lengths that differ", "retry", "not_http", Yes,
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok");
    length_that_is_no_number: "announces a length that is no number", "retry", "not_http", Yes,
        says("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok");
    chunk_without_a_size: "sends a chunk whose size is no number", "retry", "not_http", Yes,
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n");
    chunk_cut_short: "closes inside a chunk", "retry", "reset", Yes,
        ends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok");
    chunks_without_an_end: "closes without the last chunk", "retry", "reset", Yes,
        ends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
    no_length_and_closed: "sends a body without a length, and closes", "accepted", "succeeded", Ends,
        ends("HTTP/1.1 200 OK\r\n\r\nok");
    no_length_and_kept: "sends no length, and keeps the connection", "retry", "timed_out", Yes,
        hangs("HTTP/1.1 200 OK\r\n\r\nok");
    slow_headers: "sends the head a byte at a time, for longer than `timeout`", "retry", "timed_out", Yes,
        does([Step::Drip(Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), TIMEOUT / 20)]);
    slow_body: "sends the body a byte at a time, for longer than `timeout`", "retry", "timed_out", Yes,
        does([
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"),
            Step::Drip(Bytes::from(vec![b'x'; 40]), TIMEOUT / 20),
        ]);
    slow_but_in_time: "sends the answer in pieces within `timeout`", "accepted", "succeeded", Ends,
        does([Step::Drip(Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), TIMEOUT / 400)]);
    hang: "reads the request and says nothing", "retry", "timed_out", Yes, does([Step::Hang]);
    interim_flood: "sends `100 Continue` without an end", "retry", "timed_out", Yes,
        does([Step::Flood(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"), usize::MAX)]);
    interim_then_final: "sends `103 Early Hints` a thousand times, and then 200", "accepted", "succeeded", Ends,
        does([
            Step::Flood(Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), 1000),
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ]);
    switching_protocols: "answers `101 Switching Protocols`", "retry", "unknown_status", Yes,
        ends("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    redirect_to_itself: "redirects to itself", "dead_letter", "redirected", Ends,
        says("HTTP/1.1 307 Temporary Redirect\r\nLocation: /message\r\nContent-Length: 0\r\n\r\n");
    retry_after_a_date: "answers 503 with a `Retry-After` that is a date to come", "retry", "throttled", No,
        says(&format!("HTTP/1.1 503 No\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n", date(1)));
    retry_after_a_date_gone_by: "answers 429 with a `Retry-After` that is a date gone by", "retry", "throttled", No,
        says(&format!("HTTP/1.1 429 No\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n", date(-3600)));
    retry_after_garbage: "answers 503 with a `Retry-After` that cannot be read", "retry", "server_error", Yes,
        says("HTTP/1.1 503 No\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n");
    retry_after_with_a_failure: "answers 500 with `Retry-After: 0`", "retry", "server_error", Yes,
        says("HTTP/1.1 500 No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    headers_of_10_mb: "sends headers of 10 MB", "retry", "not_http", Yes,
        does([
            Step::send("HTTP/1.1 200 OK\r\n"),
            Step::Flood(Bytes::from(format!("X-Long: {}\r\n", "x".repeat(1000))), 10_000),
            Step::send("Content-Length: 0\r\n\r\n"),
        ]);
    one_header_of_10_mb: "sends one header of 10 MB", "retry", "not_http", Yes,
        does([
            Step::send("HTTP/1.1 200 OK\r\nX-Long: "),
            Step::Flood(Bytes::from(vec![b'x'; MEBIBYTE]), 10),
            Step::send("\r\nContent-Length: 0\r\n\r\n"),
        ]);
    many_headers: "sends 5000 headers", "retry", "not_http", Yes,
        does([
            Step::send("HTTP/1.1 200 OK\r\n"),
            Step::Flood(Bytes::from_static(b"X: y\r\n"), 5000),
            Step::send("Content-Length: 0\r\n\r\n"),
        ]);
    body_of_100_mb: "sends a body of 100 MB", "accepted", "succeeded", Ends,
        does([
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100 * MEBIBYTE)),
            Step::Flood(Bytes::from(vec![b'x'; MEBIBYTE]), 100),
        ]);
    http_1_0: "answers as HTTP/1.0, and closes", "accepted", "succeeded", Ends,
        ends("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nok");
    http_0_9: "answers without a status line", "retry", "not_http", Yes, ends("ok, done\r\n");
    http_2: "answers with the frames of HTTP/2", "retry", "not_http", Yes,
        does([Step::Send(Bytes::from_static(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\0\x08\x07\0\0\0\0\0")), Step::Hang]);
    tls: "answers with a TLS alert", "retry", "not_http", Yes,
        does([Step::Send(Bytes::from_static(b"\x15\x03\x01\0\x02\x02\x46")), Step::Close]);
    garbage: "answers with random bytes", "retry", "not_http", Yes,
        does([Step::Send((0..=255).rev().collect::<Vec<u8>>().into()), Step::Hang]);
    status_of_two_digits: "answers `HTTP/1.1 20 OK`", "retry", "not_http", Yes, says("HTTP/1.1 20 OK\r\n\r\n");
    head_with_bare_line_feeds: "ends its lines by LF alone", "accepted", "succeeded", Ends,
        says("HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    two_answers: "answers 500 and then, unasked, 200", "retry", "server_error", Yes,
        says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    early_rejection: "answers 413 before it reads the body, and then reads it", "dead_letter", "rejected", Ends,
        early([Step::send("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"), Step::ReadRest]);
    early_yes: "answers 200 before it reads the body, and then reads it", "accepted", "succeeded", Ends,
        early([Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Step::ReadRest]);
    early_answer_and_slow_reader: "answers 200 before it reads the body, and reads it slowly: the next message does not wait",
        "accepted", "succeeded", Ends,
        early([Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Step::Pause(TIMEOUT * 2), Step::ReadRest]);
    never_reads: "reads the head and not the body", "retry", "timed_out", Yes, early([Step::Hang]);
    closes_inside_the_request: "closes while the body is sent", "retry", "reset", Yes, early([Step::Reset]);
    unknown_verdict: "says `X-Message-Verdict: perhaps` with 200", "retry", "unknown_verdict", Yes,
        says("HTTP/1.1 200 OK\r\nX-Message-Verdict: perhaps\r\nContent-Length: 0\r\n\r\n");
    verdict_twice: "says `ack` in one `X-Message-Verdict` and `reject` in another", "accepted", "explicit_ack", Ends,
        says("HTTP/1.1 200 OK\r\nX-Message-Verdict: ack\r\nX-Message-Verdict: reject\r\nContent-Length: 0\r\n\r\n");
    verdicts_contradict: "says `reject` in the header and `ack` in JSON", "dead_letter", "explicit_reject", Ends,
        says(
            "HTTP/1.1 200 OK\r\nX-Message-Verdict: reject\r\n\
             Content-Type: application/vnd.kubedaemon.verdict+json\r\nContent-Length: 16\r\n\r\n{\"status\":\"ack\"}",
        );
    verdict_json_cut: "says a verdict in JSON that breaks off", "retry", "unknown_verdict", Yes,
        says(
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.kubedaemon.verdict+json\r\n\
             Content-Length: 9\r\n\r\n{\"status\"",
        );
    closes_behind_the_answer: "closes behind each answer without a word", "accepted", "succeeded", Ends,
        ends("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    resets_behind_the_answer: "resets behind the answer", "accepted", "succeeded", Ends,
        resets("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}
