use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::from_hours(500_000);

#[test]
fn what_is_remembered_is_known_until_it_is_too_old() {
    let mut completed = Completed::new(10);
    completed.remember((1, 2), NOW);
    assert!(completed.knows((1, 2), NOW + AGE));
    assert!(!completed.knows((1, 2), NOW + AGE + Duration::from_nanos(1)));
    assert!(!completed.knows((1, 3), NOW));
    // A clock that is set back forgets nothing.
    assert!(completed.knows((1, 2), NOW.saturating_sub(AGE)));
}

#[test]
fn the_oldest_go_first_and_none_is_remembered_when_it_is_off() {
    let mut completed = Completed::new(2);
    for (seconds, n) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
        completed.remember((n, n), NOW + Duration::from_secs(seconds));
    }
    let known: Vec<u64> = (1..4).filter(|n| completed.knows((*n, *n), NOW)).collect();
    assert_eq!(known, [1, 3], "1 was completed again after 2");
    let mut off = Completed::new(0);
    off.remember((1, 1), NOW);
    assert!(!off.knows((1, 1), NOW) && !off.is_on());
}

proptest! {
    #[test]
    fn it_is_bounded_and_knows_the_latest(most in 1_usize..20, keys in proptest::collection::vec(0_u64..30, 1..100)) {
        let mut completed = Completed::new(most);
        for (n, key) in keys.iter().enumerate() {
            let now = NOW + Duration::from_millis(n as u64);
            completed.remember((*key, 0), now);
            prop_assert!(completed.knows((*key, 0), now));
            prop_assert!(completed.order.len() <= most && completed.at.len() <= completed.order.len());
        }
    }
}
