//! gzip and zstd bodies: valid, broken and hostile ones.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use super::{Answer, Edge, METER, Options, PATH};

const LINES: &str = "application/x-ndjson";

fn gzip(text: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;

const BOTH: [(&str, Compress); 2] = [("gzip", gzip), ("zstd", zstd)];

async fn send(edge: &Edge, kind: &str, encoding: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n\
         Content-Encoding: {encoding}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut client = edge.connect().await;
    client.write(head.as_bytes()).await;
    client.write(body).await;
    client.answer().await
}

#[tokio::test]
async fn compressed_readings_are_accepted_small_and_large() {
    let edge = Edge::start();
    let large: String = (0..5000)
        .map(|n| METER.replace("M1", &format!("M{n}")) + "\n")
        .collect();
    for (name, compress) in BOTH {
        let answer = send(&edge, "application/json", name, &compress(METER.as_bytes())).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = send(&edge, LINES, name, &compress(large.as_bytes())).await;
        assert_eq!(answer.json()["accepted"], 5000, "{name}: {answer:?}");
    }
    assert_eq!(edge.accepted(), 2 * 5001);
}

#[tokio::test]
async fn all_members_of_a_body_count() {
    let edge = Edge::start();
    for (name, compress) in BOTH {
        let line = format!("{METER}\n");
        let mut body = compress(line.as_bytes());
        body.extend(compress(b""));
        body.extend(compress(METER.as_bytes()));
        let answer = send(&edge, LINES, name, &body).await;
        assert_eq!(answer.json()["accepted"], 2, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_broken_body_is_refused_wherever_it_breaks() {
    let edge = Edge::start();
    for (name, compress) in BOTH {
        let whole = compress(METER.as_bytes());
        for cut in [1, 5, whole.len() / 2, whole.len() - 1] {
            let answer = send(&edge, "application/json", name, &whole[..cut]).await;
            let problem = answer.assert_problem(400);
            assert_eq!(problem["code"], "encoding", "{name} {cut}");
        }
        let trailing = [&whole[..], b"trailing"].concat();
        let answer = send(&edge, "application/json", name, &trailing).await;
        answer.assert_problem(400);
        let answer = send(&edge, "application/json", name, METER.as_bytes()).await;
        answer.assert_problem(400);
    }
    // The checksum at the end of a gzip member is checked.
    let mut spoiled = gzip(METER.as_bytes());
    let at = spoiled.len() - 6;
    spoiled[at] ^= 1;
    let answer = send(&edge, "application/json", "gzip", &spoiled).await;
    answer.assert_problem(400);
    assert_eq!(edge.accepted(), 0);
}

#[tokio::test]
async fn the_limit_of_a_body_applies_to_its_output() {
    let edge = Edge::start();
    let limit = edge.context.settings.body_bytes_max;
    for (name, compress) in BOTH {
        let mut body = METER.as_bytes().to_vec();
        body.resize(limit, b' ');
        let answer = send(&edge, "application/json", name, &compress(&body)).await;
        assert_eq!(answer.status, 202, "{name}: {answer:?}");
        body.push(b' ');
        let answer = send(&edge, "application/json", name, &compress(&body)).await;
        answer.assert_problem(413);
    }
}

#[tokio::test]
async fn decompressed_bytes_count_towards_the_memory() {
    let options = Options {
        memory_bytes: 256 << 10,
        ..Options::default()
    };
    let edge = Edge::start_with(options);
    let spaces = vec![b' '; 800 << 10];
    for (name, compress) in BOTH {
        let answer = send(&edge, "application/json", name, &compress(&spaces)).await;
        assert_eq!(answer.assert_problem(503)["code"], "memory", "{name}");
        // All memory was released.
        let answer = send(&edge, "application/json", name, &compress(METER.as_bytes())).await;
        assert_eq!(answer.status, 202, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_zstd_window_over_the_standard_is_refused() {
    let edge = Edge::start();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(METER.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let answer = send(&edge, "application/json", "zstd", &body).await;
    assert_eq!(answer.assert_problem(400)["code"], "encoding");
}

/// About 7 MiB that decompress to 7 GiB: members of 4 MiB of spaces each.
fn bomb(compress: Compress, bytes: usize) -> Vec<u8> {
    let member = compress(&vec![b' '; 4 << 20]);
    let mut body = member.repeat(1792);
    // zstd compresses by more than a thousand times, so empty members fill the rest.
    let nothing = compress(b"");
    while body.len() + nothing.len() <= bytes {
        body.extend_from_slice(&nothing);
    }
    body
}

#[tokio::test]
async fn a_bomb_is_refused_at_once_and_costs_no_memory() {
    let mut options = Options::default();
    options.settings.body_bytes_max = 8 << 20;
    let edge = Edge::start_with(options);
    for (name, compress) in BOTH {
        let body = bomb(compress, 7 << 20);
        assert!(body.len() <= 8 << 20, "{name}: {}", body.len());
        let before = peak_kib();
        let began = Instant::now();
        let answer = send(&edge, LINES, name, &body).await;
        answer.assert_problem(413);
        let (took, grown) = (began.elapsed(), peak_kib() - before);
        // Decompressing 7 GiB would take 448 times as long as 16 MiB. The process's other tests use memory too.
        let limit = Duration::from_secs(5) + 20 * time_of_16_mib(name, compress);
        assert!(took < limit, "{name}: {took:?} of {limit:?}");
        assert!(grown < 256 << 10, "{name}: {grown} KiB");
    }
}

/// How long this machine, under its present load, takes to decompress 16 MiB.
fn time_of_16_mib(name: &str, compress: Compress) -> Duration {
    let body = compress(&vec![b' '; 16 << 20]);
    let began = Instant::now();
    match name {
        "gzip" => drop(io::copy(&mut GzDecoder::new(&body[..]), &mut io::sink()).unwrap()),
        _ => zstd::stream::copy_decode(&body[..], io::sink()).unwrap(),
    }
    began.elapsed()
}

/// The peak memory of this process.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line.map(|l| l.chars().filter(char::is_ascii_digit).collect::<String>());
    digits.and_then(|d| d.parse().ok()).unwrap_or_default()
}
