//! The order of a batch's rows: by partition and device, then time.
//!
//! Rows arrive in the log's order, in which each device's times mostly ascend already. So a stable radix sort of
//! small keys groups them by device, and only devices whose times do not ascend need a comparison sort. A key
//! holds no partition, because the rows of a batch mostly lie in a single one. The rows, of 64 bytes and more, are
//! moved only once.

use crate::reading::Timestamp;

/// Bits of one digit. The counters of one digit (8 KiB) fit the L1 cache, and two digits cover four million
/// devices.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Bits of a row's index, below its device.
const PLACE_BITS: u32 = u32::BITS;

/// A row's device, and below it the row's index in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Keyed(u64);

impl Keyed {
    fn new(device: i32, place: u32) -> Self {
        // Flipping the sign bit sorts negative numbers before the others.
        let device = device.cast_unsigned() ^ (1 << 31);
        Keyed((u64::from(device) << PLACE_BITS) | u64::from(place))
    }

    fn device(self) -> u32 {
        (self.0 >> PLACE_BITS) as u32
    }

    fn place(self) -> u32 {
        self.0 as u32
    }

    fn digit(self, shift: u32) -> usize {
        (self.0 >> shift) as usize % DIGITS
    }
}

/// Sorts rows by partition, device and time. Rows that are equal in all three keep their order. Rows without a
/// partition come last.
///
/// Shape:  one key per row; `devices` are in the order of the rows
pub(super) fn sort(
    devices: impl Iterator<Item = i32>,
    partition: impl Fn(u32) -> Option<usize>,
    at: impl Fn(u32) -> Timestamp,
) -> Vec<Keyed> {
    let keyed = devices.zip(0..).map(|(id, place)| Keyed::new(id, place));
    let keyed: Vec<Keyed> = keyed.collect();
    let first = keyed.first().and_then(|key| partition(key.place()));
    // `none` comes after all partitions.
    let (mut in_one, mut none) = (true, 0);
    for found in keyed.iter().map(|key| partition(key.place())) {
        in_one &= found == first;
        none = none.max(found.map_or(0, |index| index + 1));
    }
    let partition = |key: Keyed| partition(key.place()).unwrap_or(none);
    let mut keyed = by_device(keyed);
    if !in_one {
        let mut sorted = vec![Keyed(0); keyed.len()];
        distribute(&keyed, &mut sorted, none + 1, partition);
        keyed = sorted;
    }
    let at = |key: &Keyed| at(key.place());
    let same = |a: &Keyed, b: &Keyed| {
        a.device() == b.device() && (in_one || partition(*a) == partition(*b))
    };
    for group in keyed.chunk_by_mut(same) {
        if !group.is_sorted_by_key(at) {
            // Within one device, keys sort like the rows' indexes.
            group.sort_unstable_by_key(|key| (at(key), *key));
        }
    }
    keyed
}

/// Moves rows to their sorted places in place, because a batch may hold many.
pub(super) fn place<R: Copy>(rows: &mut [R], mut sorted: Vec<Keyed>) {
    for start in 0..rows.len() {
        // Follow a cycle: each row moves to the place of the one before.
        let first = rows[start];
        let mut to = start;
        loop {
            let from = std::mem::replace(&mut sorted[to], Keyed(to as u64));
            let from = from.place() as usize;
            if from == start {
                rows[to] = first;
                break;
            }
            rows[to] = rows[from];
            to = from;
        }
    }
}

/// A radix sort from the lowest digit. Digits that are equal in all keys are skipped.
fn by_device(mut keyed: Vec<Keyed>) -> Vec<Keyed> {
    let first = keyed.first().map_or(0, |key| key.0);
    let varying = keyed.iter().fold(0, |bits, key| bits | (key.0 ^ first));
    let mut sorted = vec![Keyed(0); keyed.len()];
    for shift in (PLACE_BITS..u64::BITS).step_by(DIGIT_BITS as usize) {
        if Keyed(varying).digit(shift) == 0 {
            continue;
        }
        distribute(&keyed, &mut sorted, DIGITS, |key| key.digit(shift));
        std::mem::swap(&mut keyed, &mut sorted);
    }
    keyed
}

/// Sorts by a number below `numbers`, in one stable pass.
fn distribute(
    keyed: &[Keyed],
    sorted: &mut [Keyed],
    numbers: usize,
    number: impl Fn(Keyed) -> usize,
) {
    let mut places = vec![0_usize; numbers];
    keyed.iter().for_each(|key| places[number(*key)] += 1);
    let mut before = 0;
    for place in &mut places {
        before += std::mem::replace(place, before);
    }
    for key in keyed {
        let place = &mut places[number(*key)];
        sorted[*place] = *key;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_stand_by_partition_device_time_and_then_as_they_came(
            rows in proptest::collection::vec(
                (proptest::option::of(0..3_usize), prop_oneof![-3..3_i32, any::<i32>()], 0..4_i64),
                0..200,
            )
        ) {
            let partition = |n: u32| rows[n as usize].0;
            let at = |n: u32| Timestamp::from_micros(rows[n as usize].2);
            let sorted = sort(rows.iter().map(|row| row.1), partition, at);
            let mut placed: Vec<u32> = (0..rows.len() as u32).collect();
            place(&mut placed, sorted.clone());
            let sorted: Vec<u32> = sorted.into_iter().map(Keyed::place).collect();
            prop_assert_eq!(&placed, &sorted);
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by_key(|n| {
                let (partition, id, at) = rows[*n as usize];
                (partition.is_none(), partition, id, at, *n)
            });
            prop_assert_eq!(sorted, expected);
        }
    }
}
