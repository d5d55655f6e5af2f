//! The learning rate of a step.

use serde::{Deserialize, Serialize};

/// A learning rate schedule: linear warm-up, then constant or cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Learning rate after warm-up.
    pub learning_rate: f32,
    /// Factor on it for weights that did not begin as random ones, which a full rate makes forget.
    pub pretrained_factor: f32,
    /// Number of steps of linear warm-up.
    pub warmup_steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// Step at which a cosine reaches `final_rate`; it stays there.
    pub total_steps: u64,
    /// Lowest rate of a cosine.
    pub final_rate: f32,
    /// Steps of progressive resizing of random weights: they see small views first. 0: none.
    pub resize_steps: u64,
}

/// Step of an image's side in progressive resizing, and the smallest side: what the encoder takes.
const SIDE_STEP: usize = 32;

/// The learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Constant.
    Constant,
    /// Half a cosine down to `final_rate`.
    Cosine,
}

impl ScheduleConfig {
    /// The rate after warm-up for weights that began as random ones, or `pretrained`.
    pub fn base(&self, pretrained: bool) -> f32 {
        if pretrained {
            self.learning_rate * self.pretrained_factor
        } else {
            self.learning_rate
        }
    }

    /// The learning rate of step `step`, counted from 0. `base` replaces [`ScheduleConfig::learning_rate`] if given.
    pub fn rate(&self, step: u64, base: Option<f32>) -> f32 {
        let base = f64::from(base.unwrap_or(self.learning_rate));
        if step < self.warmup_steps {
            return (base * (step + 1) as f64 / self.warmup_steps as f64) as f32;
        }
        match self.decay {
            Decay::Constant => base as f32,
            Decay::Cosine => self.cosine(step, base) as f32,
        }
    }

    /// Pixels across the views of step `step`, counted from 0, of an encoder that serves `full`: 32 at first, then 32 more at equal
    /// intervals, and `full` from step `resize_steps` on. Weights that are `pretrained` have seen large images, and go on with them.
    pub fn side(&self, step: u64, pretrained: bool, full: usize) -> usize {
        if pretrained || step >= self.resize_steps {
            return full;
        }
        let smaller = (full / SIDE_STEP).saturating_sub(1) as u128;
        let passed = u128::from(step) * smaller / u128::from(self.resize_steps);
        full.min(SIDE_STEP * (1 + passed as usize))
    }

    fn cosine(&self, step: u64, base: f64) -> f64 {
        let last = base.min(f64::from(self.final_rate));
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = (step - self.warmup_steps) as f64 / length as f64;
        let turn = std::f64::consts::PI * done.min(1.0);
        last + (base - last) * (1.0 + turn.cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> ScheduleConfig {
        ScheduleConfig {
            learning_rate: 1.0,
            pretrained_factor: 0.25,
            warmup_steps: 4,
            decay,
            total_steps: 104,
            final_rate: 0.1,
            resize_steps: 0,
        }
    }

    #[test]
    fn views_of_random_weights_grow_to_what_is_served() {
        let schedule = ScheduleConfig {
            resize_steps: 10,
            ..schedule(Decay::Constant)
        };
        let sides = |full| [0, 4, 5, 9, 10, u64::MAX].map(|step| schedule.side(step, false, full));
        assert_eq!(sides(96), [32, 32, 64, 64, 96, 96]);
        assert_eq!(sides(64), [32, 32, 32, 32, 64, 64]);
        assert_eq!(sides(32), [32; 6]);
        assert_eq!(schedule.side(0, true, 96), 96, "pretrained");
        let never = ScheduleConfig {
            resize_steps: 0,
            ..schedule.clone()
        };
        assert_eq!(never.side(0, false, 96), 96);
        let late = ScheduleConfig {
            resize_steps: u64::MAX,
            ..schedule
        };
        assert_eq!(late.side(u64::MAX - 1, false, 224), 192, "no overflow");
    }

    #[test]
    fn warm_up_is_linear_and_reaches_the_base_rate() {
        let rates: Vec<f32> = (0..6)
            .map(|step| schedule(Decay::Constant).rate(step, None))
            .collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(schedule(Decay::Constant).rate(0, Some(4.0)), 1.0);
    }

    #[test]
    fn pretrained_weights_have_a_part_of_the_rate() {
        let schedule = schedule(Decay::Constant);
        assert_eq!(
            [false, true].map(|pretrained| schedule.base(pretrained)),
            [1.0, 0.25]
        );
    }

    #[test]
    fn a_cosine_falls_from_the_base_to_the_final_rate_and_stays() {
        let rate = |step| schedule(Decay::Cosine).rate(step, None);
        assert_eq!(rate(4), 1.0);
        // Half-way between 1 and 0.1; the tolerance is a few roundings of an f32.
        assert!((rate(54) - 0.55).abs() < 1e-6);
        assert!((rate(104) - 0.1).abs() < 1e-6);
        assert_eq!(rate(104), rate(1_000_000));
        assert!((5..104).all(|step| rate(step) < rate(step - 1)));
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_whole_rate() {
        let schedule = ScheduleConfig {
            warmup_steps: 0,
            ..schedule(Decay::Constant)
        };
        assert_eq!(schedule.rate(0, None), 1.0);
    }
}
