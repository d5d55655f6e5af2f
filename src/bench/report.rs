//! Cells and their figures as rows, for tables and for JSON.

use serde::{Deserialize, Serialize};

use super::{Cell, DecodeStage, Figure, Pass};

/// All rows, a list for each kind of cell. Rates and times are medians unless they say `best`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The processor's peak.
    pub peak: Vec<PeakRow>,
    /// Embeddings.
    pub forward: Vec<ForwardRow>,
    /// Training steps.
    pub train: Vec<TrainRow>,
    /// Single layers.
    pub layers: Vec<LayerRow>,
    /// Visits of a batch's chains.
    pub walk: Vec<WalkRow>,
    /// Images made ready.
    pub decode: Vec<DecodeRow>,
}

/// Multiply-adds on registers alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeakRow {
    /// Threads of the pool.
    pub threads: usize,
    /// 10⁹ multiplications and additions a second, at best.
    pub gflops: f64,
}

/// Pixels to embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForwardRow {
    /// Pixels across.
    pub side: usize,
    /// Images at once.
    pub batch: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// Images a second.
    pub images_per_second: f64,
    /// Of the fastest run.
    pub best_images_per_second: f64,
    /// Processor time of all threads.
    pub processor_ms_per_image: Option<f64>,
}

/// Training steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainRow {
    /// Pixels across.
    pub side: usize,
    /// Pairs at once: half as many as images.
    pub pairs: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// Images a second, two a pair.
    pub images_per_second: f64,
    /// Of the fastest step.
    pub best_images_per_second: f64,
    /// Processor time of all threads.
    pub processor_ms_per_image: Option<f64>,
    /// Peak memory of training: weights, moments, batch, maps, gradients. Linux only.
    pub peak_bytes: Option<u64>,
}

/// One layer alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRow {
    /// The first layer of this shape.
    pub layer: String,
    /// Layers of this shape in the network.
    pub times: usize,
    /// Pixels across of the network's input.
    pub side: usize,
    /// Images at once.
    pub batch: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// Which way.
    pub pass: Pass,
    /// 10⁹ multiplications and additions that the layer's definition has for the batch.
    pub gflop: f64,
    /// Milliseconds for the batch.
    pub ms: f64,
    /// Of the fastest run.
    pub best_ms: f64,
    /// `gflop` in the median time, of what the peak would do in it; above 1 where a method does with fewer products.
    pub share_of_peak: Option<f64>,
}

/// A visit of each anchor of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalkRow {
    /// Pairs at once: half as many as anchors.
    pub pairs: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// Milliseconds for the batch.
    pub ms: f64,
    /// Of the fastest run.
    pub best_ms: f64,
}

/// A part of making a 640 × 480 image ready, on one thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeRow {
    /// Which part.
    pub part: DecodeStage,
    /// Pixels across of what the encoder sees.
    pub side: usize,
    /// Milliseconds an image.
    pub ms: f64,
    /// Of the fastest run.
    pub best_ms: f64,
}

impl Report {
    /// The rows of measured cells, in their order. A layer's share needs a peak of as many threads among them.
    pub fn new(measured: &[(Cell, Figure)]) -> Self {
        let mut report = Self::default();
        for (cell, figure) in measured {
            report.add(cell, figure);
        }
        for row in &mut report.layers {
            let peak = report.peak.iter().find(|peak| peak.threads == row.threads);
            row.share_of_peak = peak.map(|peak| row.gflop / (row.ms / 1e3) / peak.gflops);
        }
        report
    }

    fn add(&mut self, cell: &Cell, figure: &Figure) {
        let (ms, best_ms) = (figure.seconds * 1e3, figure.best_seconds * 1e3);
        match *cell {
            Cell::Peak { threads } => self.peak.push(PeakRow {
                threads,
                gflops: 2e-9 * cell.multiply_adds() as f64 / figure.best_seconds,
            }),
            Cell::Forward {
                side,
                batch,
                threads,
            } => self.forward.push(ForwardRow {
                side,
                batch,
                threads,
                images_per_second: batch as f64 / figure.seconds,
                best_images_per_second: batch as f64 / figure.best_seconds,
                processor_ms_per_image: figure.processor_seconds.map(|s| s * 1e3 / batch as f64),
            }),
            Cell::Train {
                side,
                pairs,
                threads,
            } => self.train.push(TrainRow::new(side, pairs, threads, figure)),
            Cell::Layer {
                ref shape,
                pass,
                side,
                batch,
                threads,
            } => self.layers.push(LayerRow {
                layer: shape.name().to_owned(),
                times: shape.times,
                side,
                batch,
                threads,
                pass,
                gflop: 2e-9 * cell.multiply_adds() as f64,
                ms,
                best_ms,
                share_of_peak: None,
            }),
            Cell::Walk { pairs, threads } => self.walk.push(WalkRow {
                pairs,
                threads,
                ms,
                best_ms,
            }),
            Cell::Decode { part, side } => self.decode.push(DecodeRow {
                part,
                side,
                ms,
                best_ms,
            }),
        }
    }
}

impl TrainRow {
    fn new(side: usize, pairs: usize, threads: usize, figure: &Figure) -> Self {
        let images = 2.0 * pairs as f64;
        Self {
            side,
            pairs,
            threads,
            images_per_second: images / figure.seconds,
            best_images_per_second: images / figure.best_seconds,
            processor_ms_per_image: figure.processor_seconds.map(|s| s * 1e3 / images),
            peak_bytes: figure.peak_bytes,
        }
    }

    /// The figure that the row was made of.
    pub fn figure(&self) -> Figure {
        let images = 2.0 * self.pairs as f64;
        Figure {
            seconds: images / self.images_per_second,
            best_seconds: images / self.best_images_per_second,
            processor_seconds: self.processor_ms_per_image.map(|ms| ms * images / 1e3),
            peak_bytes: self.peak_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_nn::{EncoderConfig, layer_shapes};

    fn figure(seconds: f64) -> Figure {
        Figure {
            seconds,
            best_seconds: seconds / 2.0,
            processor_seconds: Some(2.0 * seconds),
            peak_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn a_layers_share_is_that_of_the_peak_with_as_many_threads() {
        let config = EncoderConfig {
            width: 64,
            side: 96,
            dim: 128,
            towers: 1,
        };
        let shape = layer_shapes(&config).swap_remove(1);
        assert_eq!((shape.name(), shape.times), ("layer1.0.conv1", 4));
        let layer = |threads| Cell::Layer {
            shape: shape.clone(),
            pass: Pass::Backward,
            side: 96,
            batch: 2,
            threads,
        };
        let peak = (Cell::Peak { threads: 2 }, figure(0.5));
        let report = Report::new(&[(layer(2), figure(0.5)), (layer(1), figure(0.5)), peak]);
        // Two gradients of two images: 24 × 24 places, 9 × 64 × 64 weights, a multiplication and an addition for each.
        let gflop = 8.0 * 24.0 * 24.0 * 9.0 * 64.0 * 64.0 / 1e9;
        assert!((report.layers[0].gflop - gflop).abs() < 1e-12);
        let share = gflop / 0.5 / report.peak[0].gflops;
        assert!((report.layers[0].share_of_peak.unwrap() - share).abs() < 1e-12);
        assert_eq!(report.layers[1].share_of_peak, None);
    }

    #[test]
    fn a_training_row_gives_its_figure_back() {
        let row = TrainRow::new(96, 8, 2, &figure(0.25));
        assert_eq!(row.images_per_second, 64.0);
        assert_eq!(row.figure(), figure(0.25));
    }
}
