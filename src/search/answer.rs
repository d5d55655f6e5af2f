//! Answers a search: chooses the space, makes the query a vector, scans, and names what was found.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use bytes::Bytes;

use super::{
    SearchError,
    query::{Answer, Found, Query, Question, unit_vector},
    shared::Shared,
    space::Space,
    spaces::Coverage,
};
use crate::{
    serve::{Priority, ServeError, Which},
    types::CheckpointId,
};
use kith_mcmc::{ImageKey, Side};
use kith_search::Hit;

/// A place among the searches that are answered or wait.
pub(super) struct QueryPlace<'a>(&'a AtomicUsize);

impl Drop for QueryPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    /// The stored images that are nearest.
    pub(super) async fn find(&self, query: Query) -> Result<Answer, SearchError> {
        let _place = self.admit()?;
        let _busy = self.stores.foreground.enter();
        let space = self.choose(&query).await?;
        let (vector, own) = self.vector(&space, &query).await?;
        let of = match &query.group {
            Some(group) => Some(self.stores.db.group_images(group).await?),
            None => None,
        };
        // One more than asked, in place of the image that the query names.
        let k = query.k + usize::from(own.is_some());
        let hits = self.nearest(space.clone(), vector, of, k).await?;
        let hits: Vec<Hit> = hits
            .into_iter()
            .filter(|hit| own.is_none_or(|own| own.0 != hit.key))
            .take(query.k)
            .collect();
        let stored = self.stores.db.count_images().await?;
        let live = self.stores.serving.live().map(|live| live.id);
        let next = live.filter(|live| *live != space.checkpoint());
        let next = next.map(|checkpoint| {
            let space = self.spaces.get(checkpoint);
            let coverage = space.map(|space| space.coverage(stored));
            coverage.unwrap_or(Coverage {
                checkpoint,
                share: 0.0,
            })
        });
        Ok(Answer {
            found: self.describe(&hits).await?,
            coverage: space.coverage(stored),
            next,
        })
    }

    pub(super) fn admit(&self) -> Result<QueryPlace<'_>, SearchError> {
        if !self.config.enabled {
            return Err(SearchError::Disabled);
        }
        let limit = self.config.queue_requests;
        let before = self.queries.fetch_add(1, SeqCst);
        let place = QueryPlace(&self.queries);
        if before >= limit {
            drop(place);
            return Err(SearchError::Overloaded(limit));
        }
        Ok(place)
    }

    /// The space that answers a query.
    async fn choose(&self, query: &Query) -> Result<Arc<Space>, SearchError> {
        let named = match (&query.question, query.checkpoint) {
            (_, Some(named)) => Some(named),
            // A caller's vector most likely comes from the live checkpoint; in another space it would be near to nothing.
            (Question::Vector(_), None) => Some(self.live()?),
            (_, None) => None,
        };
        self.named_or_answering(named).await
    }

    /// The space of a checkpoint, which is begun if there is none; or the one that answers where none is named.
    pub(super) async fn named_or_answering(
        &self,
        named: Option<CheckpointId>,
    ) -> Result<Arc<Space>, SearchError> {
        if !self.config.enabled {
            return Err(SearchError::Disabled);
        }
        let known = match named {
            None => self.spaces.answering(),
            Some(id) => self.spaces.get(id),
        };
        let space = match (known, named) {
            (Some(space), _) => space,
            (None, None) => self.begin_space(self.live()?, true).await?,
            (None, Some(id)) => {
                // Nothing is begun for one that does not load.
                self.stores.serving.model(Which::Pinned(id)).await?;
                let live = self.stores.serving.live();
                let is_live = live.is_some_and(|live| live.id == id);
                self.begin_space(id, is_live).await?
            }
        };
        space.note_use(self.spaces.next_use(), named.is_some());
        self.changed.notify_one();
        Ok(space)
    }

    fn live(&self) -> Result<CheckpointId, SearchError> {
        let live = self.stores.serving.live();
        let live = live.ok_or(ServeError::NotReady)?;
        Ok(live.id)
    }

    /// The query as a unit vector, and the stored image that it is.
    async fn vector(
        &self,
        space: &Arc<Space>,
        query: &Query,
    ) -> Result<(Vec<f32>, Option<ImageKey>), SearchError> {
        match &query.question {
            Question::Vector(vector) => {
                let dim = space.index().dim();
                Ok((unit_vector(vector, dim)?, None))
            }
            Question::Image(image) => {
                let vector = self.embed(space, image.clone(), query.priority).await?;
                Ok((vector, None))
            }
            Question::Stored(id) => {
                let row = self.stores.db.image(*id).await?;
                let key = row.ok_or(SearchError::UnknownImage(*id))?.key;
                let known = space.index().get(key.0).map(<[f32]>::to_vec);
                if let Some(vector) = known.filter(|_| space.queries_are_alike()) {
                    return Ok((vector, Some(key)));
                }
                let bytes = self.stores.images.read(*id).await?;
                let bytes = bytes.ok_or(SearchError::UnknownImage(*id))?;
                let vector = self.embed(space, bytes, query.priority).await?;
                Ok((vector, Some(key)))
            }
        }
    }

    async fn embed(
        &self,
        space: &Space,
        image: Bytes,
        priority: Option<Priority>,
    ) -> Result<Vec<f32>, SearchError> {
        // A query is an anchor: with an encoder for each side, stored images are embedded by the positives'.
        let which = (Which::Pinned(space.checkpoint()), Side::Anchor);
        let embedded = self
            .stores
            .serving
            .embed(which, vec![image], priority)
            .await?;
        let row = embedded.rows.into_iter().next();
        let row = row.ok_or_else(|| SearchError::Thread("no vector came".to_owned()))?;
        Ok(row.embedding.clone())
    }

    /// The nearest in a space, among the images `of` if given. Scans on the pool.
    async fn nearest(
        &self,
        space: Arc<Space>,
        vector: Vec<f32>,
        of: Option<Vec<ImageKey>>,
        k: usize,
    ) -> Result<Vec<Hit>, SearchError> {
        let (pool, began) = (self.pool.clone(), Instant::now());
        // The lock is held here and not in the pool, whose threads take up other searches while they wait.
        let search = tokio::task::spawn_blocking(move || {
            let index = space.index();
            pool.install(|| match of {
                None => index.nearest(&vector, k),
                Some(of) => {
                    let keys: Vec<u32> = of.into_iter().map(|key| key.0).collect();
                    index.nearest_of(&keys, &vector, k)
                }
            })
        });
        let hits = search.await;
        self.instruments
            .seconds
            .record(began.elapsed().as_secs_f64());
        hits.map_err(|error| SearchError::Thread(error.to_string()))
    }

    /// Hits as callers know them, without images that were erased meanwhile.
    async fn describe(&self, hits: &[Hit]) -> Result<Vec<Found>, SearchError> {
        let keys: Vec<ImageKey> = hits.iter().map(|hit| ImageKey(hit.key)).collect();
        let images = self.stores.db.image_groups(&keys).await?;
        let found = hits.iter().zip(images).filter_map(|(hit, image)| {
            let (id, group) = image?;
            Some(Found {
                id,
                score: hit.score,
                group,
            })
        });
        Ok(found.collect())
    }
}
