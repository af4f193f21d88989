"""Encodes all pairs of a source into a feature store, part by part.

Worker processes read, decode and tokenize; the main process only moves batches through the encoders and writes finished
parts. If the process is killed, the next call resumes with the unfinished parts. A part that cannot be read to its end
counts as unfinished: the other parts are written, and the next call tries it again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from mmmono.core.errors import BrokenPartError, ConfigError, ModelError
from mmmono.core.progress import progress_bar
from mmmono.data.pairs import PairSource
from mmmono.features.losses import Allowance
from mmmono.features.reading import Batch, Encoder, PartReader, Skip, default_workers, explained_deaths, read_parts
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
STORED_TYPES = ("float16", "float32")
PART_PAIRS = 10_000  # assumed size of a part if there is a limit and no part's size is known


@dataclass
class _PartBuffer:
    """Embeddings of an unfinished part; they stay on the device until the part is written."""

    image: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    broken: BrokenPartError | None = None

    def cut(self, most: int) -> None:
        """Keep the first `most` pairs, and the skipped pairs before the last of them."""
        if len(self.rows) >= most:
            self.image, self.text = [torch.cat(self.image)[:most]], [torch.cat(self.text)[:most]]
            self.rows, self.skips = self.rows[:most], [skip for skip in self.skips if skip.before < most]
            self.broken = None  # the error came after the pairs that are kept


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of reading and encoding.

    Args:
        batch_size: pairs per forward pass; by default 256 on a GPU and 32 on a CPU, whose caches hold no more.
        workers: processes that read and decode; by default all cores but one for a GPU, and none for a CPU, whose cores
            the encoders keep busy.
        precision: `32`, or autocast to `fp16` or `bf16`.
        dtype: stored type, `float16` or `float32`.
        allowance: maximum loss of unreadable data.

    Raises:
        ConfigError: a setting is invalid.
    """

    batch_size: int | None = None
    workers: int | None = None
    precision: str = "32"
    dtype: str = "float16"
    allowance: Allowance = field(default_factory=Allowance)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"extraction.precision={self.precision} is none of {', '.join(PRECISIONS)}")
        if self.dtype not in STORED_TYPES:
            raise ConfigError(f"extraction.dtype={self.dtype} is none of {', '.join(STORED_TYPES)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"extraction.batch_size={self.batch_size}: at least 1, or null to choose by the device")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"extraction.workers={self.workers}: at least 0, or null to choose by the device")
        if not 0 <= self.allowance.max_skipped <= 1:
            raise ConfigError(f"extraction.max_skipped={self.allowance.max_skipped} is no share between 0 and 1")
        if self.allowance.max_broken_shards < 0:
            raise ConfigError(f"extraction.max_broken_shards={self.allowance.max_broken_shards}: at least 0")


def extract_features(
    source: PairSource,
    encoder: Encoder,
    directory: Path,
    *,
    device: str | torch.device = "cpu",
    settings: ExtractionSettings | None = None,
    **given: Any,
) -> Manifest:
    """Encode all pairs of `source` into a store in `directory`, resuming an unfinished store there.

    The store is bitwise the same for any number of workers.

    Args:
        source: pairs in parts; each part becomes a shard of the store. If it has a `limit`, only its first pairs are
            used.
        encoder: both towers, on `device`.
        directory: where to write; publish the store by renaming the directory afterwards.
        device: where the encoders run.
        settings: settings of reading and encoding; fields of `ExtractionSettings` and `Allowance` can also be given by
            name: `extract_features(source, encoder, directory, batch_size=64, max_skipped=0)`.

    Raises:
        DataError: no pair could be read, or more were lost than allowed; finished parts are kept.
        ModelError: an embedding is not finite.
        ConfigError: a setting is invalid.
    """
    settings = settings or ExtractionSettings()
    losses = {name: given.pop(name) for name in ("max_skipped", "max_broken_shards") if name in given}
    settings = replace(settings, allowance=replace(settings.allowance, **losses), **given)
    limit = getattr(source, "limit", None)
    if limit is not None and limit < 1:
        raise ConfigError(f"dataset.limit={limit}: at least 1 pair is needed, or null for all")
    extraction = _Extraction(source, encoder, directory, torch.device(device), settings)
    with explained_deaths(), progress_bar() as bar, torch.inference_mode():
        task = bar.add_task(f"extract {source.name}", total=_total(source, limit), completed=extraction.pairs)
        if limit is None:
            extraction.encode(extraction.pending, None, bar, task)
        else:
            extraction.encode_first(limit, bar, task)
    return extraction.finish()


class _Extraction:
    """State of an extraction: finished and broken parts, and what is needed to encode the others."""

    def __init__(
        self, source: PairSource, encoder: Encoder, directory: Path, device: torch.device, settings: ExtractionSettings
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.device = device
        self.settings = settings
        self.batch_size = settings.batch_size or (256 if device.type == "cuda" else 32)
        self.workers = default_workers(device) if settings.workers is None else settings.workers
        self.names = source.parts()
        self.writer = FeatureStoreWriter(directory, len(self.names), settings.dtype)
        self.sizes: dict[int, int] = {}  # pairs by finished part
        self.broken: dict[int, BrokenPartError] = {}
        self.reasons: Counter[str] = Counter()
        for part in range(len(self.names)):
            if report := self.writer.report(part):
                self._count(part, report.count, report.reasons)

    @property
    def pairs(self) -> int:
        """Number of pairs that are encoded and written."""
        return sum(self.sizes.values())

    @property
    def pending(self) -> list[int]:
        """Parts that are neither finished nor broken."""
        return [part for part in range(len(self.names)) if part not in self.sizes and part not in self.broken]

    @property
    def mean_size(self) -> float | None:
        """Mean number of pairs per finished part; None if no part is finished."""
        return self.pairs / len(self.sizes) if self.sizes else None

    def encode_first(self, limit: int, bar: Progress, task: TaskID) -> None:
        """Encode the first `limit` pairs: as many parts as probably contain them, then more if needed.

        Neither the choice of parts nor their content depends on the number of workers. Finished parts after an
        unfinished one are dropped and encoded again later, since the limit may then need fewer of their pairs.
        """
        gap = next((part for part in range(len(self.names)) if part not in self.sizes), None)
        for part in [part for part in self.sizes if gap is not None and part > gap]:
            self.reasons.subtract(self.writer.drop(part).reasons)
            del self.sizes[part]
        while (left := limit - self.pairs) > 0 and self.pending and not self._too_many_broken():
            self.encode(self.pending[: math.ceil(left / self._part_size(left))], left, bar, task)

    def _part_size(self, most: int) -> float:
        """Estimate the pairs per part: the mean of finished parts, else the source's count for the next part."""
        return self.mean_size or self.source.count_samples(self.pending[0], most) or PART_PAIRS

    def encode(self, parts: list[int], most: int | None, bar: Progress, task: TaskID) -> None:
        """Encode parts and write each when complete; with `most`, in order and up to that many pairs in total."""
        buffers: dict[int, _PartBuffer] = {}
        complete: dict[int, _PartBuffer] = {}
        order = list(parts)
        gpu = self.device.type == "cuda"
        reader = PartReader(self.source, parts, self.encoder, self.batch_size, most)
        for item in read_parts(reader, workers=self.workers, gpu=gpu):
            buffer = buffers.setdefault(item.part, _PartBuffer())
            if isinstance(item, Batch):
                self._encode(item, buffer)
                bar.advance(task, len(item.rows))
                if not item.last:
                    continue
            elif isinstance(item.error, BrokenPartError):
                buffer.broken = item.error
            else:
                raise item.error
            complete[item.part] = buffers.pop(item.part)
            if most is None:
                self._commit(item.part, complete.pop(item.part))
            while most is not None and order and order[0] in complete:
                part = order.pop(0)
                buffer = complete.pop(part)
                buffer.cut(most)
                self._commit(part, buffer)
                most -= self.sizes.get(part, 0)
                if most == 0 or self._too_many_broken():
                    bar.update(task, completed=self.pairs)
                    return

    def _encode(self, batch: Batch, buffer: _PartBuffer) -> None:
        buffer.skips += batch.skips
        if not batch.rows:
            return
        kind = PRECISIONS[self.settings.precision]
        images, tokens = (
            torch.as_tensor(value).to(self.device, non_blocking=True) for value in (batch.images, batch.tokens)
        )
        with torch.autocast(self.device.type, kind, enabled=kind is not None):
            buffer.image.append(self.encoder.encode_image(images))
            buffer.text.append(self.encoder.encode_text(tokens))
        buffer.rows += batch.rows

    def _commit(self, part: int, buffer: _PartBuffer) -> None:
        if buffer.broken is not None:
            self.broken[part] = buffer.broken
            return
        dim = self.encoder.dim
        image = torch.cat(buffer.image).float().cpu() if buffer.image else torch.empty(0, dim)
        text = torch.cat(buffer.text).float().cpu() if buffer.text else torch.empty(0, dim)
        check_finite(image, text, buffer.rows, self.names[part])
        report = self.writer.write(part, image, text, buffer.rows, [(skip.key, skip.reason) for skip in buffer.skips])
        self._count(part, report.count, report.reasons)

    def _count(self, part: int, pairs: int, reasons: dict[str, int]) -> None:
        self.sizes[part] = pairs
        self.reasons.update(reasons)
        self.settings.allowance.check_skipped(self.pairs, self.reasons, final=False)

    def _too_many_broken(self) -> bool:
        return len(self.broken) > self.settings.allowance.max_broken_shards

    def finish(self) -> Manifest:
        """Write the manifest. Raises DataError if more was lost than allowed."""
        allowance = self.settings.allowance
        missing = round((self.mean_size or 0) * len(self.broken))
        broken = [self.broken[part] for part in sorted(self.broken)]
        allowance.check_broken(broken, missing, len(self.names))
        allowance.check_skipped(self.pairs, self.reasons)
        made = Manifest(
            model=self.encoder.name,
            model_fingerprint=self.encoder.fingerprint,
            dataset=self.source.name,
            dataset_fingerprint=self.source.fingerprint(),
            dim=self.encoder.dim,
            count=self.pairs,
            dtype=self.settings.dtype,
            content="",
            broken={error.name: error.reason for error in broken},
            missing=missing,
        )
        return self.writer.finish(made, sorted(self.sizes))


def check_finite(image: Tensor, text: Tensor, rows: Sequence[Mapping[str, str]], part: str) -> None:
    """Raise ModelError if an embedding of a part is not finite.

    Args:
        image, text: embeddings, `[pairs, dim]`.
        rows: metadata of the pairs.
        part: name of the part.
    """
    for modality, embeddings in (("image", image), ("text", text)):
        finite = torch.isfinite(embeddings).all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ModelError(
                f"the {modality} embedding of {rows[row]['key']} in {part} is not finite: "
                "try extraction.precision=32, or look at that pair"
            )


def _total(source: PairSource, limit: int | None) -> int | None:
    try:
        count = len(source)
    except TypeError:
        return limit
    return count if limit is None else min(count, limit)
