//! The order of a batch's rows: by partition and device, then time.
//!
//! Rows arrive in the log's order, in which each device's times mostly ascend already. So a stable radix sort
//! of small keys groups them by device, and only a device whose times do not ascend is sorted by comparing.
//! The rows themselves, of 64 bytes and more, are moved once.

use crate::reading::Timestamp;

/// Bits of one digit: its counters (8 KiB) stay in the cache of the first level, and two digits hold
/// four million devices.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// A row's partition and device, in the order in which they are sorted, and its place in the batch.
pub(super) type Keyed = (u64, u32);

/// The group of a device's rows in one partition; rows of no partition come last.
pub(super) fn group(partition: Option<usize>, device: i32) -> u64 {
    let partition = partition.map_or(u32::MAX, |place| place as u32);
    // With its sign turned, a negative number comes before the others.
    (u64::from(partition) << 32) | u64::from(device as u32 ^ (1 << 31))
}

/// Sorts by group, then time; what has both in common keeps its order.
pub(super) fn sort(keyed: Vec<Keyed>, at: impl Fn(u32) -> Timestamp) -> Vec<Keyed> {
    let mut keyed = by_group(keyed);
    for group in keyed.chunk_by_mut(|a, b| a.0 == b.0) {
        if !group.is_sorted_by_key(|(_, place)| at(*place)) {
            group.sort_by_key(|(_, place)| at(*place));
        }
    }
    keyed
}

/// Moves rows to their sorted places in the same memory, because a batch may hold many.
pub(super) fn place<R: Copy>(rows: &mut [R], mut sorted: Vec<Keyed>) {
    for start in 0..rows.len() {
        // A cycle of rows, each of which moves to the place of the one before.
        let first = rows[start];
        let mut to = start;
        loop {
            let from = std::mem::replace(&mut sorted[to].1, to as u32) as usize;
            if from == start {
                rows[to] = first;
                break;
            }
            rows[to] = rows[from];
            to = from;
        }
    }
}

/// A radix sort from the lowest digit, which leaves out digits that are the same everywhere.
fn by_group(mut keyed: Vec<Keyed>) -> Vec<Keyed> {
    let first = keyed.first().map_or(0, |(group, _)| *group);
    let varying = keyed
        .iter()
        .fold(0, |bits, (group, _)| bits | (group ^ first));
    let mut sorted = vec![(0, 0); keyed.len()];
    for shift in (0..u64::BITS).step_by(DIGIT_BITS as usize) {
        let digit = |group: u64| (group >> shift) as usize % DIGITS;
        if digit(varying) == 0 {
            continue;
        }
        let mut places = [0_usize; DIGITS];
        keyed
            .iter()
            .for_each(|(group, _)| places[digit(*group)] += 1);
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        for row in &keyed {
            let place = &mut places[digit(row.0)];
            sorted[*place] = *row;
            *place += 1;
        }
        std::mem::swap(&mut keyed, &mut sorted);
    }
    keyed
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
            let keyed = rows.iter().zip(0..).map(|((partition, id, _), n)| (group(*partition, *id), n));
            let at = |n: u32| Timestamp::from_micros(rows[n as usize].2);
            let sorted = sort(keyed.collect(), at);
            let mut placed: Vec<u32> = (0..rows.len() as u32).collect();
            place(&mut placed, sorted.clone());
            let sorted: Vec<u32> = sorted.into_iter().map(|(_, n)| n).collect();
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
