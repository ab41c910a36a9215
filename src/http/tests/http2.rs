//! HTTP/2: the same responses and the same limits.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Edge, METER, Options, PATH, PATIENCE, eventually, post};

type Sender = SendRequest<Bytes>;

async fn connect(edge: &Edge) -> (Sender, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(edge.addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://x{path}"))
        .header("content-type", "application/json")
        .body(())
        .unwrap()
}

async fn read(answer: ResponseFuture) -> Result<(StatusCode, HeaderMap, String), h2::Error> {
    let (head, mut body) = timeout(PATIENCE, answer).await.unwrap()?.into_parts();
    let mut text = Vec::new();
    while let Some(piece) = timeout(PATIENCE, body.data()).await.unwrap() {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        text.extend_from_slice(&piece);
    }
    Ok((head.status, head.headers, String::from_utf8(text).unwrap()))
}

async fn ingest(sender: &Sender, body: &str) -> (StatusCode, HeaderMap, String) {
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, mut upload) = ready.send_request(request("POST", PATH), false).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    upload.send_data(body, true).unwrap();
    read(answer).await.unwrap()
}

/// Waits for a connection to end by itself, and returns how it ended.
async fn ends(connection: JoinHandle<Result<(), h2::Error>>) -> Result<(), h2::Error> {
    timeout(PATIENCE, connection).await.unwrap().unwrap()
}

#[tokio::test]
async fn http_2_works_without_an_upgrade() {
    let edge = Edge::start();
    let (sender, _connection) = connect(&edge).await;
    let (status, headers, body) = ingest(&sender, METER).await;
    assert_eq!(status, 202, "{body}");
    assert!(headers.contains_key("x-request-id"));
    let (status, ..) = ingest(&sender, "[").await;
    assert_eq!(status, 400);
    let large = format!("[{}]", vec![METER; 8000].join(","));
    let (status, _, body) = ingest(&sender, &large).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(edge.accepted(), 8001);
    // The server announces its limit of streams, and the client observes it.
    assert_eq!(sender.current_max_send_streams(), 128);
}

#[tokio::test]
async fn many_requests_at_once_are_answered() {
    let edge = Edge::start();
    let (sender, _connection) = connect(&edge).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        let sender = sender.clone();
        all.push(tokio::spawn(async move { ingest(&sender, METER).await.0 }));
    }
    for one in all {
        assert_eq!(one.await.unwrap(), 202);
    }
    assert_eq!(edge.accepted(), 100);
}

#[tokio::test]
async fn over_http_2_a_refusal_closes_only_the_stream() {
    let mut options = Options::default();
    options.settings.body_timeout = Duration::from_millis(30);
    let edge = Edge::start_with(options);
    let (sender, _connection) = connect(&edge).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _upload) = ready.send_request(request("POST", PATH), false).unwrap();
    let (status, headers, _) = read(answer).await.unwrap();
    assert_eq!(status, 408);
    assert!(!headers.contains_key("connection"));
    assert_eq!(ingest(&sender, METER).await.0, 202);
}

#[tokio::test]
async fn a_body_over_the_limit_costs_the_next_request_nothing() {
    let edge = Edge::start();
    let (sender, _connection) = connect(&edge).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, mut upload) = ready.send_request(request("POST", PATH), false).unwrap();
    let writes = tokio::spawn(async move {
        let piece = Bytes::from(vec![b' '; 16 << 10]);
        for _ in 0..128 {
            upload.reserve_capacity(piece.len());
            let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await;
            if !matches!(room, Some(Ok(_))) || upload.send_data(piece.clone(), false).is_err() {
                return;
            }
        }
        upload.send_data(Bytes::new(), true).ok();
    });
    assert_eq!(read(answer).await.unwrap().0, 413);
    timeout(PATIENCE, writes).await.unwrap().unwrap();
    assert_eq!(ingest(&sender, METER).await.0, 202);
}

