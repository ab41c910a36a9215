//! What a reading is: devices, times, energy, and the two kinds of readings.
//!
//! A [`Reading`] exists only after validation: the constructors of its parts check every bound. So the log,
//! the writers and the database need not check it again.

use std::fmt;
use std::ops::{Add, AddAssign, Index, IndexMut};

/// The longest id of a device or session, in characters (not bytes).
pub const ID_CHARS_MAX: usize = 64;

/// The longest id in bytes: a character of UTF-8 has at most four.
pub const ID_BYTES_MAX: usize = ID_CHARS_MAX * 4;

/// An hour.
pub const HOUR_MICROS: i64 = 3_600_000_000;

/// The two streams of readings that the gateway accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// AC energy drawn from the grid, measured by a charger's meter.
    Meter,
    /// DC energy received, reported by a vehicle.
    Vehicle,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Stream; 2] = [Stream::Meter, Stream::Vehicle];

    /// The name in paths, labels and the quarantine: `meter` or `vehicle`.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Meter => "meter",
            Stream::Vehicle => "vehicle",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerStream<T> {
    /// The value for meters.
    pub meter: T,
    /// The value for vehicles.
    pub vehicle: T,
}

/// A number of readings of each stream.
pub type StreamCounts = PerStream<u64>;

impl StreamCounts {
    /// No reading of either stream.
    pub const ZERO: StreamCounts = PerStream {
        meter: 0,
        vehicle: 0,
    };

    /// A number of readings of one stream, and none of the other.
    #[must_use]
    pub fn of(stream: Stream, count: u64) -> Self {
        let mut counts = Self::ZERO;
        counts[stream] = count;
        counts
    }

    /// What is left of each count, 0 if `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        PerStream::from_fn(|stream| self[stream].saturating_sub(other[stream]))
    }
}

impl<T> PerStream<T> {
    /// Computes the value of each stream, the meters' first.
    pub fn from_fn(mut value: impl FnMut(Stream) -> T) -> Self {
        PerStream {
            meter: value(Stream::Meter),
            vehicle: value(Stream::Vehicle),
        }
    }

    /// Converts both values.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> PerStream<U> {
        PerStream {
            meter: convert(self.meter),
            vehicle: convert(self.vehicle),
        }
    }
}

impl<T: Add<Output = T>> PerStream<T> {
    /// The sum of both values.
    pub fn sum(self) -> T {
        self.meter + self.vehicle
    }
}

impl<T: Add<Output = T>> Add for PerStream<T> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        PerStream {
            meter: self.meter + other.meter,
            vehicle: self.vehicle + other.vehicle,
        }
    }
}

impl<T: AddAssign> AddAssign for PerStream<T> {
    fn add_assign(&mut self, other: Self) {
        self.meter += other.meter;
        self.vehicle += other.vehicle;
    }
}

impl<T> Index<Stream> for PerStream<T> {
    type Output = T;

    fn index(&self, stream: Stream) -> &T {
        match stream {
            Stream::Meter => &self.meter,
            Stream::Vehicle => &self.vehicle,
        }
    }
}

impl<T> IndexMut<Stream> for PerStream<T> {
    fn index_mut(&mut self, stream: Stream) -> &mut T {
        match stream {
            Stream::Meter => &mut self.meter,
            Stream::Vehicle => &mut self.vehicle,
        }
    }
}

/// An instant, in microseconds since 1970-01-01T00:00:00Z.
///
/// Units:  microseconds; PostgreSQL's `timestamptz` holds the same precision
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 2000-01-01T00:00:00Z. Older readings are refused; also PostgreSQL's epoch.
    pub const Y2000: Timestamp = Timestamp(946_684_800_000_000);

    /// The start of the hour (h, h + 1 h] that holds this instant. For energy, an hour holds its end but not
    /// its start.
    #[must_use]
    pub const fn hour(self) -> Timestamp {
        let before = self.0.saturating_sub(1);
        Timestamp(before.saturating_sub(before.rem_euclid(HOUR_MICROS)))
    }

    /// Whether the instant, and a day before it, can be written as RFC 3339 in UTC: a text with an offset can name an
    /// instant before the year 0000 or after 9999.
    ///
    /// Why not up to the last second of 9999: the last accepted instant is still in that year at every offset.
    pub const fn is_writable(self) -> bool {
        -62_135_596_800_000_000 <= self.0 && self.0 <= 253_402_207_199_999_999
    }

    /// Makes an instant from microseconds since 1970 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// The instant in microseconds since 1970 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The system's time now.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This instant moved by some microseconds, kept within the range of `i64`.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Timestamp(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, without trailing zeros of the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(ts) => write!(f, "{ts}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than [`ID_CHARS_MAX`] characters.
    #[error("must have at most {ID_CHARS_MAX} characters")]
    TooLong,
    /// The text holds a NUL or another control character.
    #[error("must not contain control characters")]
    Control,
    /// `.` or `..`, for a new device or session.
    #[error(
        "must not be . or .., which browsers and proxies remove from a URL's path; choose another id"
    )]
    Dots,
}

