//! A gateway in memory: the endpoints that a replay uses, which behave like the real ones, with faults on demand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// What goes wrong. Only requests that change something are counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// One request in this many is refused with 503 and Retry-After.
    pub(crate) refuse_every: u64,
    /// One request in this many is accepted, but its connection is dropped without a response.
    pub(crate) drop_every: u64,
    /// Energy added to each meter reading.
    pub(crate) corrupt_kwh: f64,
}

/// A session as it was registered.
#[derive(Clone, PartialEq)]
pub(crate) struct Session {
    pub(crate) vehicle: String,
    pub(crate) meter: String,
    pub(crate) started: i64,
    pub(crate) ended: Option<i64>,
}

/// The state of the fake.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sessions: BTreeMap<String, Session>,
    /// Maps (meter, microseconds) to kWh.
    pub(crate) meters: BTreeMap<(String, i64), f64>,
    pub(crate) vehicles: BTreeMap<(String, i64), f64>,
    pub(crate) repeats: u64,
    /// The time of the meter reading that arrived first.
    pub(crate) first_reading: Option<i64>,
    requests: u64,
    faults: Faults,
}

type Answer = (u16, Value);

/// Serves a fake on its own thread, which ends with the test process.
pub(crate) fn start(faults: Faults) -> (SocketAddr, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State {
        faults,
        ..State::default()
    }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(serve(listener, shared));
    });
    (address, state)
}

async fn serve(listener: std::net::TcpListener, state: Arc<Mutex<State>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| handle(request, Arc::clone(&state)));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            // An error here is a requested fault.
            drop(connection.await);
        });
    }
}

async fn handle(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let mut state = state.lock().unwrap();
    let changes = head.method == Method::POST;
    state.requests += u64::from(changes);
    let hits = |every: u64| changes && every > 0 && state.requests.is_multiple_of(every);
    let (refused, dropped) = (
        hits(state.faults.refuse_every),
        hits(state.faults.drop_every),
    );
    if refused {
        return Ok(respond(503, &json!({"status": 503}), true));
    }
    let path = head.uri.path();
    let (status, answer) = route(&mut state, &head.method, path, head.uri.query(), &body);
    if dropped {
        return Err(std::io::Error::other("dropped on demand"));
    }
    Ok(respond(status, &answer, false))
}

fn respond(status: u16, answer: &Value, retry: bool) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    if retry {
        response = response.header("retry-after", "1");
    }
    response.body(Full::from(answer.to_string())).unwrap()
}

fn route(
    state: &mut State,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Answer {
    let parts: Vec<String> = path
        .split('/')
        .skip(2)
        .map(|part| percent_decode_str(part).decode_utf8().unwrap().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (method.as_str(), parts.as_slice()) {
        ("POST", ["ingestion", stream]) => state.ingest(stream, body, query),
        ("POST", ["sessions"]) => state.register(&serde_json::from_slice(body).unwrap()),
        ("POST", ["sessions", id, "end"]) => state.end(id, &serde_json::from_slice(body).unwrap()),
        ("GET", ["sessions", id]) => match state.sessions.get(*id) {
            Some(session) => (200, shown(id, session)),
            None => (404, json!({})),
        },
        ("GET", ["sessions"]) => {
            let vehicle = parameter(query, "vehicleId").unwrap();
            let of = |(_, session): &(&String, &Session)| session.vehicle == vehicle;
            let items = state.sessions.iter().filter(of).map(|(id, s)| shown(id, s));
            (
                200,
                json!({"items": items.collect::<Vec<_>>(), "next": null}),
            )
        }
        ("GET", ["analytics", "performance", vehicle]) => {
            let edge = |name| micros(&json!(parameter(query, name).unwrap()));
            state.performance(vehicle, edge("from"), edge("to"))
        }
        _ => (404, json!({})),
    }
}

fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| {
            percent_decode_str(value)
                .decode_utf8()
                .unwrap()
                .into_owned()
        })
    })
}

