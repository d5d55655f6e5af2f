//! Decides when an automatic snapshot is due, from steps, time and new pairs.

use std::time::{Duration, Instant};

use super::{backoff::Backoff, config::SnapshotConfig};

/// Growth of the trained pairs since the newest snapshot after which the next does not wait for its time.
const GROWTH: f64 = 1.25;

/// The state of automatic snapshots.
#[derive(Debug)]
pub(super) struct Triggers {
    every_steps: u64,
    first_steps: u64,
    every: Option<Duration>,
    /// Step of the newest snapshot; `None`: it could not be written.
    last_step: Option<u64>,
    /// Whether something besides steps has changed since.
    changed: bool,
    last_time: Instant,
    /// Number of trained pairs now.
    pairs: usize,
    /// At the newest snapshot.
    snapshot_pairs: usize,
    /// The step at which one is due for the pairs that have come since.
    for_new_pairs: Option<u64>,
    /// The step at which a snapshot was due but could not be taken.
    skipped: Option<u64>,
    forced: bool,
    losses: Backoff,
    /// Until when none is due, after one that could not be written.
    rests_until: Option<Instant>,
    /// Whether one was due by its step meanwhile.
    missed: bool,
}

impl Triggers {
    /// `step` is that of the newest snapshot, and `pairs` were trained on then. After one that cannot be written the next waits for at most `max_rest`.
    pub(super) fn new(
        config: &SnapshotConfig,
        step: u64,
        pairs: usize,
        now: Instant,
        max_rest: Duration,
    ) -> Self {
        Self {
            every_steps: config.every_steps,
            first_steps: config.first_steps,
            every: Some(config.every_minutes)
                .filter(|minutes| *minutes > 0.0)
                .map(|minutes| Duration::from_secs_f64(60.0 * minutes)),
            last_step: Some(step),
            changed: false,
            last_time: now,
            pairs,
            snapshot_pairs: pairs,
            for_new_pairs: None,
            skipped: None,
            forced: false,
            losses: Backoff::new(max_rest),
            rests_until: None,
            missed: false,
        }
    }

    /// Counts steps that were made. After enough of them without a loss the rest after the next one is short again.
    pub(super) fn record_steps(&mut self, steps: u64) {
        self.losses.record_steps(steps);
    }

    /// Number of trained pairs at the newest snapshot.
    pub(super) fn snapshot_pairs(&self) -> usize {
        self.snapshot_pairs
    }

    /// Whether the state has changed since the newest snapshot.
    pub(super) fn is_dirty(&self, step: u64) -> bool {
        self.changed || self.has_new_steps(step)
    }

    /// Whether steps were made since the newest snapshot, or it could not be written.
    pub(super) fn has_new_steps(&self, step: u64) -> bool {
        self.last_step != Some(step)
    }

    /// Sees how many pairs are trained on at step `step`. Once there are a quarter more than at the newest snapshot, the next is due when as many steps
    /// have been made as before the first: what was posted then serves soon.
    pub(super) fn see_pairs(&mut self, pairs: usize, step: u64) {
        self.pairs = pairs;
        let grown = pairs as f64 > GROWTH * self.snapshot_pairs as f64;
        if grown && self.first_steps > 0 && self.for_new_pairs.is_none() {
            self.for_new_pairs = Some(step + self.first_steps);
        }
    }

    /// Whether a snapshot should be taken now, at step `step`, which is the last one if training `is_complete`. Never while the state is that of the
    /// newest one, or for a while after one that could not be written, unless it is forced. What has changed without a step is due by time alone.
    pub(super) fn is_due(&mut self, step: u64, now: Instant, is_complete: bool) -> bool {
        let rests = self.rests_until.is_some_and(|until| now < until);
        let is_last = is_complete && self.has_new_steps(step);
        let at_its_step = self.every_steps > 0 && step.is_multiple_of(self.every_steps)
            || self.first_steps > 0 && step == self.first_steps
            || self.for_new_pairs.is_some_and(|at| step >= at)
            || self.missed;
        let by_steps = at_its_step && self.has_new_steps(step);
        self.missed = by_steps && rests;
        let by_time = self
            .every
            .is_some_and(|every| now - self.last_time >= every);
        let by_settings =
            self.is_dirty(step) && self.skipped != Some(step) && (by_steps || by_time);
        self.forced || !rests && (is_last || by_settings)
    }

