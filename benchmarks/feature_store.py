"""Compare the speed of reading a store with memcpy, and that of scoring with a pass that only adds.

    python benchmarks/feature_store.py                    # 1 M pairs × 1024, float16: 4 GB in a temporary folder
    python benchmarks/feature_store.py --cc3m             # a sparse store of CC3M's size: peak memory of a whole pass

The files lie in the page cache when they are read, so that ratios are to memory; at the end they come from the disk
once more, to see which of both holds a pass up there.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmmono.core.memory import keep_freed_memory
from mmmono.core.parts import in_parts, num_parts
from mmmono.features import FeatureStore, FeatureView, RawFeatures, activations
from mmmono.features.feature_set import COMPILED_BLOCK
from mmmono.modality import dominance_scores


def best(run: Callable[[], object], repeats: int = 3, before: Callable[[], object] = lambda: None) -> float:
    """Shortest time of several runs in seconds, without the time of `before`, which runs before each."""
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def bare_pass(store: FeatureStore | FeatureView, block_size: int) -> None:
    """Read every number once with all threads, summing the bits as integers."""
    for block in store.blocks(block_size):
        for rows in (block.image, block.text):
            rows.view(torch.int64).sum()


def forget(path: Path) -> None:
    """Drop a store's files from the page cache."""
    os.sync()  # pages that are not on disk yet cannot be dropped
    for file in path.rglob("*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def write(path: Path, pairs: int, dim: int, shard: int, sparse: bool = False) -> None:
    """Write a store of random numbers, or a sparse one that reads as zeros and takes no disk space."""
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb"):
        (path / name).mkdir()
        for number, start in enumerate(range(0, pairs, shard)):
            rows = min(shard, pairs - start)
            file = path / name / f"{name}_{number}.npy"
            array = np.lib.format.open_memmap(file, "w+", np.float16, (rows, dim))
            if not sparse:
                array[:] = rng.standard_normal((rows, dim), np.float32)
            del array


def speed(pairs: int, dim: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), pairs, dim, shard=100_000)
        store = FeatureStore(folder)
        view = FeatureView(store)
        size = 2 * pairs * dim * 2
        # Load everything: a smaller source would fit in a CPU cache, for which the files are too large.
        sources = [np.load(file) for file in sorted(Path(folder).rglob("*.npy"))]
        target = np.empty((COMPILED_BLOCK, dim), np.float16)

        def copy_part(rows: np.ndarray, _: int, first: int, end: int) -> None:
            np.copyto(target[first:end], rows[first:end])

        def memcpy() -> None:
            for source in sources:
                for start in range(0, len(source), COMPILED_BLOCK):
                    rows = source[start : start + COMPILED_BLOCK]
                    in_parts(partial(copy_part, rows), len(rows), num_parts())

        def mds(normalize: bool, groups: np.ndarray | None = None) -> Callable[[], object]:
            return lambda: dominance_scores(
                ((b.image_rows, b.text_rows) for b in activations(view, RawFeatures(dim), normalize=normalize)),
                groups=groups,
            )

        copy_s = best(memcpy)
        sources.clear()

        def read() -> None:
            bare_pass(store, COMPILED_BLOCK)

        read_s = best(read)
        print(f"{pairs:,} pairs × {dim} × 2 modalities, float16, {num_parts()} threads")
        for name, seconds in {
            "memcpy of as many bytes": copy_s,
            "bare pass over the store": read_s,
            "MDS, as stored": best(mds(False)),
            "MDS, L2-normalized": best(mds(True)),
            "MDS, one pair a group": best(mds(True, np.arange(pairs))),
            "MDS, five pairs a group": best(mds(True, np.arange(pairs) // 5)),
        }.items():
            print(
                f"{name:26} {seconds:5.2f} s  {size / seconds / 1e9:5.1f} GB/s  {pairs / seconds / 1e6:5.2f} M pairs/s  "
                f"{copy_s / seconds:4.2f} of memcpy  {read_s / seconds:4.2f} of a bare pass"
            )
        disk = [best(run, before=lambda: forget(Path(folder))) for run in (read, mds(True))]
        print(
            f"from the disk: bare pass {disk[0]:.2f} s, {size / disk[0] / 1e9:.1f} GB/s; "
            f"MDS, L2-normalized {disk[1]:.2f} s, {disk[0] / disk[1]:.2f} of it"
        )


def memory(pairs: int, dim: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), pairs, dim, shard=5_000, sparse=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        view = FeatureView(FeatureStore(folder))
        start = time.perf_counter()
        scores = dominance_scores(
            (b.image_rows, b.text_rows) for b in activations(view, RawFeatures(dim), normalize=False)
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        allocated = sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*.npy"))
        print(
            f"{scores.num_pairs:,} pairs × {dim} × 2 modalities ({4 * pairs * dim / 1e9:.1f} GB apparent, "
            f"{allocated / 1e9:.1f} GB on disk): MDS in {seconds:.0f} s, peak memory {after / 1e6:.2f} GB "
            f"({before / 1e6:.2f} GB before)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--cc3m", action="store_true", help="only the memory of a pass over 2.9 M pairs")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the entrypoints do
    if arguments.cc3m:
        memory(2_905_936, arguments.dim)
    else:
        speed(arguments.pairs, arguments.dim)
