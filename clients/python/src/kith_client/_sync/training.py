# Made from _async by tools/make_sync.py: change that, and run it again.
"""What training does, and the names that `model` may have."""

from __future__ import annotations

from typing import Literal

from .._call import Call, Data, given
from ..types import Alias, Model, Training, TrainingMetrics
from .transport import Transport


class TrainingControl:
    """`/v1/training`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self) -> Training:
        """What training does now."""
        return self._transport.send(Call("GET", "/v1/training"), Training)

    def pause(self) -> Training:
        """Pauses training; a pause survives restarts of the server."""
        return self._update(state="paused")

    def resume(self) -> Training:
        """Lets training run again."""
        return self._update(state="running")

    def set_learning_rate(self, rate: float | Literal["schedule"]) -> Training:
        """Sets the base learning rate, beyond restarts; "schedule": that of the settings holds again."""
        return self._update(learning_rate=rate)

    def metrics(self, *, since: int = 0) -> TrainingMetrics:
        """The training series and the evaluations, from a step on; thinned evenly where it is long."""
        return self._transport.send(Call("GET", "/v1/training/metrics", params={"since": since}), TrainingMetrics)

    def _update(self, *, state: str | None = None, learning_rate: float | Literal["schedule"] | None = None) -> Training:
        body = given(state=state, learning_rate=learning_rate)
        return self._transport.send(Call("PATCH", "/v1/training", json=body), Training)


class Models:
    """`/v1/models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Model]:
        """The names that `model` may have."""
        return (self._transport.send(Call("GET", "/v1/models"), Data[Model])).data

    def get(self, id: str = "kith") -> Model:
        """What stands behind a name: dimensions, input size, checkpoint."""
        return self._transport.send(Call("GET", f"/v1/models/{id}"), Model)


class Aliases:
    """`/v1/aliases`: names for checkpoints, which move at once for all callers."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Alias]:
        """All aliases."""
        return (self._transport.send(Call("GET", "/v1/aliases"), Data[Alias])).data

    def set(self, name: str, checkpoint: str = "auto") -> Alias:
        """Makes or moves an alias to a checkpoint's id, or `auto`, the live one. A trial under the name ends."""
        return self._put(name, {"checkpoint": checkpoint})

    def try_candidate(self, name: str, candidate: str, *, percent: float, shadow: bool = False, checkpoint: str = "auto") -> Alias:
        """Lets a candidate answer `percent` of the API keys under a name, or, as a shadow, nobody: it is compared only."""
        canary = {"checkpoint": candidate, "percent": percent, "shadow": shadow}
        return self._put(name, {"checkpoint": checkpoint, "canary": canary})

    def delete(self, name: str) -> None:
        """Removes an alias and leaves its checkpoint."""
        self._transport.respond(Call("DELETE", f"/v1/aliases/{name}", repeatable=False))

    def _put(self, name: str, body: dict[str, object]) -> Alias:
        return self._transport.send(Call("PUT", f"/v1/aliases/{name}", json=body), Alias)
