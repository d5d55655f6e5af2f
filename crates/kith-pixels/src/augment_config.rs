//! The settings of augmentation: probabilities and ranges, and what they must be.

use serde::{Deserialize, Serialize};

/// A complete set of values of [`AugmentConfig`], for one kind of image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Photographs.
    Photo,
    /// Emoji, icons, stickers and logos.
    Icon,
    /// Scanned or photographed pages.
    Document,
    /// Goods, often cut out.
    Product,
}

impl Preset {
    /// All, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Photo, Self::Icon, Self::Document, Self::Product];

    /// The preset's name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Photo => "photo",
            Self::Icon => "icon",
            Self::Document => "document",
            Self::Product => "product",
        }
    }
}

/// Probabilities and ranges of the training augmentation. An operation whose probability is 0 takes no random number, unless it says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// The preset that the values began from. Only the values below change views.
    pub preset: Preset,
    /// Smallest share of the image's area that a random crop keeps (largest is 1).
    pub crop_min_area: f32,
    /// Probability of a horizontal flip; takes a random number at 0, too.
    pub flip: f32,
    /// Probability of colour jitter; takes a random number at 0, too.
    pub jitter: f32,
    /// Ranges of colour jitter: brightness, contrast, saturation, hue (the last at most 0.5).
    pub jitter_strength: [f32; 4],
    /// Probability of dropping colour; takes a random number at 0, too.
    pub greyscale: f32,
    /// Probability of a Gaussian blur (σ uniform in 0.1–2 pixels, kernel 10 % of the side); takes a random number at 0, too.
    pub blur: f32,
    /// Probability of a random background under transparent parts.
    pub background: f32,
    /// Share of the random backgrounds that are textures: a gradient, stripes, checks or noise. The others are one colour.
    pub background_texture: f32,
    /// Probability of an affine change: turn, scale, shift and shear at once.
    pub affine: f32,
    /// Largest turn in degrees, either way.
    pub affine_degrees: f32,
    /// Smallest and largest scale, log-uniform; below 1 the image gets smaller.
    pub affine_scale: [f32; 2],
    /// Largest shift either way, as a share of the side, across and down.
    pub affine_shift: f32,
    /// Largest horizontal shear in degrees, either way.
    pub affine_shear: f32,
    /// Probability of a palette shift: the hue turns, or the channels are partly permuted.
    pub palette: f32,
    /// How far a palette shift goes: the share of the half colour circle, and of the permuted channels.
    pub palette_strength: f32,
    /// Probability of posterising.
    pub posterise: f32,
    /// Fewest and most levels of a posterised channel.
    pub posterise_levels: [u8; 2],
    /// Probability of an outline.
    pub outline: f32,
    /// Largest width of an outline as a share of the side; one pixel at least.
    pub outline_width: f32,
    /// Probability of a round trip through JPEG.
    pub jpeg: f32,
    /// Lowest and highest quality of that JPEG, 1 to 100.
    pub jpeg_quality: [u8; 2],
}

impl AugmentConfig {
    /// No operation at all: a view is the whole image, or its centre where it is not square.
    pub fn none() -> Self {
        Self {
            preset: Preset::Photo,
            crop_min_area: 1.0,
            flip: 0.0,
            jitter: 0.0,
            jitter_strength: [0.0; 4],
            greyscale: 0.0,
            blur: 0.0,
            background: 0.0,
            background_texture: 0.5,
            affine: 0.0,
            affine_degrees: 0.0,
            affine_scale: [1.0; 2],
            affine_shift: 0.0,
            affine_shear: 0.0,
            palette: 0.0,
            palette_strength: 0.5,
            posterise: 0.0,
            posterise_levels: [3, 8],
            outline: 0.0,
            outline_width: 0.04,
            jpeg: 0.0,
            jpeg_quality: [30, 90],
        }
    }

    /// Whether some operation needs to know which parts are transparent.
    pub fn uses_alpha(&self) -> bool {
        self.background > 0.0 || self.outline > 0.0
    }

    /// Settings that are out of range, and what they must be.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut broken = self.broken_probabilities();
        broken.extend(self.broken_ranges());
        broken
    }

    fn broken_probabilities(&self) -> Vec<(&'static str, &'static str)> {
        let probabilities = [
            ("flip", self.flip),
            ("jitter", self.jitter),
            ("greyscale", self.greyscale),
            ("blur", self.blur),
            ("background", self.background),
            ("background_texture", self.background_texture),
            ("affine", self.affine),
            ("palette", self.palette),
            ("posterise", self.posterise),
            ("outline", self.outline),
            ("jpeg", self.jpeg),
        ];
        let broken = probabilities
            .into_iter()
            .filter(|(_, value)| !(0.0..=1.0).contains(value));
        broken
            .map(|(key, _)| (key, "a probability from 0 to 1"))
            .collect()
    }

    fn broken_ranges(&self) -> Vec<(&'static str, &'static str)> {
        let strength = self.jitter_strength;
        let jitter = strength.iter().all(|range| (0.0..=1.0).contains(range)) && strength[3] <= 0.5;
        let [min_scale, max_scale] = self.affine_scale;
        let scale = (0.25..=4.0).contains(&min_scale) && (min_scale..=4.0).contains(&max_scale);
        let [min_levels, max_levels] = self.posterise_levels;
        let [min_quality, max_quality] = self.jpeg_quality;
        let quality = min_quality >= 1 && (min_quality..=100).contains(&max_quality);
        let up_to = |value: f32, largest: f32| (0.0..=largest).contains(&value);
        let scales = "two values from 0.25 to 4, the smaller first";
        let levels = "two whole numbers from 2 to 255, the smaller first";
        let qualities = "two whole numbers from 1 to 100, the smaller first";
        let strengths = "four values from 0 to 1, the last (hue) at most 0.5";
        let area = self.crop_min_area > 0.0 && self.crop_min_area <= 1.0;
        let (turn, shear) = (self.affine_degrees, self.affine_shear);
        let enough_levels = min_levels >= 2 && min_levels <= max_levels;
        let rules = [
            (area, "crop_min_area", "above 0 and at most 1"),
            (jitter, "jitter_strength", strengths),
            (up_to(turn, 180.0), "affine_degrees", "from 0 to 180"),
            (scale, "affine_scale", scales),
            (
                up_to(self.affine_shift, 0.5),
                "affine_shift",
                "from 0 to 0.5",
            ),
            (up_to(shear, 45.0), "affine_shear", "from 0 to 45"),
            (
                up_to(self.palette_strength, 1.0),
                "palette_strength",
                "from 0 to 1",
            ),
            (enough_levels, "posterise_levels", levels),
            (
                up_to(self.outline_width, 0.2),
                "outline_width",
                "from 0 to 0.2",
            ),
            (quality, "jpeg_quality", qualities),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        broken.map(|(_, key, expected)| (key, expected)).collect()
    }
}
