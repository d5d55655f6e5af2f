//! ResNet-18 from a file, as kith runs it: convolutions with biases, and a head that leaves the features as they are.

use std::path::Path;

use kith_nn::{NamedArray, PLACES, PlacesPart};

use super::{
    Projection, ProjectionKind, WeightsError,
    error::printable,
    file,
    fold::{Norm, fold},
    keys::Layout,
    network::{Convolution, convolutions, features, layer},
    source::{Source, TowerSource},
};

/// Most values of all arrays of an encoder together. In a `.pth` they may share storage, so that a small file could ask for any number.
const MAX_VALUES: usize = 1 << 28;

/// The network of a file, and what else was in it.
#[derive(Clone, Debug)]
pub struct Weights {
    width: usize,
    /// Weights and biases of the convolutions under kith's names.
    network: Vec<NamedArray>,
    /// Weight and bias of kith's hidden layer, if the file is kith's.
    hidden: Option<[Vec<f32>; 2]>,
    own: Option<Projection>,
    /// Weights and biases of the parts of that projection that read places.
    places: Vec<(PlacesPart, [Vec<f32>; 2])>,
    dropped: Vec<String>,
    sha256: String,
    /// The positive's own network, if the file is kith's and holds two.
    positive: Option<Box<Self>>,
}

impl Weights {
    /// Reads a `.safetensors` or `.pth` file. Its content says which it is.
    ///
    /// # Errors
    /// [`WeightsError`] says what is wrong with it. At most 2²⁸ values of an encoder are read, 1 GiB as 32-bit floats. Beside them the storage
    /// of one array is in memory while it is converted: three times its bytes for numbers of 32 bits, ten times for numbers of 8. A safetensors file is
    /// in memory as a whole meanwhile.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let mut opened = file::open(path)?;
        Self::from_source(&mut *opened.source, opened.sha256, None)
    }

    /// [`Weights::read`] of a network that must have that width, which is checked before any array is read.
    ///
    /// # Errors
    /// [`WeightsError::Width`], and those of [`Weights::read`].
    pub fn read_width(path: &Path, width: usize) -> Result<Self, WeightsError> {
        let mut opened = file::open(path)?;
        Self::from_source(&mut *opened.source, opened.sha256, Some(width))
    }

    pub(super) fn from_source(
        file: &mut dyn Source,
        sha256: String,
        wanted: Option<usize>,
    ) -> Result<Self, WeightsError> {
        let mut weights = Self::from_tower(&mut TowerSource::anchor(file), sha256.clone(), wanted)?;
        if let Some(mut positive) = TowerSource::positive(file) {
            let positive = Self::from_tower(&mut positive, sha256, wanted)?;
            weights.positive = Some(Box::new(positive));
        }
        Ok(weights)
    }

    fn from_tower(
        file: &mut dyn Source,
        sha256: String,
        wanted: Option<usize>,
    ) -> Result<Self, WeightsError> {
        let layout = Layout::find(&file.shapes())?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != layout.width) {
            return Err(WeightsError::Width {
                found: layout.width,
                wanted,
            });
        }
        let values = layout.values();
        if values > MAX_VALUES {
            return Err(WeightsError::malformed(format!(
                "its arrays have {values} values, and at most {MAX_VALUES} are read"
            )));
        }
        let mut reader = Reader {
            file,
            layout: &layout,
        };
        let mut network = Vec::new();
        for conv in convolutions(layout.width) {
            network.extend(reader.convolution(&conv)?);
        }
        let hidden = layout.hidden.then(|| reader.pair("fc")).transpose()?;
        let own = layout.projection.map(|dim| {
            let [weight, bias] = reader.pair("projection")?;
            Ok::<_, WeightsError>(Projection {
                kind: ProjectionKind::Own,
                dim,
                weight,
                bias,
            })
        });
        let own = own.transpose()?;
        let places = layout.places.iter();
        let places = places.map(|part| Ok((*part, reader.pair(part.name)?)));
        let places = places.collect::<Result<_, WeightsError>>()?;
        Ok(Self {
            width: layout.width,
            network,
            hidden,
            own,
            places,
            dropped: layout.dropped,
            sha256,
            positive: None,
        })
    }

    /// Channels of the first stage; 64 is ResNet-18.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values of the features below the projection.
    pub fn features(&self) -> usize {
        features(self.width)
    }

    /// Keys of the file that are no part of the network, such as the head of a classifier: printable, and at most 64 of them before a count of the rest.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Whether the file is kith's and holds a network for each side.
    pub fn holds_two(&self) -> bool {
        self.positive.is_some()
    }

    /// The network of the positives, if the file is kith's and holds one for each side. Afterwards it is gone from here.
    pub fn take_positive(&mut self) -> Option<Self> {
        self.positive.take().map(|positive| *positive)
    }

    /// Hexadecimal SHA-256 of the file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The projection to `dim` values that needs no images: the file's own if it has so many, else the features themselves or a fixed orthogonal
    /// projection of them.
    pub fn projection(&self, dim: usize) -> Projection {
        match &self.own {
            Some(own) if own.dim == dim => own.clone(),
            _ => Projection::plain(self.features(), dim),
        }
    }

    /// All arrays of an encoder with this network and `projection`, as `Encoder::from_arrays` takes them.
    ///
    /// Between the two lies kith's hidden layer. Unless the file has one it is the identity, which with the ReLU after it changes nothing, since pooled
    /// features are never negative. Only the file's own projection may read places.
    pub fn into_arrays(self, projection: Projection) -> Vec<NamedArray> {
        let size = self.features();
        let [weight, bias] = self.hidden.unwrap_or_else(|| {
            let weight = Projection::plain(size, size).weight;
            [weight, vec![0.0; size]]
        });
        let mut arrays = self.network;
        arrays.extend(layer("fc", vec![size, size], weight, bias));
        let dim = projection.dim;
        let mut own = self.places;
        if projection.kind != ProjectionKind::Own {
            own.clear();
        }
        arrays.extend(layer(
            "projection",
            vec![dim, size],
            projection.weight,
            projection.bias,
        ));
        for part in PLACES {
            let shape = part.shape(self.width, dim).to_vec();
            let found = own.iter().position(|(own, _)| *own == part);
            let [weight, bias] = found.map_or_else(
                || [vec![0.0; shape.iter().product()], vec![0.0; dim]],
                |at| own.swap_remove(at).1,
            );
            arrays.extend(layer(part.name, shape, weight, bias));
        }
        arrays
    }

    /// [`Weights::into_arrays`] of a copy.
    pub fn arrays(&self, projection: &Projection) -> Vec<NamedArray> {
        self.clone().into_arrays(projection.clone())
    }
}