    /// Makes a snapshot due, whatever the settings.
    pub(super) fn force(&mut self) {
        self.forced = true;
    }

    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    /// Records that a snapshot of step `step` was taken.
    pub(super) fn taken(&mut self, step: u64, now: Instant) {
        self.last_step = Some(step);
        self.changed = false;
        self.last_time = now;
        self.snapshot_pairs = self.pairs;
        self.for_new_pairs = None;
        self.forced = false;
        self.missed = false;
    }

    /// Records that a snapshot was due and could not be taken: the next is due at its own time.
    pub(super) fn skip(&mut self, step: u64, now: Instant) {
        self.skipped = Some(step);
        self.last_time = now;
        self.for_new_pairs = self.for_new_pairs.map(|_| step + self.first_steps);
    }

    /// Records that snapshots could not be written: the pairs beyond `snapshot_pairs`, which they were to be the first for, have still to serve.
    pub(super) fn lose(&mut self, snapshot_pairs: usize, now: Instant) {
        self.last_step = None;
        self.rests_until = Some(now + self.losses.next_rest());
        self.snapshot_pairs = self.snapshot_pairs.min(snapshot_pairs);
    }

    /// Records a change besides steps: a setting changed, or pairs were erased.
    pub(super) fn mark_dirty(&mut self) {
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_REST: Duration = Duration::from_secs(4);

    impl Triggers {
        fn due(&mut self, step: u64, now: Instant) -> bool {
            self.is_due(step, now, false)
        }

        fn due_at_the_end(&mut self, step: u64, now: Instant) -> bool {
            self.is_due(step, now, true)
        }
    }

    fn triggers(every_steps: u64, every_minutes: f64, now: Instant) -> Triggers {
        with_first_steps((every_steps, every_minutes, 0), 0, now)
    }

    fn with_first_steps(
        (every_steps, every_minutes, first_steps): (u64, f64, u64),
        pairs: usize,
        now: Instant,
    ) -> Triggers {
        let config = SnapshotConfig {
            every_steps,
            every_minutes,
            first_steps,
            head_pairs: 0,
            head_seconds: 0.0,
            evaluation_pairs: 1,
            recovery_rate: 0.5,
            recovery_floor: 0.01,
            recovery_steps: 0,
            max_recoveries: 1,
        };
        Triggers::new(&config, 0, pairs, now, MAX_REST)
    }

    #[test]
    fn many_new_pairs_bring_one_before_its_time_and_few_do_not() {
        let now = Instant::now();
        let mut triggers = with_first_steps((0, 0.0, 5), 100, now);
        triggers.taken(5, now);
        triggers.see_pairs(125, 10);
        assert!(!(11..40).any(|step| triggers.due(step, now)));
        triggers.see_pairs(126, 40);
        triggers.see_pairs(300, 42);
        let due: Vec<u64> = (42..48).filter(|step| triggers.due(*step, now)).collect();
        assert_eq!(due, [45, 46, 47]);
        // Skipped, it comes as many steps later; taken, it waits for new growth.
        triggers.skip(45, now);
        assert!(!triggers.due(46, now) && triggers.due(50, now));
        triggers.taken(50, now);
        triggers.see_pairs(310, 51);
        assert!(!(51..90).any(|step| triggers.due(step, now)));
    }

    #[test]
    fn what_has_changed_without_a_step_waits_for_its_time() {
        let now = Instant::now();
        for step in [0, 5, 20] {
            let mut triggers = with_first_steps((10, 1.0, 5), 100, now);
            triggers.taken(step, now);
            triggers.mark_dirty();
            assert!(triggers.is_dirty(step) && !triggers.due(step, now));
            assert!(triggers.due(step, now + Duration::from_secs(60)));
            // Steps are another matter.
            assert!(triggers.due(step + 10 - step % 10, now));
        }
    }

    #[test]
    fn one_that_could_not_be_written_comes_again_for_the_same_pairs() {
        let now = Instant::now();
        let mut triggers = with_first_steps((0, 0.0, 5), 100, now);
        triggers.see_pairs(200, 10);
        let before = triggers.snapshot_pairs();
        triggers.taken(15, now);
        // One that was taken meanwhile for the same pairs is lost as well.
        let between = triggers.snapshot_pairs();
        triggers.taken(16, now);
        triggers.lose(before, now);
        triggers.lose(between, now);
        assert_eq!(triggers.snapshot_pairs(), 100);
        triggers.see_pairs(200, 17);
        assert_eq!((17..20).find(|step| triggers.due(*step, now)), None);
        let now = now + MAX_REST;
        assert_eq!((17..40).find(|step| triggers.due(*step, now)), Some(22));
        triggers.taken(22, now);
        triggers.see_pairs(200, 23);
        assert!(!(23..60).any(|step| triggers.due(step, now)));
    }

    #[test]
    fn one_whose_step_passes_in_a_rest_comes_after_it() {
        let now = Instant::now();
        let mut triggers = triggers(5, 0.0, now);
        triggers.taken(4, now);
        triggers.lose(0, now);
        assert!(!triggers.due(5, now) && !triggers.due(6, now));
        assert!(triggers.due(7, now + MAX_REST));
        triggers.taken(7, now + MAX_REST);
        assert!(!triggers.due(8, now + MAX_REST));
    }

    #[test]
    fn after_losses_the_next_waits_longer_each_time_and_a_forced_one_does_not() {
        let mut now = Instant::now();
        let mut triggers = triggers(5, 0.0, now);
        let mut rests = Vec::new();
        for _ in 0..4 {
            triggers.taken(5, now);
            triggers.lose(0, now);
            let after = (0..).find(|seconds| triggers.due(5, now + Duration::from_secs(*seconds)));
            rests.push(after.unwrap());
            now += MAX_REST;
        }
        assert_eq!(rests, [1, 2, 4, 4]);
        // The last snapshot of a training that is complete waits like others.
        triggers.taken(7, now);
        triggers.lose(0, now);
        assert!(!triggers.due_at_the_end(7, now) && triggers.due_at_the_end(7, now + MAX_REST));
        triggers.record_steps(1000);
        triggers.lose(0, now);
        assert!(triggers.due_at_the_end(7, now + Duration::from_secs(1)));
        triggers.force();
        assert!(triggers.due(7, now));
    }

    #[test]
    fn the_first_pairs_of_all_bring_one_and_with_a_setting_of_0_none_do() {
        let now = Instant::now();
        for (first_steps, expected) in [(5, Some(15)), (0, None)] {
            let mut triggers = with_first_steps((0, 0.0, first_steps), 0, now);
            triggers.see_pairs(0, 8);
            triggers.see_pairs(1000, 10);
            assert_eq!((9..40).find(|step| triggers.due(*step, now)), expected);
        }
    }

    #[test]
    fn steps_count_in_multiples_and_once() {
        let now = Instant::now();
        let mut triggers = triggers(5, 0.0, now);
        let due: Vec<u64> = (0..12).filter(|step| triggers.due(*step, now)).collect();
        assert_eq!(due, [5, 10]);
        triggers.taken(5, now);
        assert!(!triggers.due(5, now));
    }

    #[test]
    fn time_counts_only_when_a_step_was_made() {
        let now = Instant::now();
        let later = now + Duration::from_secs(90);
        let mut triggers = triggers(0, 1.0, now);
        assert!(!triggers.due(0, later));
        assert!(!triggers.due(1, now));
        assert!(triggers.due(1, later));
        triggers.taken(1, later);
        assert!(!triggers.due(2, later));
        assert!(triggers.due(2, later + Duration::from_secs(60)));
    }

    #[test]
    fn a_skipped_one_waits_for_its_next_time() {
        let now = Instant::now();
        let mut triggers = triggers(5, 0.0, now);
        triggers.skip(5, now);
        assert!(!triggers.due(5, now) && !triggers.due(6, now) && triggers.due(10, now));
    }

    #[test]
    fn a_forced_one_needs_no_step() {
        let now = Instant::now();
        let mut triggers = triggers(0, 0.0, now);
        triggers.force();
        assert!(triggers.due(0, now));
        triggers.taken(0, now);
        assert!(!triggers.due(0, now) && !triggers.is_dirty(0));
        triggers.mark_dirty();
        assert!(triggers.is_dirty(0));
    }
}
