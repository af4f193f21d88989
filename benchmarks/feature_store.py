"""Reading a feature store against memcpy, and scoring modality dominance against reading, in one run.

    python benchmarks/feature_store.py                    # 1 M pairs × 1024, float16: 4 GB in a temporary folder
    python benchmarks/feature_store.py --cc3m             # a sparse store of CC3M's size: peak memory of a whole pass

The files lie in the page cache when they are read, so that the ratio is to memory, not to somebody's disk.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmmono.core.memory import keep_freed_memory
from mmmono.features import FeatureStore, FeatureView, RawFeatures, activations
from mmmono.modality import dominance_scores


def best(run: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of some runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def write(path: Path, pairs: int, dim: int, shard: int, sparse: bool = False) -> None:
    """A store of random numbers, or of holes that read as zeros and take no room."""
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


def speed(pairs: int, dim: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), pairs, dim, shard=100_000)
        store = FeatureStore(folder)
        view = FeatureView(store)
        size = 2 * pairs * dim * 2
        # All of it, in memory: a smaller source would be copied from a cache that the files are too large for.
        sources = [np.load(file) for file in sorted(Path(folder).rglob("*.npy"))]
        target = np.empty((block, dim), np.float16)

        def memcpy() -> None:
            for source in sources:
                for start in range(0, len(source), block):
                    rows = source[start : start + block]
                    np.copyto(target[: len(rows)], rows)

        def read() -> None:
            for _ in store.blocks(block):
                pass

        def mds(normalize: bool) -> Callable[[], object]:
            return lambda: dominance_scores(
                (b.image_rows, b.text_rows) for b in activations(view, RawFeatures(dim), normalize=normalize)
            )

        copy_s = best(memcpy)
        sources.clear()
        read_s = best(read)
        print(f"{pairs:,} pairs × {dim} × 2 modalities, float16, blocks of {block} pairs")
        print(f"memcpy of as many bytes     {copy_s:7.2f} s  {size / copy_s / 1e9:6.2f} GB/s")
        print(
            f"reading the store           {read_s:7.2f} s  {size / read_s / 1e9:6.2f} GB/s  {copy_s / read_s:5.2f} of memcpy"
        )
        for normalize in (False, True):
            mds_s = best(mds(normalize), 2)
            name = "MDS, L2-normalized" if normalize else "MDS, as stored"
            print(
                f"{name:27} {mds_s:7.2f} s  {size / mds_s / 1e9:6.2f} GB/s  {pairs / mds_s / 1e6:5.2f} M pairs/s, "
                f"{mds_s / read_s:.1f} × the time of reading"
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
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--cc3m", action="store_true", help="only the memory of a pass over 2.9 M pairs")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the entrypoints do
    if arguments.cc3m:
        memory(2_905_936, arguments.dim)
    else:
        speed(arguments.pairs, arguments.dim, arguments.block)
