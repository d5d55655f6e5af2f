//! The objectives, and the choice among them.

mod emc2;
mod exact;
mod importance_weights;
mod infonce;
mod negative_cache;
mod sogclr;

use crate::{LearnConfig, ObjectiveKind, embedding_cache::EmbeddingCache, objective::Objective};
use kith_mcmc::ChainTable;

/// The configured objective over its state.
pub(super) fn objective<'a>(
    config: &'a LearnConfig,
    table: &'a ChainTable,
    cache: &'a EmbeddingCache,
) -> Box<dyn Objective + 'a> {
    match config.objective {
        ObjectiveKind::Emc2 => Box::new(emc2::Emc2 { config, table }),
        ObjectiveKind::InfoNce => Box::new(infonce::InfoNce),
        ObjectiveKind::SogClr => Box::new(sogclr::SogClr {
            gamma: config.sogclr_gamma,
            table,
        }),
        ObjectiveKind::NegativeCache => Box::new(negative_cache::NegativeCache { cache }),
        ObjectiveKind::Exact => Box::new(exact::Exact {
            max_images: config.exact_images,
        }),
    }
}
