//! Limits, and hostile or broken clients.

use std::time::Duration;

use super::{Edge, JSON, METER, Options, PATH, eventually, post};

fn chunked(bytes: usize) -> Vec<u8> {
    let mut request =
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    let piece = " ".repeat(50_000);
    for _ in 0..bytes / piece.len() {
        request.extend_from_slice(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

#[tokio::test]
async fn a_client_that_sends_too_much_can_read_the_413() {
    let edge = Edge::start();
    // The client writes the whole body, more than the socket buffers hold, before it reads.
    let mut client = edge.connect().await;
    client
        .write(post(PATH, JSON, &" ".repeat(12 << 20)).as_bytes())
        .await;
    client.answer().await.assert_problem(413);
    // The connection still works.
    client.write(post(PATH, JSON, METER).as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
    let mut client = edge.connect().await;
    client.write(&chunked(12 << 20)).await;
    client.answer().await.assert_problem(413);
}

#[tokio::test]
async fn a_chunked_body_within_the_limit_is_accepted() {
    let edge = Edge::start();
    let mut client = edge.connect().await;
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
    client.write(head.as_bytes()).await;
    for byte in METER.chars() {
        client.write(format!("1\r\n{byte}\r\n").as_bytes()).await;
    }
    client.write(b"0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 202);
}

#[tokio::test]
async fn expect_100_continue_gets_100_or_the_refusal() {
    let edge = Edge::start();
    let head = |path: &str, bytes: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}Expect: 100-continue\r\n\
             Content-Length: {bytes}\r\n\r\n"
        )
    };
    let mut client = edge.connect().await;
    client.write(head(PATH, METER.len()).as_bytes()).await;
    assert_eq!(client.answer().await.status, 100);
    client.write(METER.as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
    for (path, bytes, status) in [(PATH, 2 << 20, 413), ("/v1/nowhere", 10, 404)] {
        let mut client = edge.connect().await;
        client.write(head(path, bytes).as_bytes()).await;
        client.answer().await.assert_problem(status);
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn an_incomplete_body_times_out() {
    let mut options = Options::default();
    options.settings.body_timeout = Duration::from_millis(30);
    let edge = Edge::start_with(options);
    let mut client = edge.connect().await;
    let request = post(PATH, JSON, METER);
    client.write(&request.as_bytes()[..request.len() - 5]).await;
    let answer = client.answer().await;
    answer.assert_problem(408);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(edge.accepted(), 0);
}

#[tokio::test]
async fn an_incomplete_head_times_out() {
    let mut options = Options::default();
    options.settings.header_timeout = Duration::from_millis(30);
    let edge = Edge::start_with(options);
    let mut client = edge.connect().await;
    client
        .write(b"POST /v1/ingestion/meter HTTP/1.1\r\nHo")
        .await;
    assert!(client.is_closed().await);
    // A silent socket is closed too.
    assert!(edge.connect().await.is_closed().await);
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let edge = Edge::start();
    let many = "X-Y: z\r\n".repeat(100);
    assert_eq!(edge.send(&post(PATH, &many, "")).await.status, 431);
}

#[tokio::test]
async fn without_memory_a_request_is_refused_and_others_go_on() {
    let options = Options {
        memory_bytes: 16 << 10,
        ..Options::default()
    };
    let edge = Edge::start_with(options);
    let answer = edge.post(PATH, &" ".repeat(100_000)).await;
    let problem = answer.assert_problem(503);
    assert_eq!(problem["code"], "memory");
    assert_eq!(edge.post(PATH, METER).await.status, 202);
}

#[tokio::test]
async fn heads_that_could_smuggle_are_refused() {
    let edge = Edge::start();
    for head in [
        "POST /v1/ingestion/meter HTTP/1.1\r\n\r\n",
        "POST /v1/ingestion/meter HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /v1/ingestion/meter HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
         Content-Length: 4\r\n\r\nabcd",
        "POST /v1/ingestion/meter HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
         Content-Type: application/json\r\n\r\nzz\r\n",
    ] {
        assert_eq!(edge.send(head).await.status, 400, "{head}");
    }
}

#[tokio::test]
async fn with_two_lengths_the_chunks_count() {
    let edge = Edge::start();
    let mut client = edge.connect().await;
    let length = METER.len();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 3\r\n\
         Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{METER}\r\n0\r\n\r\n"
    );
    client.write(request.as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
    // A client that sends both may be deceiving a proxy, so the connection ends (RFC 9112 §6.3).
    assert!(client.is_closed().await);
    assert_eq!(edge.accepted(), 1);
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_one_ends() {
    let mut options = Options::default();
    options.settings.connections_max = 2;
    let edge = Edge::start_with(options);
    let mut first = edge.connect().await;
    let mut second = edge.connect().await;
    for client in [&mut first, &mut second] {
        client.write(post(PATH, JSON, METER).as_bytes()).await;
        assert_eq!(client.answer().await.status, 202);
    }
    let mut third = edge.connect().await;
    third.write(post(PATH, JSON, METER).as_bytes()).await;
    let early = tokio::time::timeout(Duration::from_millis(50), third.answer()).await;
    assert!(early.is_err(), "served beyond the limit: {early:?}");
    drop(first);
    assert_eq!(third.answer().await.status, 202);
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_connection() {
    let mut options = Options::default();
    options.settings.write_timeout = Duration::from_millis(50);
    options.settings.connections_max = 1;
    let edge = Edge::start_with(options);
    let mut deaf = edge.connect().await;
    let request = "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20_000);
    // Fails when the server closes the connection, as it must.
    let written = tokio::time::timeout(
        super::PATIENCE,
        tokio::io::AsyncWriteExt::write_all(&mut deaf.stream, request.as_bytes()),
    );
    drop(written.await);
    assert_eq!(edge.post(PATH, METER).await.status, 202);
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_closes_the_rest() {
    let mut edge = Edge::start();
    let mut idle = edge.connect().await;
    idle.write(post(PATH, JSON, METER).as_bytes()).await;
    assert_eq!(idle.answer().await.status, 202);
    let mut busy = edge.connect().await;
    let request = post(PATH, &format!("{JSON}Expect: 100-continue\r\n"), METER);
    let head = request.len() - METER.len();
    busy.write(&request.as_bytes()[..head]).await;
    assert_eq!(busy.answer().await.status, 100);
    let stopped = edge.stop();
    assert!(idle.is_closed().await);
    busy.write(METER.as_bytes()).await;
    assert_eq!(busy.answer().await.status, 202);
    assert!(busy.is_closed().await);
    tokio::time::timeout(super::PATIENCE, stopped)
        .await
        .unwrap()
        .unwrap();
    eventually("both are in the log", || edge.accepted() == 2).await;
    assert!(tokio::net::TcpStream::connect(edge.addr).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_during_a_stop_is_answered() {
    let mut edge = Edge::start();
    let mut open = edge.connect().await;
    open.write(post(PATH, JSON, METER).as_bytes()).await;
    assert_eq!(open.answer().await.status, 202);
    let mut silent = edge.connect().await;
    // It may be accepted or still queued when the socket is closed.
    let mut queued = tokio::net::TcpStream::connect(edge.addr).await.unwrap();
    let stopped = edge.stop();
    for client in [&mut open, &mut silent] {
        client.write(post(PATH, JSON, METER).as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed().await);
    }
    let request = post(PATH, JSON, METER);
    tokio::io::AsyncWriteExt::write_all(&mut queued, request.as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut queued, &mut answer)
        .await
        .unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202"));
    tokio::time::timeout(super::PATIENCE, stopped)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn stopping_ends_at_its_deadline_whatever_a_client_does() {
    let mut options = Options::default();
    options.settings.drain_timeout = Duration::from_millis(50);
    let mut edge = Edge::start_with(options);
    let mut slow = edge.connect().await;
    let request = post(PATH, &format!("{JSON}Expect: 100-continue\r\n"), METER);
    slow.write(&request.as_bytes()[..request.len() - METER.len()])
        .await;
    assert_eq!(slow.answer().await.status, 100);
    tokio::time::timeout(super::PATIENCE, edge.stop())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_device_that_closes_its_side_still_gets_its_answer() {
    let edge = Edge::start();
    let mut client = edge.connect().await;
    client.write(post(PATH, JSON, METER).as_bytes()).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    assert_eq!(client.answer().await.status, 202);
}
