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
}

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
        }
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
