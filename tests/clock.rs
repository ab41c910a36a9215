//! The machine's clock jumps while the gateway runs, and between its starts. Nothing is lost or stored twice,
//! nothing waits for hours, no history is dropped, and each alert is delivered.
//!
//! Only the gateway's process gets the changed clock, through libfaketime (Debian's package `faketime`). Without
//! it the tests print that they were skipped. PostgreSQL and the devices keep the true time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::gateway::{DEADLINE, Gateway, command, data_dir};

/// A response that does not depend on the clock arrives well within this time, even on a busy machine.
const SOON: Duration = Duration::from_secs(20);

#[expect(clippy::print_stdout, reason = "a skipped test prints why")]
fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?;
    let mut found = places.filter_map(|place| {
        let library = place.ok()?.path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    let found = found.next();
    if found.is_none() {
        println!("skipped: it needs libfaketime");
    }
    found
}

/// A gateway whose clock the test can set.
struct Stepped<'a> {
    data: &'a Path,
    library: &'a Path,
    /// How many readings were acknowledged.
    sent: Cell<u64>,
}

impl<'a> Stepped<'a> {
    /// A gateway whose clock is still correct.
    fn new(data: &'a Path, library: &'a Path) -> Self {
        let gate = Stepped {
            data,
            library,
            sent: Cell::new(0),
        };
        gate.set("+0");
        gate
    }

