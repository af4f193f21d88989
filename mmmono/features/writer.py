"""Writes a feature store shard by shard, so that an interrupted extraction goes on after its last whole shard."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.features.store import MANIFEST_FILE, Manifest


@dataclass
class ShardReport:
    """What became of one part of the source."""

    count: int = 0
    content: str = ""
    reasons: dict[str, int] = field(default_factory=dict)


class FeatureStoreWriter:
    """Fills a directory that is not yet a store; `finish` turns it into one.

    A shard counts as done once its report lies beside its arrays: the report is written last, so that a process
    killed at any moment leaves either a whole shard or one that is written again.

    Args:
        path: directory to fill; shards finished there earlier are kept.
        num_shards: how many parts the source has.
        dtype: type to store, `float16` or `float32`.
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
        """The report of a finished shard; None while it is not finished."""
        file = self._report_file(shard)
        return ShardReport(**json.loads(file.read_text())) if file.exists() else None

    def write(
        self,
        shard: int,
        image: Float[Tensor, "pairs dim"],
        text: Float[Tensor, "pairs dim"],
        metadata: Sequence[dict[str, str]],
        reasons: Counter[str],
    ) -> ShardReport:
        """Store one part of the source; an empty one leaves only its report."""
        sha = hashlib.sha256()
        number = self._number(shard)
        if len(image):
            for name, tensor in (("img_emb", image), ("text_emb", text)):
                array = np.ascontiguousarray(tensor.numpy(), dtype=self.dtype)
                sha.update(array.tobytes())
                np.save(self.path / name / f"{name}_{number}.npy", array)
            frame = pd.DataFrame(list(metadata)).fillna("")
            frame.to_parquet(self.path / "metadata" / f"metadata_{number}.parquet", index=False)
        report = ShardReport(len(image), sha.hexdigest(), dict(reasons))
        write_text_atomically(self._report_file(shard), json.dumps(asdict(report)))
        return report

    def finish(
        self,
        model: str,
        model_fingerprint: str,
        dataset: str,
        dataset_fingerprint: str,
        dim: int,
        shards: Sequence[int],
    ) -> Manifest:
        """Write the manifest over the finished shards."""
        reports = [report for shard in shards if (report := self.report(shard))]
        reasons: Counter[str] = Counter()
        for report in reports:
            reasons.update(report.reasons)
        manifest = Manifest(
            model=model,
            model_fingerprint=model_fingerprint,
            dataset=dataset,
            dataset_fingerprint=dataset_fingerprint,
            dim=dim,
            count=sum(report.count for report in reports),
            dtype=self.dtype.name,
            content=hashlib.sha256("".join(report.content for report in reports).encode()).hexdigest()[:32],
            skipped=sum(reasons.values()),
            reasons=dict(reasons.most_common()),
        )
        write_text_atomically(self.path / MANIFEST_FILE, manifest.to_json())
        return manifest
