"""What the server answers, field by field, and what requests are made of.

Names of states, verdicts and formats in answers are `str`, so that a newer server's values are no errors here. Fields that a newer
server adds are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

EncodingFormat = Literal["float", "int8", "uint8", "binary", "ubinary"]
InputType = Literal[
    "anchor", "query", "search_query", "image_query", "positive", "document", "search_document", "image", "classification", "clustering"
]
Layer = Literal["embedding", "hidden"]
Priority = Literal["interactive", "bulk"]
EventKind = Literal["step", "training", "checkpoint", "evaluation", "promotion", "alarm"]


@dataclass(frozen=True)
class Embeddings:
    """Vectors of one checkpoint.

    `vectors` is `[images, dimensions]`: float32, or int8 or uint8 where such a format was asked for; `binary` and `ubinary` have eight
    dimensions to a byte. `model` is `kith@ID`: keep it beside the vectors, since those of different checkpoints cannot be compared.
    `scale` is that of int8 and uint8: a value is about its number (for uint8 less 128) times `scale`.
    """

    model: str
    vectors: npt.NDArray[Any]
    scale: float | None = None

    @property
    def checkpoint(self) -> str:
        """The id of the checkpoint."""
        return self.model.removeprefix("kith@")

    def __len__(self) -> int:
        return len(self.vectors)

    def as_float(self) -> npt.NDArray[np.float32]:
        """The vectors as float32, those of int8 and uint8 by their scale. `ValueError` for bits."""
        if self.vectors.dtype == np.float32:
            return self.vectors
        if self.scale is None:
            raise ValueError("bits have no values: compare them by Hamming distance")
        shift = 128 if self.vectors.dtype == np.uint8 else 0
        return (self.vectors.astype(np.float32) - shift) * np.float32(self.scale)


@dataclass(frozen=True)
class Model:
    """A name that `model` may have. `input_size` is in pixels; `preprocessing` says what is done to an image.

    `towers`: 2 if anchors and positives have an encoder each, and embeddings need an `input_type`.
    """

    id: str
    created: int
    dimensions: int
    hidden_dimensions: int
    input_size: int
    step: int
    checkpoint: str
    preprocessing: dict[str, Any]
    preprocessing_hash: str
    origin: dict[str, Any] | None = None
    towers: int = 1


@dataclass(frozen=True)
class Image:
    """A stored image. `id` is the SHA-256 of its bytes, `bytes` their count; `damaged`: they are missing or wrong."""

    id: str
    bytes: int
    width: int
    height: int
    format: str
    created_at: datetime
    damaged: bool


@dataclass(frozen=True)
class Pair:
    """A stored pair. `anchor` and `positive` are ids of images; `split` is `train`, `holdout` or `unused`.

    `duplicate`, in the answer to a post only: it was stored before.
    """

    id: str
    anchor: str
    positive: str
    created_at: datetime
    holdout: bool
    split: str
    group: str | None = None
    weight: float = 1.0
    duplicate: bool | None = None


@dataclass(frozen=True)
class PairFailure:
    """A pair of a stream that was not stored, and why. `index` counts the pairs of the stream from 0."""

    index: int
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class Retrieval:
    """How well queries find their match in a gallery: shares from 0 to 1, and the mean reciprocal rank."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float


@dataclass(frozen=True)
class Geometry:
    """The shape of the embeddings: see `Geometry` in the server's `/openapi.json`."""

    alignment: float
    uniformity: float
    effective_rank: float
    spread: float
    mean_cosine: float


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint's figures on held-out pairs."""

    pairs: int
    anchor_to_positive: Retrieval
    positive_to_anchor: Retrieval
    geometry: Geometry


@dataclass(frozen=True)
class CheckpointFile:
    """A file of a checkpoint, with its size and SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint. `status` is `writing`, `complete` or `failed`; `role` is `candidate`, `live` or `retired`.

    `decided_by` (`person`, `gate`, `start`) and `decided_at` say who made it live, and when, if it ever was. `files` is filled in the
    answer about one checkpoint only.
    """

    id: str
    status: str
    role: str
    step: int
    created_at: datetime
    bytes: int
    keep: bool
    held: bool
    note: str | None = None
    parent: str | None = None
    evaluation: Evaluation | None = None
    verdict: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None
    files: list[CheckpointFile] | None = None


