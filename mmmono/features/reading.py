"""Reads, decodes and tokenizes a source's parts in worker processes, into batches for the encoders."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmmono.core.cores import usable_cores
from mmmono.core.errors import BrokenPartError, ConfigError, DataError, MmmonoError
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair
from mmmono.features.context import Context

PREFETCHED = 32  # prefetched batches of all workers together; at most 4 each
SHARED_MEMORY = Path("/dev/shm")  # holds the batches of worker processes on Linux


class Encoder(Protocol):
    """What extraction needs from a model; `mmmono.vlm.Encoder` implements it.

    Attributes:
        name: stored in the manifest.
        fingerprint: identifies architecture and weights.
        dim: width of the joint embedding space.
    """

    name: str
    fingerprint: str
    dim: int

    @property
    def preprocess(self) -> Callable[[Image], UInt8[Tensor, "3 height width"]]:
        """Function from an image to uint8 pixels; can be pickled."""

    @property
    def tokenize(self) -> Callable[[list[str]], Int[Tensor, "batch tokens"]]:
        """Function from captions to token ids; can be pickled."""

    def encode_image(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images."""

    def encode_text(self, tokens: Tensor) -> Float[Tensor, "batch dim"]:
        """Embed tokenized captions."""


@dataclass(frozen=True)
class Skip:
    """A skipped pair, and the number of pairs before it in its part."""

    before: int
    key: str
    reason: str


@dataclass
class Batch:
    """Consecutive pairs of one part, ready for the encoders.

    Attributes:
        part: index of the part.
        images, tokens: inputs of the encoders; NumPy arrays if batches do not go through shared memory. None if empty.
        rows: metadata of the pairs.
        full: whether each caption fills the encoder's context, so that its end may not be read.
        skips: skipped pairs since the previous batch.
        last: whether this is the part's last batch.
    """

    part: int
    images: Any = None
    tokens: Any = None
    rows: list[dict[str, str]] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    last: bool = False

    def pin_memory(self) -> Batch:
        """Pin the tensors; the DataLoader calls this for a GPU."""
        if self.rows:
            self.images, self.tokens = (torch.as_tensor(value).pin_memory() for value in (self.images, self.tokens))
        return self


@dataclass(frozen=True)
class Failure:
    """An error passed from a worker process to the main process as a value, without the worker's traceback."""

    part: int
    error: MmmonoError


class PartReader(IterableDataset[Batch | Failure]):
    """Reads parts; worker w of W reads every W-th part. A broken part does not stop the others.

    Args:
        source: the pairs.
        parts: indices of the parts to read.
        encoder: provides the tokenizer.
        preprocess: makes pixels of an image, see `preprocessing`.
        batch_size: pairs per batch; a batch never has pairs of two parts.
        most: maximum pairs per part, rounded up to whole batches; None reads all.
        admits: called with each part before it is read; a part for which it returns False is left out. None admits all.

    Attributes:
        shared: whether worker processes pass batches through shared memory; otherwise through a pipe. `read_parts` sets
            it.
    """

    def __init__(
        self,
        source: PairSource,
        parts: Sequence[int],
        encoder: Encoder,
        preprocess: Callable[[Image], UInt8[Tensor, "3 height width"]],
        batch_size: int,
        most: int | None = None,
        admits: Callable[[int], bool] | None = None,
    ) -> None:
        self.source = source
        self.parts = parts
        self.preprocess = preprocess
        self.tokenize = encoder.tokenize
        self.context = Context(encoder.tokenize)
        self.batch_size = batch_size
        self.admits = admits
        self.most = None if most is None else math.ceil(most / batch_size) * batch_size
        self.shared = True

    def __iter__(self) -> Iterator[Batch | Failure]:
        worker = get_worker_info()
        for part in self.parts if worker is None else self.parts[worker.id :: worker.num_workers]:
            if self.admits is not None and not self.admits(part):
                continue
            try:
                yield from self._read(part)
            except BrokenPartError as error:
                yield Failure(part, error)
            except MmmonoError as error:
                yield Failure(part, error)
                return

    def _read(self, part: int) -> Iterator[Batch]:
        pairs: list[ImageTextPair] = []
        skips: list[Skip] = []
        count = 0
        for item in self.source.read(part):
            if isinstance(item, SkippedPair):
                skips.append(Skip(count, item.key, item.reason))
                continue
            if len(pairs) == self.batch_size:
                yield self._collate(Batch(part, skips=skips), pairs)
                pairs, skips = [], []
            pairs.append(item)
            count += 1
            if count == self.most:
                break
        yield self._collate(Batch(part, skips=skips, last=True), pairs)

    def _collate(self, batch: Batch, pairs: list[ImageTextPair]) -> Batch:
        if not pairs:
            return batch
        images = torch.stack([self.preprocess(pair.image) for pair in pairs])
        captions = [pair.caption for pair in pairs]
        tokens = self.tokenize(captions)
        batch.full = self.context.is_full(captions, tokens)
        shared = self.shared or get_worker_info() is None
        batch.images, batch.tokens = (images, tokens) if shared else (images.numpy(), tokens.numpy())
        batch.rows = [self._row(pair) for pair in pairs]
        return batch

    def _row(self, pair: ImageTextPair) -> dict[str, str]:
        group = self.source.group(pair.key)
        own = {"key": pair.key, "caption": pair.caption, "locator": pair.locator, "group": group}
        return own | dict(pair.labels) | own  # labels must not override these columns; they come first


