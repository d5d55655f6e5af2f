//! The sampler's settings that the tests share.

use kith_mcmc::{Estimator, Proposals, SamplerConfig};

/// The paper's walk, with one image of each pair.
pub(crate) const WALK: SamplerConfig = SamplerConfig {
    estimator: Estimator::Walk,
    burn_in: 0.5,
    proposals: Proposals::OneView,
};
/// The authors' walk, with both images of each pair.
pub(crate) const BOTH: SamplerConfig = SamplerConfig {
    proposals: Proposals::BothViews,
    ..WALK
};
/// The subset kernel.
pub(crate) const SUBSET: SamplerConfig = SamplerConfig {
    estimator: Estimator::Subset,
    ..WALK
};
