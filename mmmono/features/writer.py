"""Writes a feature store shard by shard, so that an interrupted extraction resumes after its last complete shard.

While it is written, a store has a folder `work/`: shards that are not yet in place, claims of the processes that write
it together (mmmono/core/claims.py), and notes of parts that could not be read. `finish` removes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.finite import check_tensor
from mmmono.core.ranges import check_whole
from mmmono.core.text import escaped_bytes
from mmmono.features.store import MANIFEST_FILE, Manifest

EXAMPLES = 3  # keys of skipped pairs that are stored per reason
REASONS = 50  # number of reasons that are listed individually
CONTENT = {"img_emb": "npy", "text_emb": "npy", "metadata": "parquet"}  # suffixes of a shard's files by folder
WORK, STAGING, CLAIMS, BROKEN = "work", "work/staging", "work/claims", "work/broken"


@dataclass
class ShardReport:
    """Result of one part of the source.

    Attributes:
        count: number of stored pairs.
        content: digest of their embeddings and metadata.
        reasons: number of skipped pairs by reason.
        examples: keys of some skipped pairs by reason.
        full: number of captions that fill the encoder's context.
    """

    count: int = 0
    content: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    full: int = 0


@dataclass(frozen=True)
class StagedShard:
    """A complete shard in a folder of its own, not yet part of the store."""

    shard: int
    folder: Path
    report: ShardReport

    def discard(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class FeatureStoreWriter:
    """Fills a directory with shards; `finish` turns it into a feature store.

    A shard counts as finished once its report exists. The report is written last, so that a process killed at any
    moment leaves either a complete shard or one that is written again.

    Args:
        path: directory to fill; its finished shards are kept.
        num_shards: number of parts of the source.
        dtype: stored type, `float16` or `float32`.
        begin: whether to make the directory and its folders. If not, and another process has finished the store,
            writing raises FileNotFoundError.

    Raises:
        ValueError: `dtype` is neither.
    """

    def __init__(self, path: str | Path, num_shards: int, dtype: str = "float16", begin: bool = True) -> None:
        self.path = path = Path(path)
        self.num_shards = num_shards
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype={dtype!r} is neither 'float16' nor 'float32'")
        self.dtype = np.dtype(dtype)
        for folder in (*CONTENT, "reports", STAGING, CLAIMS, BROKEN) if begin else ():
            (path / folder).mkdir(parents=True, exist_ok=True)

    def _number(self, shard: int) -> str:
        return str(shard).zfill(len(str(self.num_shards - 1)))

    def _report_file(self, shard: int) -> Path:
        return self.path / "reports" / f"{self._number(shard)}.json"

    def report(self, shard: int) -> ShardReport | None:
        """Return the report of a finished shard; None if it is not finished, or another process has finished the store."""
        try:
            return ShardReport(**json.loads(self._report_file(shard).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def drop(self, shard: int) -> ShardReport:
        """Delete a shard; return its report."""
        report = self.report(shard) or ShardReport()
        self._report_file(shard).unlink(missing_ok=True)
        for file in self._files(shard):
            (self.path / file).unlink(missing_ok=True)
        return report

    def _files(self, shard: int) -> list[Path]:
        """Files of a shard's content, relative to the store."""
        return [Path(folder) / f"{folder}_{self._number(shard)}.{suffix}" for folder, suffix in CONTENT.items()]

    def note_broken(self, shard: int, reason: str) -> None:
        """Note for other processes that a part could not be read to its end."""
        write_text_atomically(self.path / BROKEN / self._number(shard), reason)

    def forget_broken(self, shard: int) -> None:
        """Remove a part's note, because it is read again."""
        (self.path / BROKEN / self._number(shard)).unlink(missing_ok=True)

    def is_noted_broken(self, shard: int) -> bool:
        """Whether the last attempt at a part, by any process, could not read it to its end."""
        return (self.path / BROKEN / self._number(shard)).exists()

    def left(self) -> list[int]:
        """Shards that no process has finished yet, nor found unreadable."""
        done = (self._report_file(shard).exists() or self.is_noted_broken(shard) for shard in range(self.num_shards))
        return [shard for shard, is_done in enumerate(done) if not is_done]

    def all_done(self) -> bool:
        """Whether every shard is finished or could not be read, by whichever process."""
        return not self.left()

    def write(
        self,
        shard: int,
        image: Float[Tensor, "pairs dim"],
        text: Float[Tensor, "pairs dim"],
        metadata: Sequence[dict[str, str]],
        skipped: Sequence[tuple[str, str]] = (),
    ) -> ShardReport:
        """Store one part of the source and return its report; an empty part leaves only the report.

        Args:
            shard: index of the part.
            image, text: embeddings of its pairs, on the CPU.
            metadata: one row per pair.
            skipped: (key, reason) of each skipped pair.

        Raises:
            TypeError: embeddings are no tensors.
            ValueError: image, text and metadata are not of the same pairs, or `shard` is none of the store's.
        """
        return self.publish(self.stage(shard, image, text, metadata, skipped))

    def stage(
        self,
        shard: int,
        image: Float[Tensor, "pairs dim"],
        text: Float[Tensor, "pairs dim"],
        metadata: Sequence[dict[str, str]],
        skipped: Sequence[tuple[str, str]] = (),
        full: int = 0,
    ) -> StagedShard:
        """Write one part as `write` does, but beside the store; `publish` moves it in.

        `full` is the number of captions that fill the encoder's context.
        """
        check_whole("shard", shard, 0, self.num_shards - 1)
        for side, name in ((image, "image"), (text, "text")):
            check_tensor(side, name)
        two_sides = image.ndim == text.ndim == 2 and len(image) == len(text)  # towers may differ in width
        if not two_sides or len(metadata) != len(image):
            raise ValueError(
                f"image and text [pairs, dim] and a row of metadata for each pair expected, got {tuple(image.shape)}, "
                f"{tuple(text.shape)} and {len(metadata)} rows"
            )
        folder = self.path / STAGING / f"{self._number(shard)}-{uuid4().hex[:16]}"
        folder.mkdir()
        staged = StagedShard(shard, folder, ShardReport(len(image), full=full))
        try:
            self._write_content(staged, image, text, metadata)
        except BaseException:  # such as a full disk
            staged.discard()
            raise
        reasons = Counter(escaped_bytes(reason) for _, reason in skipped)
        kept = [reason for reason, _ in reasons.most_common(REASONS)]
        staged.report.reasons = dict(reasons)
        staged.report.examples = {
            reason: [escaped_bytes(key) for key, why in skipped if escaped_bytes(why) == reason][:EXAMPLES]
            for reason in kept
        }
        return staged

    def _write_content(
        self, staged: StagedShard, image: Tensor, text: Tensor, metadata: Sequence[dict[str, str]]
    ) -> None:
        sha = hashlib.sha256()
        if len(image):
            image_file, text_file, metadata_file = (staged.folder / file.name for file in self._files(staged.shard))
            for file, tensor in ((image_file, image), (text_file, text)):
                given = tensor.detach()
                given = given.float() if given.dtype == torch.bfloat16 else given  # a type that NumPy does not have
                array = np.ascontiguousarray(given.numpy(), dtype=self.dtype)
                sha.update(array.tobytes())
                np.save(file, array)
            rows = [{escaped_bytes(column): escaped_bytes(value) for column, value in row.items()} for row in metadata]
            pd.DataFrame(rows).fillna("").to_parquet(metadata_file, index=False)
            # Not of the file, in which the version of what wrote it is.
            sha.update(json.dumps(rows, sort_keys=True).encode())
        staged.report.content = sha.hexdigest()

    def publish(self, staged: StagedShard) -> ShardReport:
        """Move a staged shard into the store and return its report."""
        for file in self._files(staged.shard):
            if (staged.folder / file.name).exists():
                (staged.folder / file.name).replace(self.path / file)
        write_text_atomically(self._report_file(staged.shard), json.dumps(asdict(staged.report)))
        staged.discard()
        return staged.report

    def finish(self, made: Manifest, shards: Sequence[int]) -> Manifest:
        """Write and return the manifest of the finished shards.

        Args:
            made: origin of the store; `count`, `content`, `skipped`, `reasons`, `examples` and `full` are filled in here.
            shards: indices of the parts in the store.
        """
        reasons: Counter[str] = Counter()
        examples: dict[str, list[str]] = {}
        reports = [report for shard in shards if (report := self.report(shard))]
        for report in reports:
            reasons.update(report.reasons)
            for reason, keys in report.examples.items():
                examples[reason] = (examples.get(reason, []) + keys)[:EXAMPLES]
        common = dict(reasons.most_common(REASONS))
        if others := sum(reasons.values()) - sum(common.values()):
            common["other reasons"] = others
        manifest = replace(
            made,
            count=sum(report.count for report in reports),
            content=hashlib.sha256("".join(report.content for report in reports).encode()).hexdigest()[:32],
            skipped=sum(reasons.values()),
            reasons=common,
            examples={reason: examples[reason] for reason in common if reason in examples},
            full=sum(report.full for report in reports),
        )
        write_text_atomically(self.path / MANIFEST_FILE, manifest.to_json())
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        return manifest