@dataclass(frozen=True)
class CheckpointSummary:
    """Which checkpoint is live and why; `held`: the gate promotes no other until `checkpoints.auto()`."""

    held: bool
    live: str | None = None
    latest: str | None = None
    decided_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class StageNorms:
    """The size of the gradient of each stage of the network."""

    stem: float
    layer1: float
    layer2: float
    layer3: float
    layer4: float
    head: float


@dataclass(frozen=True)
class Alarm:
    """What is wrong with learning: `alarm` names it, `remedy` says what to do, `since_step` when it began."""

    alarm: str
    message: str
    remedy: str
    since_step: int


@dataclass(frozen=True)
class Training:
    """What training does. `state` is `running`, `paused`, `waiting` (see `waiting_for`) or `failed` (see `last_error`)."""

    state: str
    step: int
    epoch: int
    objective: str
    pairs: int
    images: int
    chains: int
    max_chain_age: int
    steps_per_second: float
    images_per_second: float
    learning_rate: float
    rate_scale: float
    skipped: int
    recoveries: int
    checkpoint: CheckpointSummary
    alarms: list[Alarm]
    recent_pairs: int = 0
    view_side: int = 0
    set_learning_rate: float | None = None
    loss: float | None = None
    global_loss_estimate: float | None = None
    acceptance_rate: float | None = None
    carried_share: float | None = None
    chain_age: float | None = None
    stored_minus_fresh: float | None = None
    gradient_norms: StageNorms | None = None
    waiting_for: str | None = None
    last_error: str | None = None
    resumed_from: str | None = None


@dataclass(frozen=True)
class StepMetrics:
    """One row of the training series."""

    step: int
    at: datetime
    loss: float
    global_loss_estimate: float
    acceptance_rate: float
    gradient_norm: float
    spread: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class CheckpointEvaluation:
    """When a checkpoint was judged on held-out pairs, and its figures."""

    checkpoint: str
    step: int
    created_at: datetime
    evaluation: Evaluation


@dataclass(frozen=True)
class TrainingMetrics:
    """The training series, and the evaluations in it."""

    data: list[StepMetrics]
    evaluations: list[CheckpointEvaluation]


@dataclass(frozen=True)
class Canary:
    """A candidate under trial. `shared_neighbours`, of a shadow, is from 0 to 1; `None` until there are enough images."""

    checkpoint: str
    percent: float
    shadow: bool
    compared_images: int
    shared_neighbours: float | None = None


@dataclass(frozen=True)
class Alias:
    """A name for `model`. `checkpoint` is an id, or `auto`: the live one."""

    name: str
    checkpoint: str
    updated_at: datetime
    canary: Canary | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened in the server. `data` depends on `kind`; `id` is what a stream goes on after."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Hit:
    """A stored image that a search found. `score` is the cosine."""

    id: str
    score: float
    group: str | None = None


@dataclass(frozen=True)
class SearchCoverage:
    """A checkpoint that is to answer searches, and which share of the stored images it has embedded, from 0 to 1."""

    model: str
    indexed_share: float


@dataclass(frozen=True)
class SearchResult:
    """The nearest stored images, the nearest first, by the vectors of one checkpoint.

    `indexed_share`, from 0 to 1: how much of what is stored that checkpoint has embedded; the rest is not found. `next` is the live
    checkpoint, while another still answers.
    """

    data: list[Hit]
    model: str
    indexed_share: float
    next: SearchCoverage | None = None


@dataclass(frozen=True)
class SearchSpace:
    """The stored images' vectors under one checkpoint.

    `role` is `answering` (searches that name no checkpoint), `next` (answers them once all images are embedded) or `kept` (answers
    searches that name it). `images` are embedded, which is `indexed_share` of those stored, from 0 to 1; `graph_images` of them are in a
    graph, the others are scanned. `bytes` is memory. `graph_progress` is how far a graph over them is built, from 0 to 1; `None` where
    none is being built.
    """

    checkpoint: str
    role: str
    images: int
    indexed_share: float
    graph_images: int
    bytes: int
    graph_progress: float | None = None


@dataclass(frozen=True)
class SearchState:
    """What can be searched. `data` lists the checkpoints whose vectors are kept, the one that answers first."""

    enabled: bool
    stored_images: int
    data: list[SearchSpace]
