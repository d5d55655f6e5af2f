//! Chooses the cells of a bench from what a caller asks for.

use std::{num::NonZeroUsize, thread};

use super::{Cell, DecodeStage, Pass, Setup};
use kith_nn::{EncoderConfig, NnError, layer_shapes};

/// The kinds of cells that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Embeddings.
    Forward,
    /// Training steps.
    Train,
    /// Single layers, and the processor's peak; on a CPU only.
    Layers,
    /// Visits of a batch's chains.
    Walk,
    /// Images made ready.
    Decode,
}

impl Kind {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 5] = [
        Self::Forward,
        Self::Train,
        Self::Layers,
        Self::Walk,
        Self::Decode,
    ];
}

/// What is wanted; an empty list leaves the choice to the kind of cell.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Empty: all.
    pub kinds: Vec<Kind>,
    /// Pixels across.
    pub sides: Vec<usize>,
    /// Images, in training and walks pairs, at once.
    pub batches: Vec<usize>,
    /// Threads of the pool.
    pub threads: Vec<usize>,
}

/// Sides, batches and threads for which a kind is measured if nothing else is wanted.
type Usual<'a> = (&'a [usize], &'a [usize], &'a [usize]);

impl Plan {
    /// The cells in the order of [`Kind::ALL`]. An error if a side or the network cannot be used.
    pub fn cells(&self, setup: &Setup) -> Result<Vec<Cell>, NnError> {
        let wanted = Kind::ALL.iter().filter(|kind| {
            (self.kinds.is_empty() || self.kinds.contains(kind))
                && (**kind != Kind::Layers || setup.device.is_cpu())
        });
        let kinds: Vec<_> = wanted.map(|kind| self.of_kind(*kind, setup)).collect();
        Ok(kinds.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn of_kind(&self, kind: Kind, setup: &Setup) -> Result<Vec<Cell>, NnError> {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (own, cores) = ([setup.encoder.side], [cores]);
        let one_and_all = [1, cores[0]];
        let usual: Usual = match kind {
            Kind::Forward if cores[0] > 1 => (&[96, 224], &[1, 8, 32], &one_and_all),
            Kind::Forward => (&[96, 224], &[1, 8, 32], &cores),
            Kind::Train => (&[64, 96], &[8, 32, 64], &cores),
            Kind::Layers => (&own, &[32], &cores),
            Kind::Walk => (&own, &[8, 32, 64], &cores),
            Kind::Decode => (&own, &[1], &[1]),
        };
        let mut cells = Vec::new();
        for (side, batch, threads) in self.grid(usual) {
            let config = EncoderConfig {
                side,
                ..setup.encoder.clone()
            };
            config.validate()?;
            add(kind, &config, [batch, threads], &mut cells);
        }
        Ok(cells)
    }

    fn grid(&self, usual: Usual) -> Vec<(usize, usize, usize)> {
        fn or<'a>(wanted: &'a [usize], usual: &'a [usize]) -> &'a [usize] {
            if wanted.is_empty() { usual } else { wanted }
        }
        let (batches, threads) = (or(&self.batches, usual.1), or(&self.threads, usual.2));
        let mut grid = Vec::new();
        for side in or(&self.sides, usual.0) {
            for batch in batches {
                grid.extend(threads.iter().map(|threads| (*side, *batch, *threads)));
            }
        }
        grid
    }
}

/// Adds the cells of a kind that are not there yet: some depend on fewer numbers than others.
fn add(kind: Kind, config: &EncoderConfig, [batch, threads]: [usize; 2], cells: &mut Vec<Cell>) {
    let side = config.side;
    let mut found = match kind {
        Kind::Forward => vec![Cell::Forward {
            side,
            batch,
            threads,
        }],
        Kind::Train => vec![Cell::Train {
            side,
            pairs: batch,
            threads,
        }],
        Kind::Layers => vec![Cell::Peak { threads }],
        Kind::Walk => vec![Cell::Walk {
            pairs: batch,
            threads,
        }],
        Kind::Decode => DecodeStage::ALL
            .map(|part| Cell::Decode { part, side })
            .to_vec(),
    };
    if kind == Kind::Layers {
        for shape in layer_shapes(config) {
            found.extend([Pass::Forward, Pass::Backward].map(|pass| Cell::Layer {
                shape: shape.clone(),
                pass,
                side,
                batch,
                threads,
            }));
        }
    }
    found.retain(|cell| !cells.contains(cell));
    cells.extend(found);
}
