//! A streamed response that breaks off looks truncated to its client.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;
use crate::http::response::reply::{JSON, streamed};
use crate::http::server::socket::Socket;
use crate::http::server::stall::{Limits, StallGuard};
use crate::http::server::usage::{Usage, track};

type Piece = io::Result<&'static str>;

/// A client that has sent a request, and the task of its connection, which responds with these pieces.
async fn ask<P>(version: &str, pieces: fn() -> P) -> (TcpStream, JoinHandle<()>)
where
    P: Stream<Item = Piece> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let usage = Arc::new(Usage::default());
        let limits = Limits {
            write: PATIENCE,
            head: Some(PATIENCE),
            idle: PATIENCE,
        };
        let socket = Socket::new(stream, Arc::clone(&usage));
        let io = StallGuard::new(socket, Bytes::new(), limits, Arc::clone(&usage));
        let service = service_fn(|request: Request<Incoming>| {
            let in_use = usage.begin();
            let pieces = pieces().map(|piece| piece.map(|text| Frame::data(text.into())));
            let reply = streamed(StatusCode::OK, JSON, StreamBody::new(pieces));
            let reply = track(reply, request.version(), in_use);
            async move { Ok::<_, Infallible>(reply) }
        });
        drop(http1::Builder::new().serve_connection(io, service).await);
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!("GET / HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    (client, serving)
}

async fn rest(mut client: TcpStream) -> (String, io::Result<usize>) {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut bytes)).await;
    (String::from_utf8(bytes).unwrap(), read.unwrap())
}

fn failing() -> impl Stream<Item = Piece> {
    // By then the earlier pieces have been sent.
    let later = stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::other("the database is away"))
    });
    stream::iter([Ok("1\n2\n")]).chain(later)
}

fn endless() -> impl Stream<Item = Piece> {
    stream::iter([Ok("1\n2\n")]).chain(stream::pending())
}

static BLOCK: [u8; 8 << 10] = [b'x'; 8 << 10];

/// More than the socket buffers hold.
fn whole() -> impl Stream<Item = Piece> {
    let block = std::str::from_utf8(&BLOCK).unwrap();
    stream::repeat(block).take(1 << 10).map(Ok)
}

#[tokio::test]
async fn http_1_0_sees_a_failed_answer_as_a_reset() {
    let (client, _serving) = ask("1.0", failing).await;
    let (text, read) = rest(client).await;
    assert!(text.ends_with("1\n2\n"), "{text:?}");
    assert!(read.is_err(), "complete to its client: {text:?}");
}

#[tokio::test]
async fn http_1_0_sees_the_end_of_the_process_as_a_reset() {
    let (mut client, serving) = ask("1.0", endless).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"1\n2\n") {
        let mut some = [0; 1024];
        let read = timeout(PATIENCE, client.read(&mut some)).await;
        seen.extend_from_slice(&some[..read.unwrap().unwrap()]);
    }
    // Like the end of the process, this closes the socket and nothing more.
    serving.abort();
    assert!(rest(client).await.1.is_err());
}

#[tokio::test]
async fn http_1_0_sees_the_end_of_a_whole_answer() {
    let (client, _serving) = ask("1.0", whole).await;
    let (text, read) = rest(client).await;
    read.unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), 8 << 20);
}

#[tokio::test]
async fn http_1_1_sees_no_last_chunk_of_a_failed_answer() {
    let (client, _serving) = ask("1.1", failing).await;
    let (text, _) = rest(client).await;
    assert!(!text.contains("\r\n0\r\n"), "{text}");
    let (client, _serving) = ask("1.1", whole).await;
    assert!(rest(client).await.0.ends_with("\r\n0\r\n\r\n"));
}
