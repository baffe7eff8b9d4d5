//! Random numbers that are the same in every run with the same seed.

/// Marsaglia's generator with shifts 13, 7, 17.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeds that differ by one give unrelated numbers (the finaliser of
    /// SplitMix64).
    pub(crate) fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The generator stands still at 0.
        Self((z ^ (z >> 31)).max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The upper bits are the better ones.
        ((self.next() >> 11) as usize).checked_rem(end).unwrap_or(0)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}
