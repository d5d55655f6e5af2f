//! Vectors placed in the plane: t-SNE (van der Maaten and Hinton 2008) on the graph of nearest neighbours by cosine, begun from the principal
//! components or from an earlier map.

use bhtsne::{Neighbor, tSNE};
use rayon::prelude::*;

use crate::{index::Index, nearest::Key, principal, progress::Progress, table::Table};

/// Effective number of neighbours that each vector attracts.
const PERPLEXITY: usize = 20;
/// Vectors from which on neighbours are found by a graph.
const MAX_SCANNED: usize = 20_000;
/// Fewer vectors have too few neighbours to be arranged: they stay at their principal components.
const MIN_ARRANGED: usize = 10;
const EPOCHS: usize = 500;
/// Standard deviation of the start, from which the method unfolds.
const START_SPREAD: f32 = 1e-4;

/// A place on the map: across and up, each from -1 to 1.
pub type Place = [f32; 2];

/// A copy of vectors at one moment.
pub struct ProjectionInput(Table);

impl ProjectionInput {
    /// How many of `vectors` a copy of at most `max` has.
    pub fn size(vectors: usize, max: usize) -> usize {
        vectors.div_ceil(stride(vectors, max))
    }
}

/// One in so many vectors is chosen, so that at most `max` are.
fn stride(vectors: usize, max: usize) -> usize {
    vectors.div_ceil(max.max(1)).max(1)
}

impl Index {
    /// A copy of at most `max` vectors, evenly chosen by key.
    pub fn projection_input(&self, max: usize) -> ProjectionInput {
        let mut keys: Vec<Key> = self.keys().collect();
        keys.sort_unstable();
        let step = stride(keys.len(), max);
        let mut table = Table::new(self.dim());
        for key in keys.into_iter().step_by(step) {
            if let Some(vector) = self.get(key) {
                table.insert(key, vector);
            }
        }
        ProjectionInput(table)
    }
}

impl ProjectionInput {
    /// Places the vectors, in the current pool of threads: minutes for a hundred thousand. `earlier` gives places on an earlier map: what lies on
    /// both then hardly moves without a reason. `progress` is told shares from 0 to 1.
    pub fn project(
        self,
        earlier: &dyn Fn(Key) -> Option<Place>,
        progress: &dyn Fn(f32),
    ) -> Vec<(Key, Place)> {
        let table = self.0;
        let keys: Vec<Key> = (0..table.len()).map(|row| table.key(row)).collect();
        let known: Vec<Option<Place>> = keys.iter().map(|key| earlier(*key)).collect();
        let mut places = start(&table, &known);
        if keys.len() >= MIN_ARRANGED {
            let neighbours = neighbours(table);
            progress(0.1);
            places = arrange(&places, &neighbours, &|share| progress(0.1 + 0.9 * share));
        }
        scale(&mut places);
        turn(&mut places, &known);
        keys.into_iter().zip(places).collect()
    }
}

/// Earlier places where most are known, the others beside the middle; else the principal components.
fn start(table: &Table, known: &[Option<Place>]) -> Vec<Place> {
    if known.iter().flatten().count() * 2 > known.len() {
        // Not all in one point, where nothing would push them apart.
        let middle = |row: usize| [1e-3 * (row % 31) as f32, 1e-3 * (row % 17) as f32];
        let places = known.iter().enumerate();
        return places
            .map(|(row, place)| place.unwrap_or_else(|| middle(row)))
            .collect();
    }
    principal::coordinates(table.values(), table.dim())
}

/// The nearest of each row, with the distance of unit vectors; all rows have equally many.
fn neighbours(table: Table) -> Vec<Vec<Neighbor<f32>>> {
    let count = (3 * PERPLEXITY).min(table.len() - 1);
    let rows = table.len();
    let mut index = Index::new(table.dim());
    // Rows as keys: the method counts from 0.
    for row in 0..rows {
        index.insert(row as Key, table.row(row));
    }
    if rows > MAX_SCANNED
        && let Some(input) = index.graph_input(0)
    {
        index.set_graph(input.build(&Progress::default()));
    }
    let nearest = |row: usize| {
        let hits = index.nearest(table.row(row), count + 1).into_iter();
        let others = hits.filter(|hit| hit.key as usize != row);
        let mut found: Vec<Neighbor<f32>> = others
            .take(count)
            .map(|hit| Neighbor {
                index: hit.key as usize,
                distance: (2.0 - 2.0 * hit.score).max(0.0).sqrt(),
            })
            .collect();
        // A graph may miss some: any others, as far away as can be, attract nothing.
        let mut filler = (0..rows).filter(|other| *other != row);
        while found.len() < count {
            let Some(other) = filler.next() else { break };
            if found.iter().all(|neighbour| neighbour.index != other) {
                found.push(Neighbor {
                    index: other,
                    distance: 2.0,
                });
            }
        }
        found
    };
    (0..rows).into_par_iter().map(nearest).collect()
}