def preprocessing(encoder: Encoder, resize: str) -> Callable[[Image], UInt8[Tensor, "3 height width"]]:
    """Return the encoder's function from an image to pixels, with the resize of the settings.

    Args:
        encoder: the encoder.
        resize: see `ExtractionSettings`.

    Raises:
        ConfigError: the model resizes in a way of its own.
    """
    if resize == "pillow":
        return encoder.preprocess
    by_torch = getattr(encoder.preprocess, "by_torch", None)
    if by_torch is None:
        raise ConfigError(f"extraction.resize={resize} works with models of open_clip: set extraction.resize=pillow")
    found: Callable[[Image], UInt8[Tensor, "3 height width"]] = by_torch()
    return found


def read_parts(reader: PartReader, *, workers: int, gpu: bool) -> Iterator[Batch | Failure]:
    """Yield batches of a reader's parts: in order within a part; parts of different workers interleave.

    Args:
        reader: reads the parts.
        workers: number of reading processes; 0 reads in this process.
        gpu: whether the batches will be moved to a GPU.
    """
    workers = min(workers, len(reader.parts))
    reader.shared = workers == 0 or _fits_shared_memory(workers, reader)
    loader = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        pin_memory=gpu,
        prefetch_factor=_ahead(workers) if workers else None,
        in_order=False,
        worker_init_fn=_begin_worker,
    )
    yield from loader


class ReaderDiedError(DataError):
    """A process that reads pairs was killed."""


@contextmanager
def explained_deaths() -> Iterator[None]:
    """Turn the death of a worker process into a ReaderDiedError; PyTorch raises it anywhere in the main process."""
    try:
        yield
    except RuntimeError as error:
        if re.search(r"DataLoader worker .*(exited unexpectedly|killed by signal)", str(error)):
            raise ReaderDiedError(
                "a process that reads pairs was killed, most likely for want of memory: lower extraction.workers or "
                "extraction.batch_size; finished parts are kept"
            ) from error
        raise


def default_workers(device: torch.device) -> int:
    """Return all cores but one if a GPU encodes; 0 on a CPU, whose cores the encoders keep busy."""
    if device.type != "cuda":
        return 0
    return max(1, usable_cores() - 1)


def _ahead(workers: int) -> int:
    """Number of batches that each worker prefetches."""
    return max(1, min(4, PREFETCHED // workers))


def _fits_shared_memory(workers: int, reader: PartReader) -> bool:
    """Whether prefetched batches fit into half of the free shared memory, which is often 64 MB in containers."""
    if not SHARED_MEMORY.is_dir():
        return True
    from PIL import Image as image_module

    image = reader.preprocess(image_module.new("RGB", (64, 64)))
    needed = workers * (_ahead(workers) + 1) * reader.batch_size * image.numel() * image.element_size()
    return needed < shutil.disk_usage(SHARED_MEMORY).free / 2


def _begin_worker(_: int) -> None:
    # Otherwise the tokenizers library prints a long warning in forked workers, where it uses no threads anyway.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles interrupts
