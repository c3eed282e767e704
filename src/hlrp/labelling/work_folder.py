"""The hidden folder beside the labels that holds finished shards until all are finished.

plan.json                fingerprint of the job, and the description of its labels
shard-00000012.parquet   labels of the frames of one shard, in the form of the final table
finished.json            counts of the labels, once they are written and the shards are removed
logs/                    what a cluster's executor writes
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hlrp.data.label_file import LabelWriter, row_groups
from hlrp.data.labels import LabelMetadata
from hlrp.labelling.shards import Shard
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.files import new_file, write_json
from hlrp.storage.plain_values import from_plain

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
FINISHED_FILE = "finished.json"
_JOB, _SKIPPED = b"job", b"skipped"
"""Facts in the head of a shard's file: the fingerprint of its job, and the episodes that were left out."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Content of `plan.json`."""

    fingerprint: str
    metadata: dict[str, Any]


class WorkFolder:
    """Finished shards of the labels that will be written to the folder `target`."""

    def __init__(self, target: Path) -> None:
        target = Path(os.path.abspath(target))
        self.path = target.with_name(f".{target.name}.shards")

    @property
    def logs(self) -> Path:
        """Folder of the logs of a cluster's executor."""
        return self.path / "logs"

    def holds(self, fingerprint: str) -> bool:
        """Whether the folder was made for the job with this `fingerprint`; false if its plan is damaged."""
        try:
            return (self.path / PLAN_FILE).is_file() and self._plan().fingerprint == fingerprint
        except ValueError:
            return False

    def prepare(self, fingerprint: str, metadata: LabelMetadata) -> None:
        """Create the folder, or keep the shards of an interrupted run of the same job; remove those of another job."""
        is_same = self.holds(fingerprint)
        if self.path.exists() and not is_same:
            logger.info(f"{self.path} holds shards of other labels or options: all shards are labelled anew")
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        if not is_same:
            write_json(self.path / PLAN_FILE, {"fingerprint": fingerprint, "metadata": metadata.to_dict()})

    def _plan(self) -> _Plan:
        path = self.path / PLAN_FILE
        values = read_json(path)
        with reading(path):
            return from_plain(_Plan, values)

    def metadata(self) -> LabelMetadata:
        """Description of the labels of the job, which `prepare` has stored.

        Raises:
            FileNotFoundError: If there is no job.
        """
        path = self.path / PLAN_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist, so no labels are being made there; start the command anew")
        with reading(path):
            return from_plain(LabelMetadata, self._plan().metadata)

    @contextmanager
    def kept_if_useful(self) -> Iterator[None]:
        """Remove the folder if the block ends with an error before a single shard is finished."""
        try:
            yield
        except BaseException:
            if not any(self.path.glob("shard-*.parquet")):
                self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder, when the labels are complete.

        The plan is removed last, so that `prepare` and `note_of_finished` recognise what a killed run has left.
        """
        for path in self.path.glob("*"):
            if path.name not in (PLAN_FILE, FINISHED_FILE):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def note_finished(self, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Note that the labels are written, with `facts` about them, so that shards may be removed one by one."""
        write_json(self.path / FINISHED_FILE, {"fingerprint": fingerprint, "facts": dict(facts)})

    def note_of_finished(self, fingerprint: str) -> dict[str, Any] | None:
        """The facts that `note_finished` stored for the same job, after which not all shards were removed."""
        path = self.path / FINISHED_FILE
        note = read_json(path) if path.is_file() else {}
        return note.get("facts") if note.get("fingerprint") == fingerprint else None

    def file(self, shard: Shard) -> Path:
        """The file of the labels of `shard`."""
        return self.path / f"shard-{shard.number:08d}.parquet"

    @contextmanager
    def new_shard(
        self, shard: Shard, fingerprint: str, metadata: LabelMetadata, skipped: Mapping[int, str]
    ) -> Iterator[LabelWriter]:
        """Yield a writer of the labels of `shard`; its file appears complete at the end of the block, or not at all."""
        facts = {_JOB.decode(): fingerprint, _SKIPPED.decode(): json.dumps(dict(skipped))}
        spec = metadata.spec
        with (
            new_file(self.file(shard)) as scratch,
            LabelWriter(scratch, num_codes=spec.num_codes, width=metadata.width, facts=facts) as writer,
        ):
            yield writer

    def unfinished(self, shards: Sequence[Shard], fingerprint: str) -> list[Shard]:
        """The `shards` that have no file yet, or a damaged one, or one of another job."""
        return [shard for shard in shards if not self._is_finished(shard, fingerprint)]

    def _is_finished(self, shard: Shard, fingerprint: str) -> bool:
        path = self.file(shard)
        if not path.is_file():
            return False
        try:
            head = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            return False
        facts = head.metadata or {}
        return head.num_rows == shard.num_frames and facts.get(_JOB) == fingerprint.encode()

    def skipped(self, shards: Sequence[Shard]) -> dict[str, str]:
        """Episodes that were left out of finished `shards`, by number as text, and why."""
        found: dict[str, str] = {}
        for shard in shards:
            found |= json.loads((pq.read_metadata(self.file(shard)).metadata or {}).get(_SKIPPED, b"{}"))
        return found

    def tables(self, shards: Sequence[Shard]) -> Iterator[pa.Table]:
        """Labels of finished `shards`, in pieces.

        Raises:
            ValueError: If a file is damaged.
        """
        for shard in shards:
            with reading(self.file(shard), remedy="remove the file and start the command again"):
                yield from row_groups(self.file(shard))
