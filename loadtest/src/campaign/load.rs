//! The load of a campaign, and the ledger of what was acknowledged.
//!
//! Each worker has devices of its own. A reading's values follow from the seed, its device and its
//! step, so that what the database holds is compared without keeping what was sent.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::random::{Random, mix};
use crate::generator::body::Stream;

/// Devices of each kind that a worker has.
const DEVICES: u64 = 4;
/// Readings of one request, at most.
const READINGS_MAX: u64 = 200;
/// 2024-02-01T00:00:00Z, in seconds; a step is a second.
pub(crate) const START: i64 = 1_706_745_600;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// What is known of a reading that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Debt {
    /// It may be stored or not: no answer, an error, or an acknowledgement that a kill may break.
    Open,
    /// It must be stored.
    Due,
}

/// What was sent of one device, by step.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) stream: Stream,
    pub(crate) device: String,
    pub(crate) debts: Vec<Debt>,
}

/// What one worker has sent.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) seed: u64,
    pub(crate) accounts: Vec<Account>,
    pub(crate) requests: u64,
    pub(crate) unanswered: u64,
}

/// The values of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Values {
    pub(crate) kwh: f64,
    /// V, or %.
    pub(crate) level: f64,
    /// °C; meters have none.
    pub(crate) temperature: f64,
}

/// What a device measures at a step; the temperature of a meter is -20.
pub(crate) fn values(seed: u64, device: &str, step: usize) -> Values {
    let mut hash = mix(seed ^ step as u64);
    for byte in device.bytes() {
        hash = mix(hash ^ u64::from(byte));
    }
    let part = |shift: u32, bound: u64| ((hash >> shift) % bound) as f64;
    Values {
        kwh: part(0, 100_000) / 1000.0,
        level: part(20, 1000) / 10.0,
        temperature: if device.starts_with('M') {
            -20.0
        } else {
            part(40, 1000) / 10.0 - 20.0
        },
    }
}

/// One connection's worth of load.
#[derive(Debug)]
pub(crate) struct Worker {
    random: Random,
    address: String,
    stopped: watch::Receiver<bool>,
    ledger: Ledger,
}

impl Worker {
    pub(crate) fn new(
        seed: u64,
        number: u32,
        address: String,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let accounts = (0..2 * DEVICES).map(|device| {
            let meter = device < DEVICES;
            let letter = if meter { 'M' } else { 'V' };
            Account {
                stream: if meter {
                    Stream::Meter
                } else {
                    Stream::Vehicle
                },
                device: format!("{letter}{number}-{device}"),
                debts: Vec::new(),
            }
        });
        Worker {
            random: Random::new(mix(seed ^ (u64::from(number) << 32))),
            address,
            stopped,
            ledger: Ledger {
                seed,
                accounts: accounts.collect(),
                requests: 0,
                unanswered: 0,
            },
        }
    }

    /// Sends until it is told to stop.
    pub(crate) async fn run(mut self) -> Ledger {
        while !*self.stopped.borrow() {
            let account = self.random.below(2 * DEVICES) as usize;
            let count = 1 + self.random.below(READINGS_MAX) as usize;
            let sent = self.ledger.accounts[account].debts.len();
            // Now and then a device sends again what it has sent before.
            let first = if self.random.below(20) == 0 {
                self.random.below(sent as u64 + 1) as usize
            } else {
                sent
            };
            let mut answered = self.send(account, first, count).await;
            // Most devices send again what was not answered; some give it up.
            while !answered && self.random.below(4) != 0 && !*self.stopped.borrow() {
                answered = self.send(account, first, count).await;
            }
            tokio::time::sleep(self.random.millis(0, 5)).await;
        }
        self.ledger
    }

    /// Sends some readings of a device once; tells whether they were acknowledged.
    async fn send(&mut self, account: usize, first: usize, count: usize) -> bool {
        let ack = ["buffered", "durable", "durable", "committed"][self.random.below(4) as usize];
        let request = self.request(account, first, count, ack);
        let debts = &mut self.ledger.accounts[account].debts;
        let end = first + count;
        if debts.len() < end {
            debts.resize(end, Debt::Open);
        }
        self.ledger.requests += 1;
        let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(&self.address, &request)).await;
        match answer {
            Ok(Ok(200..300)) => {
                if ack != "buffered" {
                    let debts = &mut self.ledger.accounts[account].debts;
                    debts[first..end].fill(Debt::Due);
                }
                true
            }
            _ => {
                self.ledger.unanswered += 1;
                tokio::time::sleep(AGAIN).await;
                false
            }
        }
    }

    fn request(&self, account: usize, first: usize, count: usize, ack: &str) -> String {
        let Account { stream, device, .. } = &self.ledger.accounts[account];
        let mut body = String::new();
        for step in first..first + count {
            let at = jiff::Timestamp::from_second(START + step as i64).unwrap_or_default();
            let v = values(self.ledger.seed, device, step);
            let (kwh, level) = (v.kwh, v.level);
            let line = match stream {
                Stream::Meter => format!(
                    r#"{{"meterId":"{device}","kwhConsumedAc":{kwh},"voltage":{level},"timestamp":"{at}"}}"#
                ),
                Stream::Vehicle => format!(
                    r#"{{"vehicleId":"{device}","soc":{level},"kwhDeliveredDc":{kwh},"batteryTemp":{},"timestamp":"{at}"}}"#,
                    v.temperature
                ),
            };
            body.push_str(&line);
            body.push('\n');
        }
        let kind = match stream {
            Stream::Meter => "meter",
            Stream::Vehicle => "vehicle",
        };
        format!(
            "POST /v1/ingestion/{kind}?ack={ack} HTTP/1.1\r\nhost: campaign\r\n\
             connection: close\r\ncontent-type: application/x-ndjson\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Sends a request on a connection of its own; the status of the whole answer.
async fn exchange(address: &str, request: &str) -> std::io::Result<u16> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    let head = String::from_utf8_lossy(&answer);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let whole = head.contains("\r\n\r\n");
    status
        .filter(|_| whole)
        .ok_or_else(|| std::io::Error::other("no whole answer"))
}