fn micros(value: &Value) -> i64 {
    let at: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    at.as_microsecond()
}

fn shown(id: &str, session: &Session) -> Value {
    let at = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap().to_string();
    json!({
        "sessionId": id,
        "vehicleId": session.vehicle,
        "meterId": session.meter,
        "startedAt": at(session.started),
        "endedAt": session.ended.map(at),
    })
}

impl State {
    fn ingest(&mut self, stream: &str, body: &[u8], query: Option<&str>) -> Answer {
        let mut accepted = 0;
        for line in body.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let reading: Value = serde_json::from_slice(line).unwrap();
            let (id, energy, store) = match stream {
                "meter" => ("meterId", "kwhConsumedAc", &mut self.meters),
                _ => ("vehicleId", "kwhDeliveredDc", &mut self.vehicles),
            };
            let key = (
                reading[id].as_str().unwrap().to_owned(),
                micros(&reading["timestamp"]),
            );
            accepted += 1;
            self.first_reading.get_or_insert(key.1);
            let kwh = reading[energy].as_f64().unwrap() + self.faults.corrupt_kwh;
            // The first one stays.
            match store.entry(key) {
                Entry::Occupied(_) => self.repeats += 1,
                Entry::Vacant(place) => drop(place.insert(kwh)),
            }
        }
        let committed = parameter(query, "ack").as_deref() == Some("committed");
        let answer = json!({"success": true, "accepted": accepted, "rejected": 0, "errors": []});
        (if committed { 201 } else { 202 }, answer)
    }

    fn register(&mut self, body: &Value) -> Answer {
        let text = |field: &str| body[field].as_str().unwrap().to_owned();
        let session = Session {
            vehicle: text("vehicleId"),
            meter: text("meterId"),
            started: micros(&body["startedAt"]),
            ended: body.get("endedAt").map(micros),
        };
        let id = text("sessionId");
        if let Some(known) = self.sessions.get(&id) {
            return (if *known == session { 200 } else { 409 }, json!({}));
        }
        let overlaps = |other: &Session| {
            let until = |session: &Session| session.ended.unwrap_or(i64::MAX);
            (other.meter == session.meter || other.vehicle == session.vehicle)
                && other.started < until(&session)
                && session.started < until(other)
        };
        if self.sessions.values().any(overlaps) {
            return (409, json!({"detail": "overlaps"}));
        }
        self.sessions.insert(id, session);
        (201, json!({}))
    }

    fn end(&mut self, id: &str, body: &Value) -> Answer {
        let end = micros(&body["endedAt"]);
        match self.sessions.get_mut(id) {
            None => (404, json!({})),
            Some(session) if session.ended.is_some_and(|known| known != end) => (409, json!({})),
            Some(session) => {
                session.ended = Some(end);
                (200, json!({}))
            }
        }
    }

    fn performance(&self, vehicle: &str, from: i64, to: i64) -> Answer {
        let mut ac = 0.0;
        for session in self.sessions.values().filter(|s| s.vehicle == vehicle) {
            let ended = session.ended.unwrap_or(i64::MAX).min(to);
            let started = session.started.max(from);
            if ended <= started {
                continue;
            }
            let meter = |at: i64| (session.meter.clone(), at);
            let within = meter(started + 1)..=meter(ended);
            ac += self.meters.range(within).map(|(_, kwh)| kwh).sum::<f64>();
        }
        let within = (vehicle.to_owned(), from + 1)..=(vehicle.to_owned(), to);
        let dc: f64 = self.vehicles.range(within).map(|(_, kwh)| kwh).sum();
        let answer = json!({
            "totalEnergyConsumedAc": (ac * 1e6).round() / 1e6,
            "totalEnergyDeliveredDc": dc,
            "efficiencyRatio": 100.0 * dc / ac,
            "efficiencyStatus": "good",
        });
        (200, answer)
    }
}