/// The id of a meter, a vehicle or a charging session, as its owner writes it.
///
/// Shape:  1 to 64 characters of printable text, at most 256 bytes
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalId<'a>(&'a str);

impl<'a> ExternalId<'a> {
    /// Checks a text as an id.
    ///
    /// # Errors
    /// [`IdError`]: what is wrong with the text; the sender must correct it.
    pub fn new(text: &'a str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        // Nearly every id is short ASCII, whose bytes are characters: one pass decides.
        if text.is_ascii() {
            if text.len() > ID_CHARS_MAX {
                return Err(IdError::TooLong);
            }
            if text.bytes().any(|b| b.is_ascii_control()) {
                return Err(IdError::Control);
            }
            return Ok(ExternalId(text));
        }
        if text.chars().count() > ID_CHARS_MAX {
            return Err(IdError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(IdError::Control);
        }
        Ok(ExternalId(text))
    }

    /// As [`ExternalId::new`], for an id that may be new: `.` and `..` are refused.
    ///
    /// Why: every device and session has a URL with its id as a segment of the path, and browsers and proxies
    /// normalise URLs, `%2e` included. Devices and sessions that have such an id stay readable.
    ///
    /// # Errors
    /// [`IdError`]
    ///
    /// Source: the URL standard, "double-dot URL path segment"; RFC 3986 §5.2.4
    #[inline]
    pub fn of_new(text: &'a str) -> Result<Self, IdError> {
        if matches!(text, "." | "..") {
            return Err(IdError::Dots);
        }
        ExternalId::new(text)
    }

    /// The id's text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for ExternalId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What a reading's kWh mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EnergyKind {
    /// Energy since the device's previous reading.
    #[default]
    Interval,
    /// A running total.
    Register,
}

/// The energy of one reading.
///
/// Units:  kWh, finite, 0 to 1e9, never -0
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Energy {
    /// The value as it was sent.
    pub kwh: f64,
    /// What the value means.
    pub kind: EnergyKind,
}

/// The place where a vehicle reports that it is charging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// At this meter.
    Meter(ExternalId<'a>),
    /// In this charging session, registered or yet to be.
    Session(ExternalId<'a>),
}

/// The values that only one kind of device reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Details<'a> {
    /// A meter's reading.
    Meter {
        /// V (RMS), 0 to 1000.
        voltage: f64,
    },
    /// A vehicle's reading.
    Vehicle {
        /// State of charge, %, 0 to 100.
        soc: f64,
        /// °C, -60 to 150.
        battery_temp: f64,
        /// Where it is charging, if it reports that.
        place: Option<Place<'a>>,
    },
}

/// One validated reading, borrowing its ids from the request's body or from the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<'a> {
    /// The meter or vehicle that measured.
    pub device: ExternalId<'a>,
    /// When it measured, by its own clock.
    pub at: Timestamp,
    /// How much energy.
    pub energy: Energy,
    /// The values of its kind of device.
    pub details: Details<'a>,
}

impl Reading<'_> {
    /// The stream that this reading belongs to.
    pub const fn stream(&self) -> Stream {
        match self.details {
            Details::Meter { .. } => Stream::Meter,
            Details::Vehicle { .. } => Stream::Vehicle,
        }
    }
}

/// The shard of a device: a stable hash of its stream and id. So one writer stores all readings of a device, in the
/// order in which they were accepted.
///
/// Why FNV-1a: the log's layout depends on the value, which must never change with a library's version. The
/// ids are short, and it only has to spread them.
pub fn shard_of(stream: Stream, device: ExternalId<'_>, shards: u16) -> u16 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let salt = match stream {
        Stream::Meter => 0,
        Stream::Vehicle => 1,
    };
    let mut hash = OFFSET ^ salt;
    for byte in device.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    }
    // Ids often differ only in their last digit, which FNV leaves in few bits. The finalizer of SplitMix64
    // spreads it over all bits.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((hash >> 32) * u64::from(shards.max(1))) >> 32) as u16
}

#[cfg(test)]
mod tests;
