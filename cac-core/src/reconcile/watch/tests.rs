//! When a container counts as started again, and how often one without an answer is looked at.

use super::*;

#[test]
fn a_restart_shows_in_the_uptime_and_a_late_measurement_does_not() {
    let at = Instant::now();
    let place = |uptime, after| Place {
        node: "pve1".to_owned(),
        running: true,
        uptime,
        at: at + Duration::from_secs(after),
    };
    let before = place(100, 0);
    for (uptime, after, differs) in [
        (120, 20, false),
        (110, 20, false),
        (130, 20, false),
        (5, 20, true),
        (101, 60, true),
    ] {
        assert_eq!(
            place(uptime, after).differs(&before),
            differs,
            "{uptime} {after}"
        );
    }
    // Started again between two looks that both find it young.
    assert!(place(8, 30).differs(&place(9, 0)));
    let moved = Place {
        node: "pve2".to_owned(),
        ..place(120, 20)
    };
    assert!(moved.differs(&before));
}

#[test]
fn a_container_without_an_answer_is_looked_at_once_in_a_while() {
    let suspects = Suspects::default();
    for _ in 0..10 {
        suspects.add(7);
    }
    suspects.add(8);
    let mut taken = suspects.take(5);
    taken.sort_unstable();
    assert_eq!(taken, [7, 8]);
    suspects.add(7);
    assert!(suspects.take(5).is_empty());
    for id in 0..5000 {
        suspects.add(id);
    }
    assert!(suspects.take(5000).len() <= SUSPECTS);
}