fn arrange(
    places: &[Place],
    neighbours: &[Vec<Neighbor<f32>>],
    progress: &dyn Fn(f32),
) -> Vec<Place> {
    let spread = (places.iter().map(|place| place[0].powi(2)).sum::<f32>() / places.len() as f32)
        .sqrt()
        .max(f32::MIN_POSITIVE);
    let start: Vec<f32> = places
        .iter()
        .flatten()
        .map(|value| value / spread * START_SPREAD)
        .collect();
    // The method reads neighbours only; what it counts are rows.
    let rows: Vec<usize> = (0..places.len()).collect();
    let perplexity = PERPLEXITY.min((places.len() - 1) / 3) as f32;
    let mut method: tSNE<f32, usize, 2> = tSNE::new(&rows);
    method
        .perplexity(perplexity)
        .epochs(EPOCHS)
        .learning_rate((places.len() as f32 / 12.0).max(50.0))
        .initial_embedding(start)
        .epoch_callback(|epoch, _| progress(epoch as f32 / EPOCHS as f32))
        .fit_sne_with_neighbors(neighbours);
    method.embedding().as_chunks::<2>().0.to_vec()
}

/// Centres the places and scales them to -1 to 1.
fn scale(places: &mut [Place]) {
    let count = places.len().max(1) as f32;
    for axis in 0..2 {
        let mean = places.iter().map(|place| place[axis]).sum::<f32>() / count;
        places.iter_mut().for_each(|place| place[axis] -= mean);
    }
    let largest = places.iter().flatten().fold(0.0_f32, |a, b| a.max(b.abs()));
    if largest > 0.0 {
        let values = places.iter_mut().flatten();
        values.for_each(|value| *value /= largest);
    }
}

/// Turns and mirrors the map so that it lies on the earlier one as well as it can: neither means anything.
fn turn(places: &mut [Place], known: &[Option<Place>]) {
    let best = |mirror: f32| {
        let (mut along, mut across) = (0.0_f64, 0.0_f64);
        for (place, known) in places.iter().zip(known) {
            let Some(known) = known else { continue };
            let [x, y] = [place[0], mirror * place[1]].map(f64::from);
            let [u, v] = known.map(f64::from);
            along += x * u + y * v;
            across += x * v - y * u;
        }
        (along.hypot(across), across.atan2(along))
    };
    let (plain, mirrored) = (best(1.0), best(-1.0));
    let (mirror, (_, angle)) = if plain.0 >= mirrored.0 {
        (1.0, plain)
    } else {
        (-1.0, mirrored)
    };
    let (sine, cosine) = (angle.sin() as f32, angle.cos() as f32);
    for place in places.iter_mut() {
        let [x, y] = [place[0], mirror * place[1]];
        *place = [cosine * x - sine * y, sine * x + cosine * y];
    }
    // A turn may have brought a corner beyond the edge.
    let largest = places.iter().flatten().fold(0.0_f32, |a, b| a.max(b.abs()));
    if largest > 1.0 {
        places
            .iter_mut()
            .flatten()
            .for_each(|value| *value /= largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_was_turned_and_mirrored_lies_on_the_earlier_one_again() {
        let earlier: Vec<Place> = vec![[0.5, 0.1], [-0.4, 0.3], [0.1, -0.6], [-0.2, -0.1]];
        let known: Vec<Option<Place>> = earlier.iter().copied().map(Some).collect();
        let (sine, cosine) = 2.1_f32.sin_cos();
        let mut places: Vec<Place> = earlier
            .iter()
            .map(|[x, y]| [cosine * x + sine * y, sine * x - cosine * y])
            .collect();
        turn(&mut places, &known);
        for (place, earlier) in places.iter().flatten().zip(earlier.iter().flatten()) {
            assert!((place - earlier).abs() < 1e-5, "{places:?}");
        }
    }
}
