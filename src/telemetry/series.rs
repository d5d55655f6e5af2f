//! Every series of `GET /metrics`: its name, its meaning, and the bounds of its buckets. Nothing else names a series.

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    /// A value of the moment.
    Gauge,
    /// A distribution, with these upper bounds.
    Histogram(&'static [f64]),
}

/// A series; with labels it is a family of them.
#[derive(Debug)]
pub struct Series {
    /// Its name, as Prometheus' conventions have it: base units, `_total` for counters.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
}

/// Seconds of a whole request.
const REQUEST_SECONDS: &[f64] = &[
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Seconds of one stage of an image.
const STAGE_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Seconds from a cause to its effect on what is learned and served: up to a day.
const EFFECT_SECONDS: &[f64] = &[
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0,
];

const IMAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

macro_rules! series {
    ($($id:ident = $name:literal, $kind:expr, $help:literal;)*) => {
        $(#[doc = $help] pub static $id: Series = Series { name: $name, kind: $kind, help: $help };)*

        /// All of them.
        pub static ALL: &[&Series] = &[$(&$id),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

series! {
    HTTP_REQUESTS = "kith_http_requests_total", Counter, "Requests by route template, method and status; \"aborted\" where the client left first";
    HTTP_SECONDS = "kith_http_request_duration_seconds", Histogram(REQUEST_SECONDS), "Time from a request's head to the head of its answer";
    HTTP_IN_FLIGHT = "kith_http_requests_in_flight", Gauge, "Requests whose answer has not begun";
    HTTP_REFUSALS = "kith_http_refusals_total", Counter, "Error answers by their code";
    HTTP_CONNECTIONS = "kith_http_connections", Gauge, "Open connections";
    HTTP_BODY_BYTES = "kith_http_body_bytes", Gauge, "Bytes of request bodies in memory";
    HTTP_BODY_LIMIT = "kith_http_body_limit_bytes", Gauge, "server.max_buffered_bytes";

    SERVING_READY = "kith_serving_ready", Gauge, "1 if a checkpoint is loaded";
    SERVING_WAITING = "kith_serving_waiting_images", Gauge, "Images accepted and not yet answered";
    SERVING_WAITING_LIMIT = "kith_serving_waiting_limit_images", Gauge, "serving.queue_images";
    SERVING_QUEUE = "kith_serving_queue_seconds", Histogram(STAGE_SECONDS), "Time that an image waits for a stage: decode or encode";
    SERVING_DECODE = "kith_serving_decode_seconds", Histogram(STAGE_SECONDS), "Time to decode and resize an image";
    SERVING_ENCODE = "kith_serving_encode_seconds", Histogram(STAGE_SECONDS), "Time of a pass of the encoder, whatever its number of images";
    SERVING_BATCH = "kith_serving_batch_images", Histogram(IMAGES), "Images of a pass of the encoder";
    CACHE_HITS = "kith_vector_cache_hits_total", Counter, "Images whose vectors were in the cache, or being made for another request";
    CACHE_MISSES = "kith_vector_cache_misses_total", Counter, "Images that were encoded";
    CACHE_BYTES = "kith_vector_cache_bytes", Gauge, "Bytes of the vector cache";

    SEARCH_SECONDS = "kith_search_seconds", Histogram(STAGE_SECONDS), "Time to find the nearest vectors, once the query's is there";
    SEARCH_EMBEDDED = "kith_search_embedded_images_total", Counter, "Stored images that were embedded for search";
    SEARCH_INDEXED = "kith_search_indexed_ratio", Gauge, "Share of the stored images whose vectors are there, under the checkpoint that answers and the next one";
    SEARCH_GRAPH = "kith_search_graph_ratio", Gauge, "How far the graph of search that is being built is; 1 where none is";
    SEARCH_BYTES = "kith_search_bytes", Gauge, "Bytes of all vectors and graphs of search";

    TRAINING_STATE = "kith_training_state", Gauge, "1 for the state that training is in, 0 for the others";
    TRAINING_STEP = "kith_training_step", Gauge, "Steps made; a recovery sets it back";
    TRAINING_EPOCH = "kith_training_epoch", Gauge, "Epoch in progress";
    TRAINING_LOSS = "kith_training_loss", Gauge, "Loss, a moving average; NaN before the first step, as other averages are";
    TRAINING_GLOBAL_LOSS = "kith_training_global_loss_estimate", Gauge, "Estimate of the global loss, a moving average";
    TRAINING_ACCEPTANCE = "kith_training_acceptance_ratio", Gauge, "Share of accepted proposals, or of chains that moved; a moving average";
    TRAINING_CHAINS = "kith_training_chains", Gauge, "Chains in the table";
    TRAINING_CHAIN_AGE = "kith_training_chain_age_steps", Gauge, "Mean age of the chains' states when they are visited, a moving average";
    TRAINING_CHAIN_AGE_MAX = "kith_training_chain_age_max_steps", Gauge, "Largest age of a chain's state in the last step";
    TRAINING_SCORE_GAP = "kith_training_stored_minus_fresh_score", Gauge, "Mean score that is stored with the visited chains, less the score of the same images now, a moving average";
    TRAINING_GRADIENT_NORM = "kith_training_gradient_norm", Gauge, "L2 norm of the gradient of a stage of the network, before clipping, as last measured; NaN before";
    TRAINING_CARRIED = "kith_training_carried_ratio", Gauge, "Share of carried negatives among the images of a step, a moving average";
    TRAINING_PAIRS = "kith_training_pairs", Gauge, "Pairs that are trained on";
    TRAINING_RECENT = "kith_training_recent_pairs", Gauge, "Those of them that are recent, and are drawn more often while they are few";
    TRAINING_IMAGES = "kith_training_images", Gauge, "Images that are trained on";
    TRAINING_STEP_RATE = "kith_training_steps_per_second", Gauge, "Steps a second, a moving average; 0 while training waits";
    TRAINING_IMAGE_RATE = "kith_training_images_per_second", Gauge, "Images encoded a second, carried negatives included";
    TRAINING_LEARNING_RATE = "kith_training_learning_rate", Gauge, "Learning rate of the next step";
    TRAINING_SKIPPED = "kith_training_skipped_steps", Gauge, "Steps skipped for a loss or gradient that was not finite, over all runs";
    TRAINING_RATE_SCALE = "kith_training_rate_scale_ratio", Gauge, "Factor that recoveries have left of the learning rate";
    TRAINING_ERROR = "kith_training_error", Gauge, "1 while GET /v1/training shows an error (last_error): until training writes a snapshot after it, or has judged the checkpoint that it was about";
    TRAINING_ALARM = "kith_training_alarm", Gauge, "1 for each alarm about learning that GET /v1/training shows, 0 for the others";
    TRAINING_PAUSED = "kith_training_paused_seconds_total", Counter, "Seconds that training paused for requests";
    TRAINING_RECOVERIES = "kith_training_recoveries_total", Counter, "Returns to the best checkpoint";

    PAIR_LEARNED = "kith_pair_learned_seconds", Histogram(EFFECT_SECONDS), "Time from the posting of a pair that is trained on to the first step that learned from it";
    PAIR_SERVED = "kith_pair_served_seconds", Histogram(EFFECT_SECONDS), "Time from the posting of a pair that is trained on until a checkpoint that has learned from it serves";

    CHECKPOINT_LIVE_STEP = "kith_checkpoint_live_step", Gauge, "Step of the checkpoint that serves";
    CHECKPOINT_LIVE_CREATED = "kith_checkpoint_live_created_timestamp_seconds", Gauge, "When the checkpoint that serves was taken";
    CHECKPOINT_LIVE_RECALL = "kith_checkpoint_live_recall_at_1", Gauge, "Recall@1 of the live checkpoint on held-out pairs, the mean of both directions; NaN before its first evaluation, and without held-out pairs";
    CHECKPOINT_EVALUATED_RECALL = "kith_checkpoint_evaluated_recall_at_1", Gauge, "Recall@1 of the newest checkpoint that was evaluated; NaN before, and without held-out pairs";
    CHECKPOINT_ALIGNMENT = "kith_checkpoint_alignment", Gauge, "Mean squared distance of held-out pairs' embeddings, by checkpoint; 0 is best";
    CHECKPOINT_UNIFORMITY = "kith_checkpoint_uniformity", Gauge, "ln of the mean of exp(-2 d²) over distances d of different held-out images' embeddings, by checkpoint; lower is more uniform";
    CHECKPOINT_RANK = "kith_checkpoint_effective_rank", Gauge, "exp of the entropy of the normalised singular values of held-out images' embeddings, by checkpoint: dimensions in use";
    CHECKPOINT_SPREAD = "kith_checkpoint_spread", Gauge, "Standard deviation of held-out images' embeddings times the root of their dimensions, by checkpoint: 1 uniform, 0 collapsed";
    CHECKPOINT_LATEST_STEP = "kith_checkpoint_latest_step", Gauge, "Step of the newest complete checkpoint";
    CHECKPOINT_LATEST_CREATED = "kith_checkpoint_latest_created_timestamp_seconds", Gauge, "When the newest complete checkpoint was taken";
    CHECKPOINTS = "kith_checkpoints", Gauge, "Checkpoints by status";

    STORED_IMAGES = "kith_stored_images", Gauge, "Stored images";
    STORED_PAIRS = "kith_stored_pairs", Gauge, "Stored pairs by split";
    DAMAGED_IMAGES = "kith_damaged_images", Gauge, "Stored images whose bytes are missing or wrong";
    DISK_FREE = "kith_storage_free_bytes", Gauge, "Bytes that the server may still write to the disk of the data folder";
    DISK_SIZE = "kith_storage_size_bytes", Gauge, "Size of the disk of the data folder";

    BUILD_INFO = "kith_build_info", Gauge, "Always 1; the labels are version and device";
    STARTED = "kith_start_timestamp_seconds", Gauge, "When the server was started";
    READ_ERRORS = "kith_metrics_read_errors_total", Counter, "Reads of stored state that failed: the gauges of that part then keep their last value";
}
