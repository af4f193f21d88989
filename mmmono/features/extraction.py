"""Encodes every pair of a source into a feature store, part by part.

Worker processes read, decode and tokenize; the main process only moves batches through the encoders and writes the
parts that are complete. Killed at any moment, a second call goes on with the parts that are not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmmono.core.errors import ConfigError, DataError, ModelError
from mmmono.core.progress import progress_bar
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
ALWAYS_SKIPPABLE = 10  # a share of a handful of pairs is no share


class Encoder(Protocol):
    """What extraction needs of a model; `mmmono.vlm.DualEncoder` is one."""

    name: str
    fingerprint: str
    dim: int

    @property
    def preprocess(self) -> Callable[[Image], UInt8[Tensor, "3 height width"]]:
        """Image to bytes; can be pickled."""

    @property
    def tokenize(self) -> Callable[[list[str]], Int[Tensor, "batch tokens"]]:
        """Captions to token ids; can be pickled."""

    def encode_image(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images."""

    def encode_text(self, tokens: Tensor) -> Float[Tensor, "batch dim"]:
        """Embed tokenized captions."""


@dataclass
class _Batch:
    """Consecutive pairs of one part, ready for the encoders; the last batch of a part says so."""

    part: int
    images: Tensor
    tokens: Tensor
    rows: list[dict[str, str]]
    reasons: Counter[str]
    last: bool


@dataclass
class _PartBuffer:
    """Embeddings of a part that is not complete yet; they stay on the device until it is."""

    image: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


class _PartReader(IterableDataset[_Batch]):
    """Reads parts in worker processes: worker w of W takes every W-th of them."""

    def __init__(self, source: PairSource, parts: Sequence[int], encoder: Encoder, batch_size: int, limit: int | None):
        self.source = source
        self.parts = parts
        self.preprocess = encoder.preprocess
        self.tokenize = encoder.tokenize
        self.batch_size = batch_size
        self.limit = limit

    def __iter__(self) -> Iterator[_Batch]:
        worker = get_worker_info()
        left = self.limit
        for part in self.parts if worker is None else self.parts[worker.id :: worker.num_workers]:
            for batch in self._read(part, left):
                left = None if left is None else left - len(batch.rows)
                yield batch
            if left == 0:
                return

    def _read(self, part: int, left: int | None) -> Iterator[_Batch]:
        pairs: list[ImageTextPair] = []
        reasons: Counter[str] = Counter()
        for item in self.source.read(part):
            if isinstance(item, SkippedPair):
                reasons[item.reason] += 1
                continue
            if len(pairs) == self.batch_size:
                yield self._collate(part, pairs, reasons, last=False)
                left = None if left is None else left - len(pairs)
                pairs, reasons = [], Counter()
            pairs.append(item)
            if len(pairs) == left:
                break
        yield self._collate(part, pairs, reasons, last=True)

    def _collate(self, part: int, pairs: list[ImageTextPair], reasons: Counter[str], last: bool) -> _Batch:
        if not pairs:
            return _Batch(part, torch.empty(0), torch.empty(0), [], reasons, last)
        images = torch.stack([self.preprocess(pair.image) for pair in pairs])
        tokens = self.tokenize([pair.caption for pair in pairs])
        rows = [
            {
                "key": pair.key,
                "caption": pair.caption,
                "locator": pair.locator,
                "group": self.source.group(pair.key),
                **pair.labels,
            }
            for pair in pairs
        ]
        return _Batch(part, images, tokens, rows, reasons, last)


