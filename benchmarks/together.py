"""Five dictionaries in one pass over the pairs, as ratios to five passes in the same run.

    python benchmarks/together.py            # d = n = 512, k = 32, 4096 pairs a batch; one thread

All train through Lightning, as `training.together=true` does, on a store of float16. Three cases:

- resident: the pairs fit into one pool, which is filled once;
- streamed: they do not, and a thread reads the next pool during training; the file lies in the page cache;
- streamed at some MB/s: the same, and each read takes as long as it would from a disk or a network of that speed.

Beside them stands what the steps alone take, with batches that are there already, and what reading alone takes for one
pass: to fetch, convert and normalize the rows. Reading goes on in a thread during the steps. So by the clock one pass can
save something only where reading a batch takes longer than a step; in processor seconds it saves four readings. Both ratios
are printed: the clock's depends on what else the machine does, and waiting for a disk is no work of the processor. Five
passes and one take turns, and ratios are medians of those within the rounds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch

from mmmono.core.memory import keep_freed_memory
from mmmono.core.turns import Turns
from mmmono.dictionaries import PairedFeatures, SAEModule, ShuffledBatches
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.one_pass import OnePass, SharedPairs
from mmmono.dictionaries.pools import CHUNK_ROWS, PairedBatch, RowReader
from mmmono.features import FeatureStore, FeatureView

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TopK": ("topk_sae", {}),
    "TopK, tied": ("topk_sae", {"encoder": "tied"}),
    "BatchTopK": ("batch_topk_sae", {}),
    "Matryoshka of TopK": ("matryoshka_sae", {"select": "sample"}),
    "Matryoshka of BatchTopK": ("matryoshka_sae", {}),
}
VALIDATION = 1024  # pairs


class SlowView(FeatureView):
    """A view whose reads take at least as long as at a given rate, in bytes per second."""

    rate = float("inf")

    def read(self, modality: Any, start: int, stop: int) -> torch.Tensor:
        """Return rows [start, stop) of the view."""
        end = time.perf_counter() + (stop - start) * self.dim * 2 / self.rate
        rows = super().read(modality, start, stop)
        time.sleep(max(0.0, end - time.perf_counter()))
        return rows


@dataclass(frozen=True)
class Case:
    """Trainings at one size.

    Attributes:
        train, val: the pairs.
        latents, k: of each dictionary.
        batch, pool: pairs per batch and pool.
        steps: of each training.
        folder: for Lightning.
    """

    train: SlowView
    val: FeatureView
    latents: int
    k: int
    batch: int
    pool: int
    steps: int
    folder: str

    @property
    def pairs(self) -> tuple[Any, ...]:
        """Arguments of `PairedFeatures`."""
        return self.train, self.val, self.batch, True, 0, self.pool

    def fit(self, kind: str, data: PairedFeatures) -> None:
        """Train a dictionary."""
        self.trainer().fit(self.module(kind), data)

    def module(self, kind: str) -> SAEModule:
        """An untrained dictionary."""
        torch.manual_seed(0)
        architecture, settings = KINDS[kind]
        sae = dictionary_class(architecture)(self.train.dim, self.latents, k=self.k, **settings)  # type: ignore[call-arg]
        assert isinstance(sae, SparseAutoencoder)
        return SAEModule(sae)

    def trainer(self) -> L.Trainer:
        """As trainings have it, without what is written to disk."""
        return L.Trainer(
            accelerator="cpu", devices=1, max_steps=self.steps, val_check_interval=self.steps,
            check_val_every_n_epoch=None, num_sanity_val_steps=0, gradient_clip_val=1.0, logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            default_root_dir=self.folder,
        )  # fmt: skip

    def five_passes(self) -> None:
        """Train one after the other."""
        for kind in KINDS:
            self.fit(kind, PairedFeatures(*self.pairs))

    def one_pass(self) -> None:
        """Train together."""
        turns: Turns[None] = Turns()
        with closing(OnePass(turns)) as one_pass, turns:
            for kind in KINDS:
                turns.add(partial(self.fit, kind, SharedPairs(one_pass, *self.pairs)))
            turns.results()

    def steps_alone(self) -> None:
        """Train one after the other on batches that are there."""
        there = [PairedBatch(*(torch.randn(self.batch, self.train.dim) for _ in range(2))) for _ in range(2)]
        for kind in KINDS:
            self.trainer().fit(self.module(kind), _Ready(there, self.steps))

    def reading_alone(self) -> None:
        """Go through the batches of one training."""
        reader = RowReader(self.train)
        batches = ShuffledBatches(reader, self.batch, pool_rows=self.pool)
        with closing(batches):
            seen = 0
            while seen < self.steps:
                for _ in batches:
                    seen += 1
                    if seen == self.steps:
                        break


class _Ready:
    """Batches that need not be read."""

    def __init__(self, batches: list[PairedBatch], count: int) -> None:
        self.batches = batches
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[PairedBatch]:
        for number in range(self.count):
            yield self.batches[number % len(self.batches)]


class Duration(NamedTuple):
    """Seconds of some work by the clock, and of the processor."""

    clock: float
    processor: float


def duration(work: Callable[[], None]) -> Duration:
    """Do some work."""
    begun = time.perf_counter(), time.process_time()
    work()
    return Duration(time.perf_counter() - begun[0], time.process_time() - begun[1])


def write_store(folder: Path, pairs: int, dim: int) -> None:
    """Write random embeddings in float16."""
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb"):
        (folder / name).mkdir()
        np.save(folder / name / f"{name}_0.npy", rng.standard_normal((pairs, dim), np.float32).astype(np.float16))


def main(arguments: argparse.Namespace) -> None:
    """Measure all cases and print a table."""
    a = arguments
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), a.pairs + VALIDATION, a.dim)
        store = FeatureStore(folder)
        val = FeatureView(store, np.arange(a.pairs, a.pairs + VALIDATION))
        pool = max(CHUNK_ROWS, a.pairs // 4)
        cases = [("resident", a.pairs, float("inf")), ("streamed", pool, float("inf"))]
        cases += [(f"streamed, {rate:g} MB/s", pool, rate * 1e6) for rate in a.rates]
        print(
            f"d = {a.dim}, n = {a.latents}, k = {a.k}, {a.batch} pairs a batch, {a.steps} steps, {a.pairs} pairs;",
            end=" ",
        )
        print(f"{len(KINDS)} dictionaries; {torch.get_num_threads()} threads, {a.rounds} rounds; seconds")
        names = ("five passes", "one pass", "ratio", "ratio, CPU", "steps alone", "reading once")
        print(f"{'':24}" + "".join(f"{name:>13}" for name in names))
        for name, pool, rate in cases:
            train = SlowView(store, np.arange(a.pairs))
            train.rate = rate
            case = Case(train, val, a.latents, a.k, a.batch, pool, a.steps, folder)
            replace(case, steps=1).five_passes()  # loads what the steps need
            measured = [case.five_passes, case.one_pass, case.steps_alone, case.reading_alone]
            rounds = [[duration(work) for work in measured] for _ in range(a.rounds)]
            clock = [statistics.median(found.clock for found in column) for column in zip(*rounds, strict=True)]
            ratio = statistics.median(one.clock / five.clock for five, one, *_ in rounds)
            processor = statistics.median(one.processor / five.processor for five, one, *_ in rounds)
            print(f"{name:24}" + "".join(f"{x:13.2f}" for x in (*clock[:2], ratio, processor, *clock[2:])), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=1 << 15)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=[50.0, 5.0], help="MB/s of a slow disk or network")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()  # as every command does
    main(chosen)
