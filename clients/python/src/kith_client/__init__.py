"""Client of kith, a server for image embeddings that keeps learning.

`Kith` is synchronous, `AsyncKith` the same for asyncio and trio.
"""

from ._async.client import AsyncKith
from ._embeddings import EmbedOptions
from ._images import ImageInput
from ._pairs import ImageId, PairInput
from ._retry import RetryPolicy
from ._sync.client import Kith
from .errors import (
    ApiError,
    AuthenticationFailed,
    Conflict,
    ConnectionFailed,
    DamagedDownload,
    InvalidAnswer,
    InvalidRequest,
    KithError,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerFailed,
    Unavailable,
)
from .types import (
    Alias,
    Canary,
    Checkpoint,
    Embeddings,
    Evaluation,
    Event,
    Hit,
    Image,
    Model,
    Pair,
    PairFailure,
    Retrieval,
    SearchResult,
    StepMetrics,
    Training,
    TrainingMetrics,
)

__all__ = [
    "Alias",
    "ApiError",
    "AsyncKith",
    "AuthenticationFailed",
    "Canary",
    "Checkpoint",
    "Conflict",
    "ConnectionFailed",
    "DamagedDownload",
    "EmbedOptions",
    "Embeddings",
    "Evaluation",
    "Event",
    "Hit",
    "Image",
    "ImageId",
    "ImageInput",
    "InvalidAnswer",
    "InvalidRequest",
    "Kith",
    "KithError",
    "Model",
    "NotFound",
    "Pair",
    "PairFailure",
    "PairInput",
    "PermissionDenied",
    "RateLimited",
    "Retrieval",
    "RetryPolicy",
    "SearchResult",
    "ServerFailed",
    "StepMetrics",
    "Training",
    "TrainingMetrics",
    "Unavailable",
]