#[tokio::test]
async fn a_host_that_is_not_the_authority_is_refused() {
    let edge = Edge::start();
    let (sender, _connection) = connect(&edge).await;
    let mut same = request("GET", "/health/live");
    same.headers_mut().insert("host", "X".parse().unwrap());
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(same, true).unwrap();
    assert_eq!(read(answer).await.unwrap().0, 200);
    let mut other = request("GET", "/health/live");
    other.headers_mut().insert("host", "y".parse().unwrap());
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(other, true).unwrap();
    assert_eq!(read(answer).await.unwrap().0, 400);
}

#[tokio::test]
async fn a_head_too_large_costs_no_more_than_its_stream() {
    let edge = Edge::start();
    let (sender, _connection) = connect(&edge).await;
    let mut large = request("GET", "/health/live");
    let value: hyper::header::HeaderValue = "z".repeat(8 << 10).parse().unwrap();
    for n in 0..5 {
        let name: hyper::header::HeaderName = format!("x-{n}").parse().unwrap();
        large.headers_mut().insert(name, value.clone());
    }
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(large, true).unwrap();
    if let Ok((status, ..)) = read(answer).await {
        assert_eq!(status, 431);
    }
    assert_eq!(edge.post(PATH, METER).await.status, 202);
}

/// An HTTP/2 frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection on which arbitrary frames can be written.
async fn raw(edge: &Edge) -> TcpStream {
    let mut stream = TcpStream::connect(edge.addr).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[]));
    stream.write_all(&hello).await.unwrap();
    stream
}

/// Waits until the connection ends, and returns the code of its GOAWAY.
async fn goaway(mut stream: TcpStream) -> Option<u32> {
    let mut all = Vec::new();
    // If the data is truncated, it is parsed up to its end.
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    drop(read.expect("the connection stays open"));
    let mut rest = all.as_slice();
    let mut code = None;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = after.get(..length)?;
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = &after[length..];
    }
    code
}

/// GET / with authority x, in HPACK.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
const ENHANCE_YOUR_CALM: u32 = 0xb;

#[tokio::test]
async fn a_connection_has_few_places_for_unread_answers() {
    let mut options = Options::default();
    options.settings.write_timeout = Duration::from_millis(300);
    let edge = Edge::start_with(options);
    let stream = TcpStream::connect(edge.addr).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let shaken = builder.initial_window_size(0).handshake(stream).await;
    let (sender, connection) = shaken.unwrap();
    let _connection = tokio::spawn(connection);
    let mut sent = Vec::new();
    for _ in 0..12 {
        let mut ready = sender.clone().ready().await.unwrap();
        let request = request("GET", "/openapi.yaml");
        sent.push(ready.send_request(request, true).unwrap().0);
    }
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(timeout(PATIENCE, answer).await.unwrap().unwrap());
    }
    let with = |status| answers.iter().filter(|a| a.status() == status).count();
    assert_eq!(
        (with(StatusCode::OK), with(StatusCode::SERVICE_UNAVAILABLE)),
        (8, 4)
    );
    // Readings are still accepted, and cancelled queries free their permits.
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, mut upload) = ready.send_request(request("POST", PATH), false).unwrap();
    upload
        .send_data(Bytes::from_static(METER.as_bytes()), true)
        .unwrap();
    assert_eq!(
        timeout(PATIENCE, answer).await.unwrap().unwrap().status(),
        202
    );
    drop(answers);
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready
        .send_request(request("GET", "/health/live"), true)
        .unwrap();
    assert_eq!(
        timeout(PATIENCE, answer).await.unwrap().unwrap().status(),
        200
    );
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_no_other() {
    let edge = Edge::start();
    let (innocent, _connection) = connect(&edge).await;
    let mut flood = raw(&edge).await;
    let mut frames = Vec::new();
    for n in 0..5000 {
        frames.extend(frame(1, 4 | 1, 2 * n + 1, &GET));
        frames.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    // Fails when the server closes the connection, as it must.
    drop(timeout(PATIENCE, flood.write_all(&frames)).await.unwrap());
    assert!(
        goaway(flood)
            .await
            .is_none_or(|code| code == ENHANCE_YOUR_CALM)
    );
    assert_eq!(ingest(&innocent, METER).await.0, 202);
}

#[tokio::test]
async fn an_endless_head_ends_its_connection() {
    let edge = Edge::start();
    let mut flood = raw(&edge).await;
    // A field that is not indexed, repeated over as many frames as needed.
    let field = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x01][..], &[b'b'; 256]].concat();
    let mut frames = frame(1, 0, 1, &GET);
    for _ in 0..4000 {
        frames.extend(frame(9, 0, 1, &field));
    }
    drop(timeout(PATIENCE, flood.write_all(&frames)).await.unwrap());
    goaway(flood).await;
    assert_eq!(edge.post(PATH, METER).await.status, 202);
}

