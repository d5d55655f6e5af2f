//! Which keys of a file are ResNet-18's: prefixes go, heads of other tasks are left out, everything else must fit.

use std::collections::BTreeMap;

use kith_nn::{PLACES, PlacesPart};

use super::{
    KeyProblems, WeightsError,
    error::printable,
    network::{convolutions, features},
};

/// What training wrappers put before each key.
const PREFIXES: [&str; 3] = ["module.", "backbone.", "model."];
/// The arrays of a BatchNorm.
pub(super) const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
/// Counts of BatchNorm's updates, which no pass reads.
const COUNTS: &str = "num_batches_tracked";
/// Most keys that are named as left out. A classifier has two.
const MAX_DROPPED: usize = 64;
/// Channels of the first stage that are accepted.
const WIDTHS: std::ops::RangeInclusive<usize> = 8..=512;

type Shapes = BTreeMap<String, Vec<usize>>;

/// Where the parts of ResNet-18 are in a file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Channels of the first stage.
    pub(super) width: usize,
    /// Whether BatchNorms follow the convolutions.
    pub(super) normed: bool,
    /// Whether the file holds kith's hidden layer, `fc` below a projection.
    pub(super) hidden: bool,
    /// Values of the file's own projection.
    pub(super) projection: Option<usize>,
    /// The parts of that projection that read places.
    pub(super) places: Vec<PlacesPart>,
    /// The file's name of each key.
    names: BTreeMap<String, String>,
    /// Keys that are left out, in printable form; a last text counts those that are not named.
    pub(super) dropped: Vec<String>,
}

impl Layout {
    /// Finds ResNet-18 in a file with arrays of `shapes`.
    ///
    /// # Errors
    /// [`WeightsError::OtherNetwork`] or [`WeightsError::Keys`].
    pub(super) fn find(shapes: &Shapes) -> Result<Self, WeightsError> {
        let names = stripped(shapes)?;
        let shapes: Shapes = names
            .iter()
            .map(|(key, name)| (key.clone(), shapes[name].clone()))
            .collect();
        refuse_other_networks(&shapes)?;
        let width = shapes.get("conv1.weight").and_then(|shape| shape.first());
        let width = width.copied().unwrap_or(64);
        if !WIDTHS.contains(&width) {
            return Err(WeightsError::OtherNetwork(format!(
                "a network of {width} channels"
            )));
        }
        let normed = shapes.keys().any(|key| key.starts_with("bn1."));
        check(&shapes, width, normed)?;
        let projection = own_projection(&shapes, width);
        let size = features(width);
        let hidden = projection.is_some() && is_layer(&shapes, "fc", &[size, size]);
        let mut layout = Self {
            width,
            normed,
            hidden,
            projection,
            places: projection.map_or_else(Vec::new, |_| places(&shapes)),
            names,
            dropped: Vec::new(),
        };
        layout.dropped = layout.left_out();
        Ok(layout)
    }

    /// The file's name of a key.
    pub(super) fn name(&self, key: &str) -> Option<&str> {
        self.names.get(key).map(String::as_str)
    }

    /// Values in the weights that are read: of the convolutions, the hidden layer and the projection.
    pub(super) fn values(&self) -> usize {
        let convolutions = convolutions(self.width).into_iter();
        let network: usize = convolutions
            .map(|conv| conv.shape.iter().product::<usize>())
            .sum();
        let size = features(self.width);
        let hidden = if self.hidden { size * size } else { 0 };
        let places = self.places.iter().map(|part| part.values(self.width));
        let read = size + places.sum::<usize>();
        let head = self.projection.unwrap_or(0).saturating_mul(read);
        head.saturating_add(network + hidden)
    }

    fn left_out(&self) -> Vec<String> {
        let used = |key: &str| {
            is_network(key)
                || self.hidden && key.starts_with("fc.")
                || self.projection.is_some() && key.starts_with("projection.")
                || self.places.iter().any(|part| is_of(key, part.name))
        };
        let others = self.names.iter().filter(|(key, _)| !used(key));
        let count = others.clone().count();
        let named = others.take(MAX_DROPPED);
        let mut dropped: Vec<String> = named.map(|(_, name)| printable(name)).collect();
        if count > MAX_DROPPED {
            dropped.push(format!("and {} more", count - MAX_DROPPED));
        }
        dropped
    }
}

/// The file's name of each key without its prefixes.
fn stripped(shapes: &Shapes) -> Result<BTreeMap<String, String>, WeightsError> {
    let mut names = BTreeMap::new();
    for name in shapes.keys() {
        let mut key = name.as_str();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)) {
            key = rest;
        }
        if let Some(other) = names.insert(key.to_owned(), name.clone()) {
            return Err(WeightsError::malformed(format!(
                "{other} and {name} are the same array without their prefixes"
            )));
        }
    }
    Ok(names)
}