def extract_features(
    source: PairSource,
    encoder: Encoder,
    directory: Path,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: str = "32",
    dtype: str = "float16",
    max_skipped: float = 0.1,
) -> Manifest:
    """Encode all pairs of `source` into a store in `directory`, going on with what lies there unfinished.

    Args:
        source: pairs in parts; each part becomes a shard of the store.
        encoder: both towers, on `device`.
        directory: where to write; publish it by renaming once this returns.
        device: where the encoders run.
        batch_size: pairs a forward pass; None takes 256 on a GPU and 32 on a CPU, whose caches hold no more.
        workers: processes that read and decode; None takes one a core up to 8 on a GPU, and none on a CPU, whose
            cores the encoders keep busy.
        precision: `32`, or autocast to `fp16` or `bf16`.
        dtype: stored type, `float16` or `float32`.
        max_skipped: share of pairs that may be unreadable before this fails; `ALWAYS_SKIPPABLE` always may unless 0.

    Raises:
        DataError: no pair could be read, or more were skipped than `max_skipped` allows.
        ModelError: an embedding is not finite.
        ConfigError: unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"extraction.precision={precision} is none of {', '.join(PRECISIONS)}")
    device = torch.device(device)
    names = source.parts()
    limit = getattr(source, "limit", None)
    writer = FeatureStoreWriter(directory, len(names), dtype)
    seen = _Progress(max_skipped)
    done = [
        part for part in range(len(names)) if (report := writer.report(part)) and seen.add(report.count, report.reasons)
    ]
    pending = [part for part in range(len(names)) if part not in set(done)]
    left = None if limit is None else limit - seen.pairs
    if limit is not None and left == 0:
        pending = []

    batch_size = batch_size or (256 if device.type == "cuda" else 32)
    workers = _default_workers(device) if workers is None else workers
    loader = DataLoader(
        _PartReader(source, pending, encoder, batch_size, left),
        batch_size=None,
        num_workers=min(workers, len(pending), 1 if limit is not None else len(pending)),
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if min(workers, len(pending)) else None,
        worker_init_fn=_quiet_worker,
    )
    buffers: dict[int, _PartBuffer] = {}
    with progress_bar() as bar, torch.inference_mode():
        task = bar.add_task(f"extract {source.name}", total=_total(source, limit), completed=seen.pairs)
        for batch in loader if pending else ():
            buffer = buffers.setdefault(batch.part, _PartBuffer())
            if batch.rows:
                with torch.autocast(device.type, PRECISIONS[precision], enabled=PRECISIONS[precision] is not None):
                    buffer.image.append(encoder.encode_image(batch.images.to(device, non_blocking=True)))
                    buffer.text.append(encoder.encode_text(batch.tokens.to(device, non_blocking=True)))
            buffer.rows += batch.rows
            buffer.reasons += batch.reasons
            bar.advance(task, len(batch.rows))
            if batch.last:
                buffers.pop(batch.part)
                _write(writer, batch.part, buffer, names[batch.part], encoder.dim)
                seen.add(len(buffer.rows), buffer.reasons)
                done.append(batch.part)
    seen.check(final=True)
    return writer.finish(
        encoder.name, encoder.fingerprint, source.name, source.fingerprint(), encoder.dim, sorted(done)
    )


def _write(writer: FeatureStoreWriter, part: int, buffer: _PartBuffer, name: str, dim: int) -> None:
    image = torch.cat(buffer.image).float().cpu() if buffer.image else torch.empty(0, dim)
    text = torch.cat(buffer.text).float().cpu() if buffer.text else torch.empty(0, dim)
    for modality, embeddings in (("image", image), ("text", text)):
        finite = torch.isfinite(embeddings).all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ModelError(
                f"the {modality} embedding of {buffer.rows[row]['key']} in {name} is not finite: "
                "try extraction.precision=32, or look at that pair"
            )
    writer.write(part, image, text, buffer.rows, buffer.reasons)


class _Progress:
    """Pairs read and skipped so far, held against the limit on skipping."""

    def __init__(self, max_skipped: float) -> None:
        self.max_skipped = max_skipped
        self.pairs = 0
        self.reasons: Counter[str] = Counter()

    def add(self, pairs: int, reasons: dict[str, int]) -> bool:
        self.pairs += pairs
        self.reasons.update(reasons)
        self.check(final=False)
        return True

    def check(self, final: bool) -> None:
        skipped = sum(self.reasons.values())
        common = "; ".join(f"{count} × {reason}" for reason, count in self.reasons.most_common(3))
        allowed = max(ALWAYS_SKIPPABLE, self.max_skipped * (self.pairs + skipped)) if self.max_skipped else 0
        # Before the end only a clear excess counts: the broken ones may all lie in the first parts.
        if skipped > (allowed if final or not self.max_skipped else max(1000, 2 * allowed)):
            raise DataError(
                f"{skipped} of {self.pairs + skipped} pairs could not be read, more than "
                f"extraction.max_skipped={self.max_skipped} allows ({common}): mend the data or raise the limit"
            )
        if final and not self.pairs:
            raise DataError(f"not one pair could be read ({common or 'the source is empty'})")


def _default_workers(device: torch.device) -> int:
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0


def _quiet_worker(_: int) -> None:
    # The tokenizers library forks no threads of its own inside a worker, and says so at length unless told.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _total(source: PairSource, limit: int | None) -> int | None:
    try:
        count = len(source)
    except TypeError:
        return limit
    return count if limit is None else min(count, limit)
