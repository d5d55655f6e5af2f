//! The settings that decisions about checkpoints follow.

use super::{gate::GateConfig, retention::Retention};

/// The settings that decisions follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `[gate]`.
    pub gate: GateConfig,
    /// `[retention]`.
    pub retention: Retention,
}
