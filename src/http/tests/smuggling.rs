//! Requests that two parsers could read differently. None may smuggle another request.
//!
//! Each is written to a raw socket, whose sending side is then closed. All responses are counted, because a
//! smuggled request would get one too.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Answer, Edge, METER, PATIENCE};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// The statuses of all responses to these bytes.
async fn statuses(edge: &Edge, bytes: &[u8]) -> Vec<u16> {
    let mut client = edge.connect().await;
    client.write(bytes).await;
    // The server may have closed already.
    client.stream.shutdown().await.ok();
    let mut all = Vec::new();
    let read = timeout(PATIENCE, client.stream.read_to_end(&mut all)).await;
    drop(read.expect("the connection stays open"));
    let mut statuses = Vec::new();
    while let Some((answer, length)) = Answer::parse(&all) {
        statuses.push(answer.status);
        all.drain(..length);
    }
    assert!(all.is_empty(), "{}", String::from_utf8_lossy(&all));
    statuses
}

fn upload(headers: &str, rest: &str) -> String {
    format!(
        "POST /v1/ingestion/meter HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         {headers}\r\n{rest}"
    )
}

/// Asserts that a request is refused once, and that nothing after it is read.
async fn refused(edge: &Edge, request: &str) {
    let answers = statuses(edge, request.as_bytes()).await;
    assert!(
        answers.is_empty() || (answers.len() == 1 && (400..500).contains(&answers[0])),
        "{request:?}: {answers:?}"
    );
    assert_eq!(edge.accepted(), 0, "{request:?}");
}

#[tokio::test]
async fn wrong_or_repeated_lengths_are_refused() {
    let edge = Edge::start();
    for length in [
        "+5", "-1", "0x5", "5,6", "5, 5, 6", "", "five", "5.0", "1e1", "\u{b2}",
    ] {
        let headers = format!("Content-Length: {length}\r\n");
        refused(&edge, &upload(&headers, HIDDEN)).await;
    }
    for length in [
        "99999999999999999999",
        "18446744073709551615",
        "9223372036854775808",
    ] {
        let headers = format!("Content-Length: {length}\r\n");
        refused(&edge, &upload(&headers, HIDDEN)).await;
    }
    let two = "Content-Length: 5\r\nContent-Length: 6\r\n";
    refused(&edge, &upload(two, HIDDEN)).await;
    let spaced = "Content-Length : 5\r\n";
    refused(&edge, &upload(spaced, HIDDEN)).await;
}

#[tokio::test]
async fn transfer_encodings_other_than_chunked_alone_are_refused() {
    let edge = Edge::start();
    let chunks = format!("{:x}\r\n{METER}\r\n0\r\n\r\n{HIDDEN}", METER.len());
    for encoding in [
        "identity",
        "xchunked",
        "chunked, identity",
        "chunked, gzip",
        "\"chunked\"",
        "chunked;q=1",
        "",
        "chu\u{212a}ed",
        "gzip, chunked",
        "identity, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
    ] {
        let headers = format!("Transfer-Encoding: {encoding}\r\n");
        refused(&edge, &upload(&headers, &chunks)).await;
    }
    refused(&edge, &upload("Transfer-Encoding : chunked\r\n", &chunks)).await;
    refused(
        &edge,
        &upload("Transfer-Encoding\u{b}: chunked\r\n", &chunks),
    )
    .await;
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let edge = Edge::start();
    for chunks in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhel",
        "g\r\nhello\r\n0\r\n\r\n",
    ] {
        let request = upload(
            "Transfer-Encoding: chunked\r\n",
            &format!("{chunks}{HIDDEN}"),
        );
        refused(&edge, &request).await;
    }
    // An endless extension or trailer.
    for flood in [
        format!("5;{}", "a".repeat(1 << 20)),
        format!("0\r\nx: {}", "a".repeat(1 << 20)),
    ] {
        let request = upload("Transfer-Encoding: chunked\r\n", &flood);
        refused(&edge, &request).await;
    }
}

#[tokio::test]
async fn heads_with_stray_line_ends_and_bytes_are_refused() {
    let edge = Edge::start();
    let head = |lines: &str| format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{lines}\r\n{HIDDEN}");
    for lines in [
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        " X: folded\r\n",
        "X: a\r\n folded\r\n",
        "X y: z\r\n",
        ": z\r\n",
        "X\r\n",
        "X: \x7f\r\n",
        "(X): z\r\n",
    ] {
        refused(&edge, &head(lines)).await;
    }
    for line in [
        "GET  /health/live HTTP/1.1",
        "GET /health/live HTTP/1.1 x",
        "GET /health/live",
        "GET /health/live http/1.1",
        "GET /health/live HTTP/1.2",
        "GET /health/live HTTP/2.0",
        "GET /health/live HTTP/11",
        "GET health/live HTTP/1.1",
        "GET /health/li\0ve HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "CONNECT x:443 HTTP/1.1",
        "",
    ] {
        refused(&edge, &format!("{line}\r\nX: y\r\n\r\n{HIDDEN}")).await;
    }
}

#[tokio::test]
async fn what_looks_like_a_request_in_a_body_is_a_body() {
    let edge = Edge::start();
    let length = HIDDEN.len();
    let after = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (line, expected) in [
        ("POST /nowhere", 404),
        ("GET /health/live", 200),
        ("DELETE /health/live", 405),
        ("POST /v1/ingestion/meter", 415),
        ("OPTIONS *", 204),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{HIDDEN}{after}"
        );
        let answers = statuses(&edge, request.as_bytes()).await;
        assert_eq!(answers, [expected, 200], "{line}");
    }
    let chunked = format!(
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{HIDDEN}\r\n0\r\n\r\n{after}"
    );
    assert_eq!(statuses(&edge, chunked.as_bytes()).await, [404, 200]);
}

#[tokio::test]
async fn older_and_absolute_forms_are_answered() {
    let edge = Edge::start();
    for (request, expected) in [
        ("GET /health/live HTTP/1.0\r\n\r\n", vec![200]),
        (
            "GET http://other/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
            vec![200],
        ),
        // Without keep-alive, an HTTP/1.0 connection ends with its response.
        (
            "GET /health/live HTTP/1.0\r\n\r\nGET /health/live HTTP/1.0\r\n\r\n",
            vec![200],
        ),
        ("TRACE /health/live HTTP/1.1\r\nHost: x\r\n\r\n", vec![405]),
        // An invalid host, or one with user information, in either place.
        ("GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n", vec![400]),
        ("GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n", vec![400]),
        ("GET /health/live HTTP/1.1\r\nHost: u@a\r\n\r\n", vec![400]),
        (
            "GET http://u:p@a/health/live HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![400],
        ),
        (
            "GET /health/live HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
            vec![200],
        ),
        (
            "GET /health/live HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
            vec![200],
        ),
    ] {
        assert_eq!(
            statuses(&edge, request.as_bytes()).await,
            expected,
            "{request}"
        );
    }
}
