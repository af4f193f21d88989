"""Encodes parts of a source, and writes each when it is complete.

Worker processes read, decode and tokenize; the main process only moves batches through the encoders and writes finished
parts. A part that cannot be read to its end counts as unfinished: the other parts are written.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from mmmono.core.claims import EXPIRY, Claims
from mmmono.core.errors import BrokenPartError, ModelError
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.data.pairs import PairSource
from mmmono.features.extraction_settings import PRECISIONS, ExtractionSettings
from mmmono.features.reading import Batch, Encoder, PartReader, Skip, default_workers, preprocessing, read_parts
from mmmono.features.shares import ClaimedParts
from mmmono.features.store import Manifest
from mmmono.features.writer import CLAIMS, FeatureStoreWriter

PART_PAIRS = 10_000  # assumed size of a part if there is a limit and no part's size is known
LOOK = 1.0  # seconds between two looks at parts that other processes work on


@dataclass
class _PartBuffer:
    """Embeddings of an unfinished part; they stay on the device until the part is written."""

    image: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    broken: BrokenPartError | None = None

    def cut(self, most: int) -> None:
        """Keep the first `most` pairs, and the skipped pairs before the last of them."""
        if len(self.rows) >= most:
            self.image, self.text = [torch.cat(self.image)[:most]], [torch.cat(self.text)[:most]]
            self.rows, self.full = self.rows[:most], self.full[:most]
            self.skips = [skip for skip in self.skips if skip.before < most]
            self.broken = None  # the error came after the pairs that are kept


class PartEncoder:
    """An extraction: its finished and broken parts, and what is needed to encode the others.

    Args:
        source, encoder, directory, settings: see `extract_features`.
        device: where the encoder runs.
        begin: whether to make the store's folders.

    Attributes:
        names: names of all parts.
        claims: of this process; a context in which `encode_all` must run.
    """

    def __init__(
        self,
        source: PairSource,
        encoder: Encoder,
        directory: Path,
        device: torch.device,
        settings: ExtractionSettings,
        begin: bool = True,
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.device = device
        self.settings = settings
        self.batch_size = settings.batch_size or (256 if device.type == "cuda" else 32)
        self.workers = default_workers(device) if settings.workers is None else settings.workers
        self.preprocess = preprocessing(encoder, settings.resize)
        self.names = source.parts()
        self.writer = FeatureStoreWriter(directory, len(self.names), settings.dtype, begin)
        self.claims = Claims(directory / CLAIMS)
        self.sizes: dict[int, int] = {}  # pairs by finished part
        self.broken: dict[int, BrokenPartError] = {}
        self.reasons: Counter[str] = Counter()
        self._count_finished(range(len(self.names)))

    def _count_finished(self, parts: Sequence[int]) -> None:
        """Count parts that were finished earlier or by other processes."""
        for part in parts:
            if part not in self.sizes and (report := self.writer.report(part)):
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

    def encode_all(self, parts: Sequence[int], bar: Progress, task: TaskID) -> None:
        """Encode parts that no other process has claimed; wait for the others, and encode those of a process that died."""
        told = False
        while not self.claims.gone:
            self._count_finished(parts)
            left = [part for part in parts if part not in self.sizes and part not in self.broken]
            if not left:
                return
            bar.update(task, completed=sum(self.sizes.get(part, 0) for part in parts))
            if free := [part for part in left if self.claims.is_free(part)]:
                self.encode(free, None, bar, task)
                continue
            if not told:
                bar.console.print(
                    f"other processes work on {len(left)} of {len(self.names)} shards: waiting for them; what a process "
                    f"held that died on another machine is free after {EXPIRY:.0f} s"
                )
                told = True
            time.sleep(LOOK)

    def all_done(self) -> bool:
        """Whether every part is finished or could not be read, by whichever process."""
        self._count_finished(range(len(self.names)))
        return self.writer.all_done()

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
        claimed = ClaimedParts(self.claims, self.writer) if most is None else None
        reader = PartReader(self.source, parts, self.encoder, self.preprocess, self.batch_size, most, claimed)
        for item in read_parts(reader, workers=self.workers, gpu=gpu):
            buffer = buffers.setdefault(item.part, _PartBuffer())
            if isinstance(item, Batch):
                with enough_gpu_memory(f"lower extraction.batch_size={self.batch_size}; finished shards are kept"):
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
                self._commit(item.part, complete.pop(item.part), claimed=True)
            while most is not None and order and order[0] in complete:
                part = order.pop(0)
                buffer = complete.pop(part)
                buffer.cut(most)
                self._commit(part, buffer, claimed=False)
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
        buffer.full += batch.full

    def _commit(self, part: int, buffer: _PartBuffer, claimed: bool) -> None:
        """Write a part; leave it alone if it was claimed and another process has taken it over."""
        if buffer.broken is not None:
            self.broken[part] = buffer.broken
            if claimed:
                self.writer.note_broken(part, buffer.broken.reason)
            return
        self.source.check_unchanged(part)
        dim = self.encoder.dim
        # Batch by batch, as a GPU may have no room for the part a second time.
        image, text = (
            torch.cat([rows.cpu().float() for rows in side]) if side else torch.empty(0, dim)
            for side in (buffer.image, buffer.text)
        )
        check_storable(image, text, buffer.rows, self.names[part], self.settings.dtype)
        skipped = [(skip.key, skip.reason) for skip in buffer.skips]
        staged = self.writer.stage(part, image, text, buffer.rows, skipped, sum(buffer.full))
        if claimed and not self.claims.confirm(part):
            staged.discard()
            return
        report = self.writer.publish(staged)
        self._count(part, report.count, report.reasons)

    def _count(self, part: int, pairs: int, reasons: dict[str, int]) -> None:
        self.sizes[part] = pairs
        self.reasons.update(reasons)
        self.settings.allowance.check_skipped(self.pairs, self.reasons, final=False)

    def _too_many_broken(self) -> bool:
        return len(self.broken) > self.settings.allowance.max_broken_shards

    def check_broken(self) -> int:
        """Return an estimate of the pairs of parts that could not be read. Raises DataError if too many could not."""
        missing = round((self.mean_size or 0) * len(self.broken))
        broken = [self.broken[part] for part in sorted(self.broken)]
        self.settings.allowance.check_broken(broken, missing, len(self.names))
        return missing

    def finish(self) -> Manifest:
        """Write the manifest. Raises DataError if more was lost than allowed."""
        missing = self.check_broken()
        self.settings.allowance.check_skipped(self.pairs, self.reasons)
        made = Manifest(
            model=self.encoder.name,
            model_fingerprint=self.encoder.fingerprint,
            dataset=self.source.name,
            dataset_fingerprint=self.source.fingerprint(),
            dim=self.encoder.dim,
            count=self.pairs,
            dtype=self.settings.dtype,
            content="",
            broken={self.broken[part].name: self.broken[part].reason for part in sorted(self.broken)},
            missing=missing,
        )
        return self.writer.finish(made, sorted(self.sizes))


def check_storable(image: Tensor, text: Tensor, rows: Sequence[Mapping[str, str]], part: str, dtype: str) -> None:
    """Raise ModelError if an embedding of a part is not finite, or would not be what it is in the stored type.

    Args:
        image, text: embeddings, `[pairs, dim]`.
        rows: metadata of the pairs.
        part: name of the part.
        dtype: stored type: `float16` holds numbers up to 65504, and rounds those below 3e-8 to 0.
    """
    for modality, embeddings in (("image", image), ("text", text)):
        stored = embeddings.to(getattr(torch, dtype))
        lost = ~torch.isfinite(stored).all(dim=1) | ((stored == 0).all(dim=1) & (embeddings != 0).any(dim=1))
        if not lost.any():
            continue
        row = int(lost.nonzero()[0])
        what = f"the {modality} embedding of {rows[row]['key']} in {part}"
        if torch.isfinite(embeddings[row]).all():
            largest = float(embeddings[row].abs().max())
            raise ModelError(
                f"{what} does not fit into {dtype}, its largest value is {largest:.3g}: set extraction.dtype=float32"
            )
        raise ModelError(f"{what} is not finite: try extraction.precision=32, or look at that pair")
