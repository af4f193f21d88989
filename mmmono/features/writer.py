"""Writes a feature store shard by shard, so that an interrupted extraction resumes after its last complete shard."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.text import escaped_bytes
from mmmono.features.store import MANIFEST_FILE, Manifest

EXAMPLES = 3  # keys of skipped pairs that are stored per reason
REASONS = 50  # number of reasons that are listed individually


@dataclass
class ShardReport:
    """Result of one part of the source.

    Attributes:
        count: number of stored pairs.
        content: digest of their embeddings.
        reasons: number of skipped pairs by reason.
        examples: keys of some skipped pairs by reason.
    """

    count: int = 0
    content: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)


class FeatureStoreWriter:
    """Fills a directory with shards; `finish` turns it into a feature store.

    A shard counts as finished once its report exists. The report is written last, so that a process killed at any
    moment leaves either a complete shard or one that is written again.

    Args:
        path: directory to fill; its finished shards are kept.
        num_shards: number of parts of the source.
        dtype: stored type, `float16` or `float32`.
    """

    def __init__(self, path: Path, num_shards: int, dtype: str = "float16") -> None:
        self.path = path
        self.num_shards = num_shards
        self.dtype = np.dtype(dtype)
        for folder in ("img_emb", "text_emb", "metadata", "reports"):
            (path / folder).mkdir(parents=True, exist_ok=True)

    def _number(self, shard: int) -> str:
        return str(shard).zfill(len(str(self.num_shards - 1)))

    def _report_file(self, shard: int) -> Path:
        return self.path / "reports" / f"{self._number(shard)}.json"

    def report(self, shard: int) -> ShardReport | None:
        """Return the report of a finished shard; None if it is not finished."""
        file = self._report_file(shard)
        return ShardReport(**json.loads(file.read_text())) if file.exists() else None

    def drop(self, shard: int) -> ShardReport:
        """Delete a shard; return its report."""
        report = self.report(shard) or ShardReport()
        self._report_file(shard).unlink(missing_ok=True)
        for folder, name in (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet")):
            (self.path / folder / f"{folder}_{self._number(shard)}.{name}").unlink(missing_ok=True)
        return report

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
        """
        sha = hashlib.sha256()
        number = self._number(shard)
        if len(image):
            for name, tensor in (("img_emb", image), ("text_emb", text)):
                array = np.ascontiguousarray(tensor.numpy(), dtype=self.dtype)
                sha.update(array.tobytes())
                np.save(self.path / name / f"{name}_{number}.npy", array)
            rows = [{escaped_bytes(column): escaped_bytes(value) for column, value in row.items()} for row in metadata]
            frame = pd.DataFrame(rows).fillna("")
            frame.to_parquet(self.path / "metadata" / f"metadata_{number}.parquet", index=False)
        reasons = Counter(escaped_bytes(reason) for _, reason in skipped)
        kept = [reason for reason, _ in reasons.most_common(REASONS)]
        examples = {
            reason: [escaped_bytes(key) for key, why in skipped if escaped_bytes(why) == reason][:EXAMPLES]
            for reason in kept
        }
        report = ShardReport(len(image), sha.hexdigest(), dict(reasons), examples)
        write_text_atomically(self._report_file(shard), json.dumps(asdict(report)))
        return report

    def finish(self, made: Manifest, shards: Sequence[int]) -> Manifest:
        """Write and return the manifest of the finished shards.

        Args:
            made: origin of the store; `count`, `content`, `skipped`, `reasons` and `examples` are filled in here.
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
        )
        write_text_atomically(self.path / MANIFEST_FILE, manifest.to_json())
        return manifest
