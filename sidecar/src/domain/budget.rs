//! How many deliveries the broker may hand over at once, so that their bodies fit into memory.
//!
//! AMQP has a window in bytes, `prefetch-size`, which RabbitMQ does not implement
//! (<https://www.rabbitmq.com/docs/specification>). So the window in messages follows the sizes that come. It is an
//! estimate: when large bodies follow small ones without warning, one window of them may come before it is narrowed.

/// The body that is reckoned with before one has come.
const UNKNOWN_BODY: usize = 1024 * 1024;

/// A prefetch that follows the sizes of bodies.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: usize,
    most: u16,
    window: u16,
    /// About the largest of the bodies that came lately.
    body: usize,
    /// Deliveries since the window was changed.
    came: u32,
}

impl Budget {
    /// Bodies of at most `bytes` together, in a window of `most` messages at most. One message is always let in,
    /// whatever its size.
    pub fn new(bytes: usize, most: u16) -> Self {
        let mut budget = Self {
            bytes,
            most,
            window: 0,
            body: UNKNOWN_BODY,
            came: 0,
        };
        budget.window = budget.fitting();
        budget.body = 0;
        budget
    }

    /// How many deliveries there may be at once: the prefetch to subscribe with.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Takes in the size of a body that came. Returns whether the window is another one from now on, so that it is
    /// worth to subscribe anew: at once when what is let in does not fit, after a full window when twice as much would.
    pub fn has_changed(&mut self, body: usize) -> bool {
        self.body = body.max(self.body - self.body / 16);
        self.came = self.came.saturating_add(1);
        let fitting = self.fitting();
        // A quarter more than the budget is let pass, so that sizes about the edge change nothing.
        let is_too_wide = self.window > 1
            && self.body.saturating_mul(usize::from(self.window)) > self.bytes.saturating_add(self.bytes / 4);
        let is_too_narrow = self.came >= u32::from(self.window)
            && fitting > self.window
            && (fitting == self.most || fitting / 2 >= self.window);
        let changes = is_too_narrow || (is_too_wide && fitting < self.window);
        if changes {
            self.window = fitting;
            self.came = 0;
        }
        changes
    }

    fn fitting(&self) -> u16 {
        let fitting = self.bytes / self.body.max(1);
        u16::try_from(fitting)
            .unwrap_or(u16::MAX)
            .clamp(1, self.most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1024 * 1024;

    fn windows(budget: &mut Budget, bodies: impl IntoIterator<Item = usize>) -> Vec<u16> {
        bodies
            .into_iter()
            .map(|body| (budget.has_changed(body), budget.window()))
            .filter_map(|(has_changed, window)| has_changed.then_some(window))
            .collect()
    }

    #[test]
    fn small_bodies_never_change_a_window_that_is_whole() {
        let mut budget = Budget::new(24 * MIB, 19);
        assert_eq!(budget.window(), 19);
        assert_eq!(windows(&mut budget, [1024; 1000]), [0_u16; 0]);
    }

    #[test]
    fn a_wide_window_opens_once_bodies_are_known_to_be_small() {
        let mut budget = Budget::new(24 * MIB, 96);
        assert_eq!(budget.window(), 24);
        assert_eq!(windows(&mut budget, [1024; 1000]), [96]);
    }

    #[test]
    fn large_bodies_narrow_it_at_once_and_small_ones_open_it_again() {
        let mut budget = Budget::new(24 * MIB, 96);
        assert_eq!(windows(&mut budget, [16 * MIB; 100]), [1]);
        let opened = windows(&mut budget, [1024; 500]);
        assert_eq!(opened.last(), Some(&96));
        assert!(opened.len() <= 8, "{opened:?}");
    }

    #[test]
    fn a_message_that_is_larger_than_the_budget_is_let_in_alone() {
        let mut budget = Budget::new(MIB, 3);
        assert_eq!(budget.window(), 1);
        assert_eq!(windows(&mut budget, [128 * MIB; 10]), [0_u16; 0]);
        assert_eq!(budget.window(), 1);
    }

    proptest! {
        #[test]
        fn what_lately_came_fits(
            bytes in 1_usize..100_000_000,
            most in 1_u16..2_000,
            bodies in proptest::collection::vec(0_usize..20_000_000, 1..300),
        ) {
            let mut budget = Budget::new(bytes, most);
            for body in bodies {
                budget.has_changed(body);
                let window = budget.window();
                prop_assert!((1..=most).contains(&window));
                prop_assert!(window == 1 || body * usize::from(window) <= bytes + bytes / 4);
            }
        }

        #[test]
        fn equal_bodies_change_it_a_few_times_at_most(
            bytes in 1_usize..100_000_000,
            most in 1_u16..2_000,
            body in 0_usize..20_000_000,
        ) {
            let mut budget = Budget::new(bytes, most);
            let changes = windows(&mut budget, std::iter::repeat_n(body, 5_000));
            prop_assert!(changes.len() <= 2, "{changes:?}");
        }
    }
}
