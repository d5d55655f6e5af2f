# Made from _async by tools/make_sync.py: change that, and run it again.
"""Checkpoints: taken, judged, promoted, rolled back, downloaded."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import httpx

from .. import _sync_io as io
from .._call import Call, Data, given
from ..errors import ConnectionFailed, DamagedDownload, NotFound
from ..types import Checkpoint
from .transport import Transport

# A snapshot of a large model on a slow disk.
_SNAPSHOT_SECONDS = 600.0


class Checkpoints:
    """`/v1/checkpoints`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Checkpoint]:
        """All checkpoints, the newest first."""
        return (self._transport.send(Call("GET", "/v1/checkpoints"), Data[Checkpoint])).data

    def get(self, id: str) -> Checkpoint:
        """One checkpoint, with its files."""
        return self._transport.send(Call("GET", f"/v1/checkpoints/{id}"), Checkpoint)

    def live(self) -> Checkpoint:
        """The checkpoint that serves. `NotFound` while there is none."""
        for checkpoint in self.list():
            if checkpoint.role == "live":
                return checkpoint
        raise NotFound("no checkpoint is live", status=404, code="unknown_checkpoint")

    def snapshot(self, note: str | None = None) -> Checkpoint:
        """Takes a snapshot, and waits until it is complete."""
        call = Call(
            "POST",
            "/v1/checkpoints",
            params={"wait": "true"},
            json=given(note=note),
            repeatable=False,
            timeout=_SNAPSHOT_SECONDS,
        )
        return self._transport.send(call, Checkpoint)

    def promote(self, id: str, *, hold: bool = True) -> Checkpoint:
        """Makes a checkpoint live: it serves when this returns. With `hold` the gate promotes no other until `auto()`."""
        return self._transport.send(Call("POST", f"/v1/checkpoints/{id}/promote", json={"hold": hold}), Checkpoint)

    def roll_back(self, *, hold: bool = True) -> Checkpoint:
        """Promotes the checkpoint that was live before this one. `NotFound` if none is left."""
        checkpoints = self.list()
        decided = [one for one in checkpoints if one.decided_at and one.role != "live" and one.status == "complete"]
        if not decided:
            raise NotFound("no checkpoint was live before this one", status=404, code="unknown_checkpoint")
        before = max(decided, key=lambda one: one.decided_at or datetime.min)
        return self.promote(before.id, hold=hold)

    def auto(self) -> Checkpoint:
        """Lets the gate promote again; gives the live checkpoint."""
        return self._transport.send(Call("POST", "/v1/checkpoints/auto"), Checkpoint)

    def update(self, id: str, *, note: str | None = None, keep: bool | None = None) -> Checkpoint:
        """Sets the note (an empty one removes it), and whether retention never prunes the checkpoint."""
        body = given(note=note, keep=keep)
        return self._transport.send(Call("PATCH", f"/v1/checkpoints/{id}", json=body), Checkpoint)

    def delete(self, id: str) -> None:
        """Deletes a checkpoint. `Conflict` for the live one, and for one with an alias."""
        self._transport.respond(Call("DELETE", f"/v1/checkpoints/{id}", repeatable=False))

    def download(self, id: str, name: str, path: str | os.PathLike[str]) -> Path:
        """Downloads a file of a checkpoint, such as `model.safetensors`.

        An interrupted download goes on where it was. The file has its name only when all its bytes are there and have the checkpoint's
        SHA-256; `DamagedDownload` otherwise.
        """
        target = Path(path)
        files = (self.get(id)).files or []
        expected = next((file for file in files if file.name == name), None)
        if expected is None:
            raise NotFound(f"checkpoint {id} has no file {name}", status=404, code="unknown_file", param="name")
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb+") as file:
                self._fetch(f"/v1/checkpoints/{id}/files/{name}", file, expected.bytes)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != expected.sha256:
                raise DamagedDownload(f"{name} of checkpoint {id} has another SHA-256 than its checkpoint names")
            return partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _fetch(self, path: str, file: BinaryIO, size: int) -> None:
        attempt = 0
        while file.tell() < size:
            start = file.tell()
            try:
                headers = {"range": f"bytes={start}-", "accept-encoding": "identity"}
                response = self._transport.respond(Call("GET", path, headers=headers), stream=True)
                with closing(response):
                    for part in response.iter_raw():
                        file.write(part)
            except httpx.TransportError as error:
                # Only attempts that bring nothing count.
                attempt = attempt + 1 if file.tell() == start else 0
                wait = self._transport.retry.wait_after_failure(attempt)
                if wait is None:
                    raise ConnectionFailed(f"the download of {path} broke off again and again") from error
                io.sleep(wait)
