//! The load of a campaign, and the ledger of acknowledged readings.
//!
//! Each worker has its own devices. The seed, the device and the step determine a reading's values, so that stored
//! readings can be checked without keeping the sent ones.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::random::{Random, mix};
use crate::generator::body::Stream;

/// The devices of each kind that a worker has.
const DEVICES: u64 = 4;
/// The most readings of a request, and of a request that fills the log.
const READINGS_MAX: u64 = 200;
const READINGS_MANY: u64 = 4000;
/// 2024-02-01T00:00:00Z, in seconds. A step is a second.
pub(crate) const START: i64 = 1_706_745_600;
/// How long a response may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The pause between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// What is known about a sent reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Debt {
    /// It may be stored: there was no response, an error, or an acknowledgement that does not survive a kill.
    Open,
    /// It must be stored.
    Due,
}

/// The sent readings of one device, by step.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) stream: Stream,
    pub(crate) device: String,
    pub(crate) debts: Vec<Debt>,
}

/// The sent readings of one worker.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) seed: u64,
    pub(crate) accounts: Vec<Account>,
    pub(crate) answers: Answers,
}

/// The number of requests by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Acknowledged.
    pub(crate) taken: u64,
    /// 503 or 429 with Retry-After, to a request without `ack=committed`.
    pub(crate) shed: u64,
    /// The same, for a request with `ack=committed`. The database may be stopped.
    pub(crate) uncommitted: u64,
    /// Nothing listened at the address.
    pub(crate) refused: u64,
    /// The connection ended before the response was complete.
    pub(crate) cut: u64,
    /// Any other status, or a refusal without Retry-After.
    pub(crate) wrong: u64,
}

impl Answers {
    pub(crate) fn requests(&self) -> u64 {
        self.taken + self.unanswered()
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.shed + self.uncommitted + self.refused + self.cut + self.wrong
    }

    pub(crate) fn add(&mut self, other: &Answers) {
        self.taken += other.taken;
        self.shed += other.shed;
        self.uncommitted += other.uncommitted;
        self.refused += other.refused;
        self.cut += other.cut;
        self.wrong += other.wrong;
    }
}

/// How a worker behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// The gateways' addresses. A refused request goes to the next one.
    pub(crate) addresses: Vec<String>,
    /// Whether it repeats a request until it is accepted.
    pub(crate) insists: bool,
    /// Whether it pauses between requests.
    pub(crate) pauses: bool,
    /// The ack modes that it requests, chosen at random.
    pub(crate) acks: &'static [&'static str],
    /// The most readings of a request.
    pub(crate) readings_max: u64,
}

impl Manner {
    /// Most devices repeat unanswered requests, some do not.
    pub(crate) fn mixed(address: &str) -> Self {
        Manner {
            addresses: vec![address.to_owned()],
            insists: false,
            pauses: true,
            acks: &["buffered", "durable", "durable", "committed"],
            readings_max: READINGS_MAX,
        }
    }

    /// As fast as possible: without pauses, and without waiting for commits.
    pub(crate) fn quick(address: &str) -> Self {
        Manner {
            pauses: false,
            acks: &["buffered", "durable"],
            readings_max: READINGS_MANY,
            ..Manner::mixed(address)
        }
    }
}

/// The values of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Values {
    pub(crate) kwh: f64,
    /// V, or %.
    pub(crate) level: f64,
    /// °C. Meters do not have it.
    pub(crate) temperature: f64,
}

/// The values of a device at a step. The temperature of a meter is -20.
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

/// The load on one connection.
#[derive(Debug)]
pub(crate) struct Worker {
    random: Random,
    manner: Manner,
    /// The index of the address that accepted the last request.
    at: usize,
    stopped: watch::Receiver<bool>,
    /// How many requests of all workers were accepted.
    taken: watch::Sender<u64>,
    ledger: Ledger,
}

impl Worker {
    pub(crate) fn new(
        seed: u64,
        number: u32,
        manner: Manner,
        stopped: watch::Receiver<bool>,
        taken: watch::Sender<u64>,
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
            at: number as usize % manner.addresses.len(),
            manner,
            stopped,
            taken,
            ledger: Ledger {
                seed,
                accounts: accounts.collect(),
                answers: Answers::default(),
            },
        }
    }

    /// Sends until it is stopped.
    pub(crate) async fn run(mut self) -> Ledger {
        while !*self.stopped.borrow() {
            let account = self.random.below(2 * DEVICES) as usize;
            let count = 1 + self.random.below(self.manner.readings_max) as usize;
            let sent = self.ledger.accounts[account].debts.len();
            // Sometimes a device repeats earlier readings.
            let first = if self.random.below(20) == 0 {
                self.random.below(sent as u64 + 1) as usize
            } else {
                sent
            };
            let mut taken = self.send(account, first, count).await;
            while !taken && self.sends_again() {
                taken = self.send(account, first, count).await;
            }
            if self.manner.pauses {
                tokio::time::sleep(self.random.millis(0, 5)).await;
            }
        }
        self.ledger
    }

    fn sends_again(&mut self) -> bool {
        !*self.stopped.borrow() && (self.manner.insists || self.random.below(4) != 0)
    }

    /// Sends some readings of a device once. Returns whether they were acknowledged.
    async fn send(&mut self, account: usize, first: usize, count: usize) -> bool {
        let acks = self.manner.acks;
        let ack = acks[self.random.below(acks.len() as u64) as usize];
        let request = self.request(account, first, count, ack);
        let debts = &mut self.ledger.accounts[account].debts;
        let end = first + count;
        if debts.len() < end {
            debts.resize(end, Debt::Open);
        }
        let address = &self.manner.addresses[self.at];
        let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(address, &request)).await;
        let answers = &mut self.ledger.answers;
        match answer.unwrap_or(Answer::Cut) {
            Answer::Status(200..300, _) => {
                answers.taken += 1;
                self.taken.send_modify(|taken| *taken += 1);
                if ack != "buffered" {
                    let debts = &mut self.ledger.accounts[account].debts;
                    debts[first..end].fill(Debt::Due);
                }
                return true;
            }
            Answer::Status(503, true) if ack == "committed" => answers.uncommitted += 1,
            Answer::Status(429 | 503, true) => answers.shed += 1,
            Answer::Status(..) => answers.wrong += 1,
            Answer::Refused => answers.refused += 1,
            Answer::Cut => answers.cut += 1,
        }
        self.at = (self.at + 1) % self.manner.addresses.len();
        if self.manner.pauses {
            tokio::time::sleep(AGAIN).await;
        }
        false
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
            "POST /v1/ingestion/{kind}?ack={ack} HTTP/1.1\r\nhost: localhost\r\n\
             connection: close\r\ncontent-type: application/x-ndjson\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The outcome of a request.
enum Answer {
    /// A complete response: its status, and whether it has Retry-After.
    Status(u16, bool),
    Refused,
    Cut,
}

/// Sends a request on its own connection.
async fn exchange(address: &str, request: &str) -> Answer {
    let mut socket = match TcpStream::connect(address).await {
        Ok(socket) => socket,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Answer::Refused,
        Err(_) => return Answer::Cut,
    };
    let mut answer = Vec::new();
    // A gateway that refuses early may close before it has read everything, but its response still arrives.
    drop(socket.write_all(request.as_bytes()).await);
    drop(socket.read_to_end(&mut answer).await);
    let text = String::from_utf8_lossy(&answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return Answer::Cut;
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let told = head.to_ascii_lowercase().contains("\r\nretry-after: ");
    status.map_or(Answer::Cut, |status| Answer::Status(status, told))
}