/// Whether a key belongs to the network below the head.
fn is_network(key: &str) -> bool {
    let stage = key
        .strip_prefix("layer")
        .and_then(|rest| rest.chars().next());
    let is_stage = stage.is_some_and(|stage| stage.is_ascii_digit());
    is_stage || key.starts_with("conv1.") || key.starts_with("bn1.")
}

/// Refuses what is clearly another network, by its name.
fn refuse_other_networks(shapes: &Shapes) -> Result<(), WeightsError> {
    let has = |key: &str| shapes.contains_key(key);
    let blocks: [usize; 4] = std::array::from_fn(|stage| {
        let block = |index: &usize| has(&format!("layer{}.{index}.conv1.weight", stage + 1));
        (0..).take_while(block).count()
    });
    let bottleneck = has("layer1.0.conv3.weight");
    let name = match (bottleneck, blocks) {
        _ if has("conv1.0.weight") => "a ResNet with a deep stem, such as timm's resnet18d".into(),
        (false, [3, 4, 6, 3]) => "ResNet-34".into(),
        (true, [3, 4, 6, 3]) => "ResNet-50, or a network of its form".into(),
        (true, [3, 4, 23, 3]) => "ResNet-101, or a network of its form".into(),
        (true, [3, 8, 36, 3]) => "ResNet-152, or a network of its form".into(),
        (false, [1, 1, 1, 1]) => "ResNet-10".into(),
        (true, _) => format!("a ResNet of bottleneck blocks, {blocks:?} a stage"),
        (false, _) if blocks.iter().any(|&count| count > 2) => {
            format!("a ResNet with {blocks:?} blocks a stage")
        }
        (false, _) => match shapes.get("conv1.weight").map(Vec::as_slice) {
            Some([_, _, 3, 3]) => "a ResNet for small images, whose stem is 3 x 3".into(),
            _ => return Ok(()),
        },
    };
    Err(WeightsError::OtherNetwork(name))
}

/// Compares the keys below the head with ResNet-18's.
fn check(shapes: &Shapes, width: usize, normed: bool) -> Result<(), WeightsError> {
    let (required, optional) = expected(width, normed);
    let mut problems = KeyProblems::default();
    for (key, wanted) in required.iter().chain(&optional) {
        match shapes.get(key) {
            None if required.contains_key(key) => problems.missing.push(key.clone()),
            Some(found) if found != wanted => {
                problems
                    .misshapen
                    .push(format!("{key} {found:?} (must be {wanted:?})"));
            }
            _ => {}
        }
    }
    let known = |key: &str| {
        required.contains_key(key) || optional.contains_key(key) || key.ends_with(COUNTS)
    };
    let others = shapes.keys().filter(|key| is_network(key) && !known(key));
    problems.unexpected.extend(others.cloned());
    if problems.is_empty() {
        Ok(())
    } else {
        Err(WeightsError::Keys(problems))
    }
}

/// The shapes of the keys below the head: those that must be there, and those that may.
fn expected(width: usize, normed: bool) -> (Shapes, Shapes) {
    let (mut required, mut optional) = (Shapes::new(), Shapes::new());
    for conv in convolutions(width) {
        required.insert(format!("{}.weight", conv.name), conv.shape.to_vec());
        let bias = (format!("{}.bias", conv.name), vec![conv.outputs()]);
        if normed {
            optional.extend([bias]);
            required
                .extend(NORM.map(|part| (format!("{}.{part}", conv.norm), vec![conv.outputs()])));
        } else {
            required.extend([bias]);
        }
    }
    (required, optional)
}

/// Values of a projection of the pooled features that comes with the network. Parts of it that read places must fit too.
fn own_projection(shapes: &Shapes, width: usize) -> Option<usize> {
    let dim = *shapes.get("projection.weight")?.first()?;
    let mut parts = places(shapes).into_iter();
    let places_fit = parts.all(|part| is_layer(shapes, part.name, &part.shape(width, dim)));
    let fits = places_fit && is_layer(shapes, "projection", &[dim, features(width)]);
    fits.then_some(dim)
}

/// The parts that read places of which there is an array.
fn places(shapes: &Shapes) -> Vec<PlacesPart> {
    let is_there = |part: &PlacesPart| shapes.keys().any(|key| is_of(key, part.name));
    PLACES.into_iter().filter(is_there).collect()
}

/// Whether `key` is that of an array of a layer.
fn is_of(key: &str, layer: &str) -> bool {
    key.strip_prefix(layer)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Whether the weight of layer `name` has `shape`, and its bias a value for each output.
fn is_layer(shapes: &Shapes, name: &str, shape: &[usize]) -> bool {
    let is = |part: &str, shape: &[usize]| {
        shapes.get(&format!("{name}.{part}")).map(Vec::as_slice) == Some(shape)
    };
    is("weight", shape) && is("bias", &shape[..1])
}