/// Reads arrays under the names of a layout.
struct Reader<'a> {
    file: &'a mut dyn Source,
    layout: &'a Layout,
}

impl Reader<'_> {
    /// The array of a key, which is finite.
    fn array(&mut self, key: &str) -> Result<Vec<f32>, WeightsError> {
        let name = self.layout.name(key).unwrap_or(key);
        let values = self.file.read(name)?;
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(WeightsError::NotFinite(printable(name)))
        }
    }

    fn pair(&mut self, layer: &str) -> Result<[Vec<f32>; 2], WeightsError> {
        let weight = self.array(&format!("{layer}.weight"))?;
        Ok([weight, self.array(&format!("{layer}.bias"))?])
    }

    fn norm(&mut self, layer: &str) -> Result<Norm, WeightsError> {
        let [weight, bias] = self.pair(layer)?;
        Ok(Norm {
            weight,
            bias,
            mean: self.array(&format!("{layer}.running_mean"))?,
            variance: self.array(&format!("{layer}.running_var"))?,
        })
    }

    /// The weight and bias of a convolution, with its BatchNorm folded in.
    fn convolution(&mut self, conv: &Convolution) -> Result<[NamedArray; 2], WeightsError> {
        let mut weight = self.array(&format!("{}.weight", conv.name))?;
        let bias_key = format!("{}.bias", conv.name);
        let has_bias = self.layout.name(&bias_key).is_some();
        let mut bias = has_bias.then(|| self.array(&bias_key)).transpose()?;
        if self.layout.normed {
            let norm = self.norm(&conv.norm)?;
            let folded = fold(&conv.name, weight, bias, &norm)?;
            (weight, bias) = (folded.0, Some(folded.1));
        }
        Ok([
            NamedArray {
                name: format!("{}.weight", conv.name),
                shape: conv.shape.to_vec(),
                data: weight,
            },
            NamedArray {
                name: bias_key,
                shape: vec![conv.outputs()],
                data: bias.unwrap_or_else(|| vec![0.0; conv.outputs()]),
            },
        ])
    }
}
