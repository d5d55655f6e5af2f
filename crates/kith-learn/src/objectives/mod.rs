//! The objectives, and the choice among them.

mod batch_mean;
mod emc2;
mod exact;
mod importance_weights;
mod infonce;
#[cfg(test)]
mod log_normalizers;
mod negative_cache;
mod neuclip;
mod normalizers;
mod scent;
mod sogclr;

use crate::{
    LearnConfig, ObjectiveKind, Prototypes, embedding_cache::EmbeddingCache, objective::Objective,
};
use kith_mcmc::ChainTable;

/// The configured objective over its state.
pub(super) fn objective<'a>(
    config: &'a LearnConfig,
    table: &'a ChainTable,
    (cache, prototypes): (&'a EmbeddingCache, &'a Prototypes),
) -> Box<dyn Objective + 'a> {
    match config.objective {
        ObjectiveKind::Emc2 => Box::new(emc2::Emc2 { config, table }),
        ObjectiveKind::InfoNce => Box::new(infonce::InfoNce),
        ObjectiveKind::SogClr => Box::new(sogclr::SogClr {
            gamma: config.sogclr_gamma,
            table,
        }),
        ObjectiveKind::Scent => Box::new(scent::Scent {
            step_size: config.scent_alpha,
            table,
        }),
        ObjectiveKind::NeuClip => Box::new(neuclip::NeuClip {
            config: &config.neuclip,
            prototypes,
        }),
        ObjectiveKind::NegativeCache => Box::new(negative_cache::NegativeCache { cache }),
        ObjectiveKind::Exact => Box::new(exact::Exact {
            max_images: config.exact_images,
        }),
    }
}
