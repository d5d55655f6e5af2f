//! The gradient's size, stage by stage.

use serde::{Deserialize, Serialize};

/// L2 norms of the gradient of each stage of the network, over both its weights and its biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageNorms {
    /// The first convolution; 0 where it is not trained.
    pub stem: f32,
    /// The blocks of the first stage, on activations of a quarter of the side.
    pub layer1: f32,
    /// The blocks of the second stage.
    pub layer2: f32,
    /// The blocks of the third stage.
    pub layer3: f32,
    /// The blocks of the fourth stage.
    pub layer4: f32,
    /// The hidden layer and the projection.
    pub head: f32,
}

impl StageNorms {
    /// Number of stages.
    pub(super) const COUNT: usize = 6;

    /// From norms in the order of the network.
    pub(super) fn new(norms: [f32; Self::COUNT]) -> Self {
        let [stem, layer1, layer2, layer3, layer4, head] = norms;
        Self {
            stem,
            layer1,
            layer2,
            layer3,
            layer4,
            head,
        }
    }

    /// Each stage by its name, in the order of the network.
    pub fn each(&self) -> [(&'static str, f32); Self::COUNT] {
        [
            ("stem", self.stem),
            ("layer1", self.layer1),
            ("layer2", self.layer2),
            ("layer3", self.layer3),
            ("layer4", self.layer4),
            ("head", self.head),
        ]
    }

    /// The norms of two encoders' gradients together.
    pub(super) fn with(&self, other: &Self) -> Self {
        let (mine, theirs) = (self.each(), other.each());
        let both = |stage: usize| mine[stage].1.hypot(theirs[stage].1);
        Self::new(std::array::from_fn(both))
    }

    /// The stage of a layer of torchvision's name, by its place among [`StageNorms::each`].
    pub(super) fn stage(layer: &str) -> usize {
        let prefix = layer.split('.').next().unwrap_or_default();
        match prefix {
            "conv1" => 0,
            "layer1" => 1,
            "layer2" => 2,
            "layer3" => 3,
            "layer4" => 4,
            _ => 5,
        }
    }
}
