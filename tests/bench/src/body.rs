//! A message body that carries its number and can be checked byte for byte.
//!
//! Eight bytes each: the message's number, the time at which it was due to be published (nanoseconds since the Unix
//! epoch), then words that follow from seed, number and position. Nothing of the bench is in properties or headers, so
//! that it does not matter how a runner passes those on.

use std::time::Duration;

/// The least a body has: number and time.
pub const LEAST_BYTES: usize = 16;

/// What a body says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The message's number, from 0.
    pub id: u64,
    /// When it was due to be published, since the Unix epoch.
    pub due: Duration,
}

/// A body of `bytes`, at least [`LEAST_BYTES`].
pub fn make(seed: u64, id: u64, due: Duration, bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes.max(LEAST_BYTES));
    body.extend(id.to_le_bytes());
    let nanoseconds = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
    body.extend(nanoseconds.to_le_bytes());
    let mut words = words(seed, id);
    while body.len() < bytes {
        body.extend(words.next_word().to_le_bytes());
    }
    body.truncate(bytes.max(LEAST_BYTES));
    body
}

/// The stamp of a body, or `None` when the body is not one that [`make`] makes of `seed` and `bytes`.
pub fn check(seed: u64, bytes: usize, body: &[u8]) -> Option<Stamp> {
    if body.len() != bytes.max(LEAST_BYTES) {
        return None;
    }
    let (id, rest) = body.split_first_chunk()?;
    let (due, rest) = rest.split_first_chunk()?;
    let id = u64::from_le_bytes(*id);
    let mut words = words(seed, id);
    let whole = rest.chunks(8).all(|chunk| {
        let word = words.next_word().to_le_bytes();
        chunk == &word[..chunk.len()]
    });
    whole.then(|| Stamp {
        id,
        due: Duration::from_nanos(u64::from_le_bytes(*due)),
    })
}

struct Words(u64);

fn words(seed: u64, id: u64) -> Words {
    Words(seed.rotate_left(32) ^ id)
}

impl Words {
    /// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST_BYTES, Stamp, check, make};
    use std::time::Duration;

    #[test]
    fn a_body_is_recognised_at_every_size() {
        let due = Duration::from_nanos(1_234_567_890_123);
        for bytes in [0, 16, 17, 24, 100, 1024, 16 * 1024] {
            let body = make(7, 42, due, bytes);
            assert_eq!(body.len(), bytes.max(LEAST_BYTES));
            assert_eq!(check(7, bytes, &body), Some(Stamp { id: 42, due }));
        }
    }

    #[test]
    fn any_change_is_noticed() {
        let body = make(7, 42, Duration::ZERO, 100);
        assert_eq!(check(8, 100, &body), None, "of another run");
        assert_eq!(check(7, 100, &body[..99]), None, "shorter");
        for at in (0..8).chain(16..100) {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert_eq!(check(7, 100, &changed), None, "byte {at}");
        }
    }
}
