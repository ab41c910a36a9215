//! The order in which the devices of a connection send.

/// How the devices of a round follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Order {
    /// By number, the same in each round: neighbours send together
    #[default]
    Sequence,
    /// At random, in a different order each round, like a fleet
    Random,
}

/// A range of devices that belongs to one connection, so that each device's times increase.
///
/// Each device sends once per round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Devices {
    first: u32,
    count: u32,
    order: Order,
    seed: u64,
}

impl Devices {
    /// `count` devices starting at `first`, at least one. The seed determines their random orders.
    pub(crate) fn new(first: u32, count: u32, order: Order, seed: u64) -> Self {
        Devices {
            first,
            count: count.max(1),
            order,
            // Neighbouring ranges of one run must not have similar orders.
            seed: mix(seed ^ u64::from(first) << 32),
        }
    }

    /// The number of positions in this many rounds.
    pub(crate) fn positions(self, rounds: u64) -> u64 {
        rounds.saturating_mul(u64::from(self.count))
    }

    /// The device and step at a position in this range's sequence: all devices at step 0, then all at step 1, and
    /// so on.
    pub(crate) fn at(self, position: u64) -> (u32, u64) {
        let count = u64::from(self.count);
        let (index, step) = ((position % count) as u32, position / count);
        let index = match self.order {
            Order::Sequence => index,
            Order::Random => permuted(index, self.count, mix(self.seed ^ step)),
        };
        (self.first + index, step)
    }
}

/// The position of `index` in the permutation of `0..count` that `key` selects.
///
/// No list is stored. The steps permute the next larger power of two, and results outside the range are permuted
/// again until they are inside, at most twice on average.
fn permuted(index: u32, count: u32, key: u64) -> u32 {
    let bits = (count.max(2) - 1).ilog2() + 1;
    let mask = u32::MAX >> (32 - bits);
    let (low, high) = (key as u32, (key >> 32) as u32);
    let mut at = index;
    loop {
        // Each step is invertible modulo this power of two: an addition, an odd factor, a xor with a shift by half
        // of the bits.
        at = at.wrapping_add(low).wrapping_mul(0x9e37_79b1) & mask;
        at ^= at >> bits.div_ceil(2);
        at = at.wrapping_add(high).wrapping_mul(low | 1) & mask;
        at ^= at >> bits.div_ceil(2);
        at = at.wrapping_mul(0x85eb_ca6b ^ (high << 1)) & mask;
        at ^= at >> bits.div_ceil(2);
        if at < count {
            return at;
        }
    }
}

/// SplitMix64: a few multiplications per reading, mixed over all bits.
pub(crate) const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(devices: Devices, count: u32, step: u64) -> Vec<u32> {
        let positions = u64::from(count) * step..u64::from(count) * (step + 1);
        positions
            .map(|position| {
                let (device, at) = devices.at(position);
                assert_eq!(at, step);
                device
            })
            .collect()
    }

    #[test]
    fn each_device_comes_once_a_round_in_any_order() {
        for count in [1, 2, 3, 7, 8, 9, 78, 1_000, 12_500, 125_000] {
            for seed in [0, 7, u64::MAX] {
                for order in [Order::Sequence, Order::Random] {
                    let mut seen = round(Devices::new(40, count, order, seed), count, 3);
                    seen.sort_unstable();
                    assert!(seen.into_iter().eq(40..40 + count), "{order:?} {count}");
                }
            }
        }
    }

    #[test]
    fn rounds_and_seeds_and_ranges_differ_in_order() {
        let of = |first, seed, step| {
            let devices = Devices::new(first, 1_000, Order::Random, seed);
            let round = round(devices, 1_000, step);
            round.into_iter().map(move |device| device - first)
        };
        assert!(!of(0, 7, 0).eq(of(0, 7, 1)));
        assert!(!of(0, 7, 0).eq(of(0, 8, 0)));
        assert!(!of(0, 7, 0).eq(of(1_000, 7, 0)));
        assert!(of(0, 7, 0).eq(of(0, 7, 0)));
    }

    #[test]
    fn a_part_of_a_random_round_is_spread_like_chance() {
        // If 1,000 of 100,000 devices are chosen at random, 368 of 1,000 buckets are empty, and neighbours are
        // rare.
        for seed in 0..20 {
            let devices = Devices::new(0, 100_000, Order::Random, seed);
            let mut hits = [0_u32; 1_000];
            let mut neighbours = 0;
            let mut last = 0;
            for position in 0..1_000 {
                let device = devices.at(position).0;
                hits[device as usize / 100] += 1;
                neighbours += u32::from(device.abs_diff(last) < 2);
                last = device;
            }
            let empty = hits.iter().filter(|hits| **hits == 0).count();
            assert!((300..440).contains(&empty), "{empty} empty, seed {seed}");
            assert!(neighbours < 10, "{neighbours} neighbours, seed {seed}");
        }
    }
}