    fn set(&self, offset: &str) {
        // Written in one step, so that the gateway never reads half of it.
        let new = self.data.join("clock.new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.data.join("clock")).unwrap();
    }

    fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    fn start_with(&self, flags: &[&str]) -> Gateway {
        let mut command = command(self.data);
        command
            .args(["--retention", "30d", "--alert-interval", "1s"])
            .args(flags)
            .env("LD_PRELOAD", self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.data.join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DISABLE_SHM", "1");
        let gateway = Gateway::spawn(command, self.data);
        gateway.wait("readiness", Gateway::is_ready);
        gateway
    }

    /// A reading of the present by the true clock. No two are equal.
    fn reading(&self) -> String {
        let n = self.sent.get();
        self.sent.set(n + 1);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = instant(since.as_secs());
        format!(r#"{{"meterId":"M{n}","kwhConsumedAc":1.0,"voltage":230.0,"timestamp":"{at}"}}"#)
    }

    /// Sends readings with each ack mode. Each must be acknowledged soon.
    fn send(&self, gateway: &Gateway, what: &str) {
        for ack in ["durable", "committed", "buffered", "committed"] {
            let began = Instant::now();
            let path = format!("/v1/ingestion/meter?ack={ack}");
            let (status, answer) = gateway.call("POST", &path, &self.reading());
            let good = if ack == "committed" { 201 } else { 202 };
            assert_eq!(status, good, "{what}: {answer}");
            assert!(answer.contains(r#""rejected":0"#), "{what}: {answer}");
            assert!(began.elapsed() < SOON, "{what}: {:?}", began.elapsed());
        }
    }

    /// Waits until all readings are in history, because a kill may lose those acknowledged as buffered.
    fn stored(&self, gateway: &Gateway) {
        let sent = self.sent.get().to_string();
        gateway.wait("all of it", |g| g.sql(STORED) == sent);
    }
}

/// A receiver of alerts that accepts everything once `up` is set, and hangs up before that. Also returns the
/// bodies that it accepts.
fn receiver(listener: TcpListener, up: Arc<AtomicBool>) -> Receiver<String> {
    let (sender, bodies) = sync_channel(100);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if !up.load(Ordering::Relaxed) {
                continue;
            }
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let accepted = b"HTTP/1.1 204 Accepted\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(accepted).unwrap();
            if sender.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    bodies
}

/// Formats seconds since 1970 as RFC 3339.
fn instant(seconds: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap())
        .unwrap()
        .to_string()
}

const STORED: &str = "select count(*) from meter_telemetry_history";

#[test]
fn a_clock_that_jumps_while_the_gateway_runs_costs_nothing() {
    let Some(library) = library() else { return };
    let data = data_dir();
    let gate = Stepped::new(data.path(), &library);
    let gateway = gate.start();
    gate.send(&gateway, "before");
    // A request in flight keeps its whole time limit while the clock jumps.
    let mut halfway = gateway.connect();
    let body = gate.reading();
    let head =
        "POST /v1/ingestion/meter HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json";
    write!(halfway, "{head}\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
    for hours in [5, 0, -5, 0, 9600, -9600, 0, -5] {
        let offset = format!("{hours:+}h");
        gate.set(&offset);
        gate.send(&gateway, &offset);
        // The rollup's watermark follows the clock in both directions. If it stayed far ahead, every reading would
        // be late.
        let watermark = format!(
            "select sealed_to between now() + interval '{hours} hours' - interval '3 hours'
                and now() + interval '{hours} hours' from hours_progress"
        );
        gateway.wait("the watermark", |g| g.sql(&watermark) == "t");
        if hours > 24 {
            // The retention passes no rolled-up hour, however far the clock is ahead.
            let new = "select built_to > now() + interval '1 hour' from hours_progress";
            gateway.wait("new hours", |g| g.sql(new) == "t");
            let built = "select built_from <= now() from hours_progress";
            assert_eq!(gateway.sql(built), "t");
        }
    }
    write!(halfway, "{body}").unwrap();
    let mut answer = String::new();
    halfway.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 202 "), "{answer}");
    let sent = gate.sent.get();
    gate.stored(&gateway);
    let live = "select count(*) from meter_status where ts <= now() and received_at is not null";
    gateway.wait("live status", |g| g.sql(live) == sent.to_string());
    let rolled_up = "select count(*) from meter_hours where hour > now()";
    assert_eq!(gateway.sql(rolled_up), "0");
    for stream in ["accepted", "stored"] {
        let name = format!("wattgate_readings_{stream}_total{{stream=\"meter\"}}");
        assert_eq!(gateway.metric(&name), sent as f64);
    }
    let (status, _) = gateway.call("GET", "/health/ready", "");
    assert_eq!(status, 200);
    let began = Instant::now();
    gateway.terminate();
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_wrong_clock_at_start_drops_no_history() {
    let Some(library) = library() else { return };
    let data = data_dir();
    let gate = Stepped::new(data.path(), &library);
    let gateway = gate.start();
    gate.send(&gateway, "before");
    gate.stored(&gateway);
    gateway.kill();
    for (offset, code) in [("+400d", "too_old"), ("-5h", "in_future")] {
        gate.set(offset);
        let gateway = gate.start();
        // The gateway cannot know better. It acknowledges nothing, and the response gives the reason.
        let (status, answer) = gateway.call("POST", "/v1/ingestion/meter", &gate.reading());
        gate.sent.set(gate.sent.get() - 1);
        assert!(status == 400 && answer.contains(code), "{status} {answer}");
        // Retention counts from the newest reading, not from the clock alone. Before it drops anything,
        // maintenance creates partitions ahead of time.
        let ahead = "select exists(select from pg_class where relispartition and
            pg_get_expr(relpartbound, oid) like to_char(now() + interval '400 days', '%YYYY-MM%'))";
        gateway.wait("a look at the partitions", |g| g.sql(ahead) == "t");
        gate.set("+0");
        gate.send(&gateway, "mended");
        gate.stored(&gateway);
        gateway.kill();
    }
    // Partitions far in the future stay empty and do no harm.
    gate.set("+0");
    let gateway = gate.start();
    gate.send(&gateway, "after");
    gate.stored(&gateway);
    gateway.terminate();
}

#[test]
fn an_alert_is_delivered_across_clock_jumps() {
    let Some(library) = library() else { return };
    let data = data_dir();
    let gate = Stepped::new(data.path(), &library);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let up = Arc::<AtomicBool>::default();
    let bodies = receiver(listener, Arc::clone(&up));
    let gateway = gate.start_with(&["--alert-webhook", &format!("http://{address}/hook")]);
    let at = jiff::Timestamp::now();
    let hot = format!(
        r#"{{"vehicleId":"V1","soc":50,"kwhDeliveredDc":1,"batteryTemp":70,"timestamp":"{at}"}}"#
    );
    let (status, answer) = gateway.call("POST", "/v1/ingestion/vehicle?ack=committed", &hot);
    assert_eq!(status, 201, "{answer}");
    // How often its delivery was tried; `None` means that it is not in the queue.
    let of = "from alert_deliveries where body like '%battery_temperature%'";
    let tries = |g: &Gateway| g.sql(&format!("select attempts {of}")).parse::<u32>().ok();
    gateway.wait("three tries", |g| tries(g) >= Some(3));
    // The next try is some seconds away, and does not wait until the clock reaches that time again. Nor does a
    // clock that is ahead make the delivery too old: it is given up after a day.
    for offset in ["-8m", "+48h", "-5h"] {
        let before = tries(&gateway);
        assert!(before.is_some(), "before {offset}");
        gate.set(offset);
        gateway.wait(offset, |g| tries(g) != before);
        assert!(tries(&gateway) > before, "{offset}: it was given up");
    }
    gate.set("-9h");
    up.store(true, Ordering::Relaxed);
    let delivered = std::iter::from_fn(|| bodies.recv_timeout(DEADLINE).ok());
    let of_heat = |body: &String| body.contains("battery_temperature");
    let delivered = delivered.into_iter().find(of_heat).unwrap();
    assert!(delivered.contains(r#""event":"opened""#), "{delivered}");
    gateway.wait("an empty queue", |g| tries(g).is_none());
    gateway.terminate();
}
