//! Connections between two requests.

use std::time::Duration;

use super::{Client, Edge, JSON, METER, Options, PATH, post};

const SHORT: Duration = Duration::from_millis(30);

async fn sends(client: &mut Client) {
    client.write(post(PATH, JSON, METER).as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let mut options = Options::default();
    options.settings.header_timeout = SHORT;
    let edge = Edge::start_with(options);
    let mut kept = edge.connect().await;
    sends(&mut kept).await;
    for _ in 0..3 {
        // A connection that sends nothing at all.
        assert!(edge.connect().await.is_closed().await);
    }
    sends(&mut kept).await;
    // The next request has its full time limit.
    kept.write(b"POST /v1/ingestion").await;
    assert!(kept.is_closed().await);
}

#[tokio::test]
async fn a_head_byte_by_byte_has_one_deadline() {
    let mut options = Options::default();
    options.settings.header_timeout = Duration::from_millis(200);
    let edge = Edge::start_with(options);
    let mut slow = edge.connect().await;
    sends(&mut slow).await;
    // Each byte arrives in time, but the head's deadline does not move.
    let began = std::time::Instant::now();
    for byte in "GET /health HTTP/1.1\r\nHost: x\r\nX: "
        .bytes()
        .chain(std::iter::repeat(b'y'))
    {
        let written = tokio::io::AsyncWriteExt::write_all(&mut slow.stream, &[byte]).await;
        let mut some = [0; 16];
        let closed = tokio::time::timeout(
            Duration::from_millis(10),
            tokio::io::AsyncReadExt::read(&mut slow.stream, &mut some),
        );
        if written.is_err() || closed.await.is_ok() {
            break;
        }
        assert!(began.elapsed() < super::PATIENCE, "it goes on for ever");
    }
}

#[tokio::test]
async fn a_connection_idle_for_too_long_is_ended() {
    let mut options = Options::default();
    options.settings.idle_timeout = SHORT;
    let edge = Edge::start_with(options);
    assert!(idle_elsewhere(&edge).await);
    // A request still has the full time limits of its head and its body.
    let mut busy = edge.connect().await;
    let request = post(PATH, &format!("{JSON}Expect: 100-continue\r\n"), METER);
    let (head, body) = request.split_at(request.len() - METER.len());
    busy.write(head.as_bytes()).await;
    assert_eq!(busy.answer().await.status, 100);
    assert!(idle_elsewhere(&edge).await);
    busy.write(body.as_bytes()).await;
    assert_eq!(busy.answer().await.status, 202);
}

/// A connection that sends a request and is then idle for too long.
async fn idle_elsewhere(edge: &Edge) -> bool {
    let mut idle = edge.connect().await;
    sends(&mut idle).await;
    idle.is_closed().await
}

#[tokio::test]
async fn over_the_limit_the_longest_idle_connection_is_closed() {
    let mut options = Options::default();
    options.settings.connections_max = 2;
    let edge = Edge::start_with(options);
    let mut first = edge.connect().await;
    sends(&mut first).await;
    let mut second = edge.connect().await;
    sends(&mut second).await;
    let mut third = edge.connect().await;
    sends(&mut third).await;
    assert!(first.is_closed().await);
    sends(&mut second).await;
    sends(&mut third).await;
}

#[tokio::test]
async fn a_connection_with_a_request_is_never_closed_for_another() {
    let mut options = Options::default();
    options.settings.connections_max = 1;
    options.settings.body_timeout = Duration::from_millis(1500);
    let edge = Edge::start_with(options);
    let mut busy = edge.connect().await;
    let request = post(PATH, JSON, METER);
    busy.write(&request.as_bytes()[..request.len() - 5]).await;
    let mut waiting = edge.connect().await;
    waiting.write(request.as_bytes()).await;
    // Longer than an idle connection is kept.
    busy.answer().await.assert_problem(408);
    assert_eq!(waiting.answer().await.status, 202);
}
