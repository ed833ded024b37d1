//! Ids for messages whose publisher gave them none.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uuid::Uuid;

/// The upper half of what is drawn at random in the lower 64 bits of a UUID: without it there is room to count.
const ROOM: u128 = 1 << 61;

/// UUIDs that count up from a random one: to draw each anew would be a call of the kernel for each.
#[derive(Debug)]
pub(super) struct Ids {
    first: u128,
    given: AtomicU64,
}

impl Ids {
    /// Ids that no other process has.
    pub(super) fn new() -> Self {
        Self {
            first: Uuid::new_v4().as_u128() & !ROOM,
            given: AtomicU64::new(0),
        }
    }

    /// One that was not given before.
    pub(super) fn next(&self) -> String {
        let given = self.given.fetch_add(1, Relaxed);
        Uuid::from_u128(self.first + u128::from(given)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids_and_each_is_another() {
        let (here, there) = (Ids::new(), Ids::new());
        let ids: std::collections::BTreeSet<_> =
            (0..1000).flat_map(|_| [here.next(), there.next()]).collect();
        assert_eq!(ids.len(), 2000);
        for id in ids {
            let id: Uuid = id.parse().unwrap();
            assert_eq!(id.get_version_num(), 4);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        }
    }
}