#[tokio::test]
async fn an_idle_connection_is_ended_and_one_with_a_request_is_not() {
    let mut options = Options::default();
    options.settings.header_timeout = Duration::from_millis(100);
    options.settings.idle_timeout = Duration::from_millis(100);
    let edge = Edge::start_with(options);
    let (_idle, idling) = connect(&edge).await;
    let (busy, working) = connect(&edge).await;
    let mut ready = busy.clone().ready().await.unwrap();
    let (answer, mut upload) = ready.send_request(request("POST", PATH), false).unwrap();
    ends(idling).await.unwrap();
    assert!(!working.is_finished());
    let body = Bytes::copy_from_slice(METER.as_bytes());
    upload.send_data(body, true).unwrap();
    assert_eq!(read(answer).await.unwrap().0, 202);
    ends(working).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let mut options = Options::default();
    options.settings.header_timeout = Duration::from_millis(30);
    let edge = Edge::start_with(options);
    let (kept, _connection) = connect(&edge).await;
    assert_eq!(ingest(&kept, METER).await.0, 202);
    // Three connections that send nothing at all.
    for _ in 0..3 {
        let (_silent, ending) = connect(&edge).await;
        ends(ending).await.unwrap();
    }
    assert_eq!(ingest(&kept, METER).await.0, 202);
}

#[tokio::test]
async fn an_incomplete_preface_times_out() {
    let mut options = Options::default();
    options.settings.header_timeout = Duration::from_millis(30);
    let edge = Edge::start_with(options);
    for early in ["P", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut client = edge.connect().await;
        client.write(early.as_bytes()).await;
        assert!(client.is_closed().await, "{early}");
    }
    // After a bare preface, the server sends its settings and closes.
    let mut stream = TcpStream::connect(edge.addr).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    drop(read.unwrap());
}

#[tokio::test]
async fn http_1_may_begin_byte_by_byte_or_like_the_preface() {
    let edge = Edge::start();
    let mut client = edge.connect().await;
    for byte in post(PATH, "Content-Type: application/json\r\n", METER).bytes() {
        client.write(&[byte]).await;
    }
    assert_eq!(client.answer().await.status, 202);
    let answer = edge.send("PRI / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    answer.assert_problem(405);
    let answer = edge.send("PRI * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    answer.assert_problem(404);
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight() {
    let mut edge = Edge::start();
    let (sender, connection) = connect(&edge).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, mut upload) = ready.send_request(request("POST", PATH), false).unwrap();
    let (first, second) = METER.split_at(10);
    upload
        .send_data(Bytes::copy_from_slice(first.as_bytes()), false)
        .unwrap();
    // Wait until the request has arrived, because otherwise the stop could come first.
    assert_eq!(ingest(&sender, METER).await.0, 202);
    let stopped = edge.stop();
    upload
        .send_data(Bytes::copy_from_slice(second.as_bytes()), true)
        .unwrap();
    assert_eq!(read(answer).await.unwrap().0, 202);
    drop((sender, ready, upload));
    ends(connection).await.unwrap();
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
    eventually("both are in the log", || edge.accepted() == 2).await;
}
