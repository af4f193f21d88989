"""What more processes, a cluster and streaming gain or cost, each against one process that has everything in memory.

    python benchmarks/scale.py                            # random data in a temporary folder, a thread a worker
    python benchmarks/scale.py --sparse                   # memory of a training from a sparse store of 400 M × 768 pairs

Ratios of speed are of whole runs of the same work, timed from the moment at which all workers are ready. What it takes to
start workers is in the lines that say so. Only a quiet machine with as many cores as workers shows what they can gain.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feature_store import write
from lightning_overhead import time_lightning
from PIL import Image

from mmmono.core.memory import keep_freed_memory
from mmmono.data import WebDatasetPairs
from mmmono.dictionaries import DictionaryFeatures, PairedFeatures, RowReader, ShuffledBatches, TopKSAE
from mmmono.features import MODALITIES, FeatureStore, FeatureView
from mmmono.features.cluster import ClusterSettings
from mmmono.features.cluster_extraction import ClusterJob, extract_on_cluster
from mmmono.features.extraction import begin_store, extract_share
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.folding import Advance, OfBlocks, Threads, Together, Walk, folded, stored_pairs
from mmmono.features.shares import Share
from mmmono.modality import DominanceStream, SharednessStream
from mmmono.pipeline.engines import Engine, Ray
from mmmono.vlm.loading import load_open_clip

MODEL = "ViT-S-32-alt"  # with random weights, which are as fast as others
SETTINGS = ExtractionSettings(workers=0)
BATCH = 32  # pairs of a forward pass on a CPU
RANGE = 1 << 13  # pairs of a range, so that there are many of a few


def row(what: str, value: str, against: str = "", ratio: float | None = None) -> None:
    print(f"{what:52} {value:>18}  {against:34} {'' if ratio is None else f'{ratio:6.2f}'}", flush=True)


def write_shards(folder: Path, shards: int, pairs: int) -> str:
    """Write shards of JPEGs of 256 × 256 pixels; return their pattern."""
    rng = np.random.default_rng(0)
    for number in range(shards):
        with tarfile.open(folder / f"{number:04}.tar", "w") as tar:
            for pair in range(pairs):
                coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
                file = io.BytesIO()
                coarse.resize((256, 256)).save(file, "JPEG", quality=90)
                for suffix, content in ((".jpg", file.getvalue()), (".txt", f"image {pair} of {number}".encode())):
                    member = tarfile.TarInfo(f"{number:04}-{pair:05}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return f"{folder}/{{0000..{shards - 1:04}}}.tar"


def encoder() -> Any:
    return load_open_clip(MODEL, None)


def share_of(shards: str, store: Path, share: Share, ready: Any, ended: Any) -> None:
    """Do a share of an extraction with one thread, once all others are ready."""
    torch.set_num_threads(1)
    model = encoder()
    ready.wait()
    begin = time.time()
    extract_share(WebDatasetPairs(shards), model, store, share, settings=SETTINGS)
    ended.put((begin, time.time()))


def extraction(shards: str, workers: int) -> float:
    """Seconds of an extraction by several processes, without the time to start them."""
    with tempfile.TemporaryDirectory() as folder:
        begin_store(WebDatasetPairs(shards), Path(folder), SETTINGS)
        return timed_together(workers, lambda number: (share_of, (shards, Path(folder), Share(number, workers))))


def timed_together(workers: int, work: Callable[[int], tuple[Callable[..., None], tuple[Any, ...]]]) -> float:
    """Seconds from the moment at which all processes are ready until the last one ends; their numbers begin at 1."""
    spawn = multiprocessing.get_context("spawn")
    ready, ended = spawn.Barrier(workers), spawn.Queue()
    jobs = [work(number) for number in range(1, workers + 1)]
    processes = [spawn.Process(target=target, args=(*arguments, ready, ended)) for target, arguments in jobs]
    for process in processes:
        process.start()
    times = [ended.get() for _ in processes]
    for process in processes:
        process.join()
    return max(end for _, end in times) - min(begin for begin, _ in times)


def encode_alone(batches: int, ready: Any, ended: Any) -> None:
    """Encode the same images again and again with one thread: no reading, no writing, nothing in common with others."""
    torch.set_num_threads(1)
    model, images = encoder(), torch.zeros(BATCH, 3, 224, 224)
    ready.wait()
    begin = time.time()
    for _ in range(batches):
        model.encode_image(images)
    ended.put((begin, time.time()))


def encoding(batches: int, workers: int) -> float:
    """Seconds in which several processes encode so many batches each: what the machine itself lets them gain."""
    return timed_together(workers, lambda number: (encode_alone, (batches,)))


def of_parts(folder: Path, begin: float, pairs: int) -> tuple[float, float]:
    """Seconds until a first part was written, and seconds a pair from then on."""
    written = sorted(file.stat().st_mtime for file in (folder / "reports").iterdir())
    return written[0] - begin, (written[-1] - written[0]) / (len(written) - 1) / pairs


def one_process(shards: str, pairs: int) -> float:
    """Seconds a pair of an extraction in this process."""
    with tempfile.TemporaryDirectory() as folder:
        source = WebDatasetPairs(shards)
        begin_store(source, Path(folder), SETTINGS)
        with redirect_stdout(io.StringIO()):
            extract_share(source, encoder(), Path(folder), Share(1, 1), settings=SETTINGS)
        return of_parts(Path(folder), 0, pairs)[1]


def on_cluster(shards: str, pairs: int) -> tuple[float, float]:
    """Seconds until one worker of a Ray cluster has written a part, and seconds a pair from then on."""
    with tempfile.TemporaryDirectory() as folder:
        source = WebDatasetPairs(shards)
        begin_store(source, Path(folder), SETTINGS)
        begin = time.time()
        job = ClusterJob(source, encoder, Path(folder), "cpu", SETTINGS)
        with redirect_stdout(io.StringIO()):
            extract_on_cluster(job, ClusterSettings(workers=1, cpus=1))
        return of_parts(Path(folder), begin, pairs)


class Timed:
    """Notes when the ranges come that an engine folds."""

    def __init__(self, engine: Engine | Threads) -> None:
        self.engine, self.moments = engine, [time.perf_counter()]

    def folded_ranges(self, stream: Any, walk: Walk, advance: Advance) -> Iterator[Any]:
        for one in self.engine.folded_ranges(stream, walk, advance):
            self.moments.append(time.perf_counter())
            yield one


def scores(view: FeatureView, engine: Engine | Threads, workers: int) -> tuple[float, float]:
    """Seconds until each worker has folded a range of an SAE's scores and sharedness, and seconds a pair from then on."""
    torch.manual_seed(0)
    path = Walk(view, DictionaryFeatures("sae", TopKSAE(view.dim, 2 * view.dim, k=32)), rows=RANGE)
    both = Together(OfBlocks(DominanceStream(), stored_pairs), OfBlocks(SharednessStream(), stored_pairs))
    timed = Timed(engine)
    with redirect_stdout(io.StringIO()):
        folded(both, path, timed).result()
    start, *came = timed.moments
    return came[workers - 1] - start, (came[-1] - came[workers - 1]) / (len(came) - workers) / RANGE


def encoding_alone(dim: int, product: bool) -> tuple[float]:
    """Seconds a pair in which the SAE of `scores` encodes both sides, or takes no more than its product with them."""
    torch.manual_seed(0)
    sae, rows = DictionaryFeatures("sae", TopKSAE(dim, 2 * dim, k=32)), torch.randn(512, dim)
    weight, times = torch.randn(2 * dim, dim), 100
    with torch.inference_mode():
        begin = time.perf_counter()
        for _ in range(times):
            for side in MODALITIES:
                _ = rows @ weight.T if product else sae.encode(rows, side)
        return ((time.perf_counter() - begin) / times / len(rows),)


def score_alone(rows: int, ready: Any, ended: Any) -> None:
    """Score a store of this process's own with one thread, once all others are ready."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with store(2 * RANGE, 256) as view:
        scores(view, Threads(1), 1)  # loads the compiled kernels
    with store(rows, 256) as view:
        ready.wait()
        begin = time.time()
        scores(view, Threads(1), 1)
        ended.put((begin, time.time()))


def scoring(rows: int, workers: int) -> float:
    """Seconds in which several processes score a store each: what the machine itself lets them gain."""
    return timed_together(workers, lambda number: (score_alone, (rows,)))


def step(batch: int, processes: int, steps: int) -> float:
    """Seconds of a training step with processes of one thread, each a part of the batch."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), __file__,
        "--rank-batch", str(batch // processes), "--steps", str(steps),
    ]  # fmt: skip
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return next(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("seconds "))


def rank(batch: int, steps: int) -> None:
    """What each process of `step` does; the first one prints the median."""
    place, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with store(8 * 1024, 256) as view:
        options = {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
        seconds = time_lightning(PairedFeatures(view, view, batch), 256, 1024, steps, view.store.path, **options)
    if place == 0:
        print(f"seconds {seconds}")


@contextmanager
def store(rows: int, dim: int) -> Iterator[FeatureView]:
    """A store of random numbers."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows, dim, shard=rows)
        yield FeatureView(FeatureStore(folder))


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """A cluster of this machine with a core for each worker, which is there before anything is timed."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def medians(rounds: int, *runs: Callable[[], Any]) -> list[Any]:
    """Median of each run, number by number, over rounds in which they take turns."""
    found = [[run() for run in runs] for _ in range(rounds)]
    return [np.median(np.array(of), axis=0) for of in zip(*found, strict=True)]


def compare_extraction(shards: int, pairs: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pattern, count = write_shards(Path(folder), shards, pairs), shards * pairs
        print(f"extraction of {count:,} pairs in {shards} shards by {MODEL}")
        alone, two = medians(rounds, partial(extraction, pattern, 1), partial(extraction, pattern, 2))
        row("one process", f"{count / alone:8.1f} pairs/s")
        row("two processes, extraction.part_of", f"{count / two:8.1f} pairs/s", "of one process", alone / two)
        batches = max(4, count // BATCH // 2)
        alone, two = medians(rounds, partial(encoding, batches, 1), partial(encoding, batches, 2))
        row("two processes that only encode (the limit)", "", "of one process", 2 * alone / two)
        with cluster(2):
            each, (start, ray) = medians(
                rounds, partial(one_process, pattern, pairs), partial(on_cluster, pattern, pairs)
            )
        row("engine=ray, one worker", f"{1 / ray:8.1f} pairs/s", "of one process, after its start", each / ray)
        row("  until it has written its first shard", f"{start:8.1f} s")


def compare_scores(rows: int, rounds: int) -> None:
    with store(rows, 256) as view:
        print(f"\nMDS and sharedness of 512 latents of an SAE over {rows:,} × 256 pairs, ranges of {RANGE:,}")
        (_, one), (_, two) = medians(rounds, *(partial(scores, view, Threads(n), n) for n in (1, 2)))
        row("one thread", f"{1e-3 / one:8.1f} k pairs/s")
        row("two threads, engine.workers=2", f"{1e-3 / two:8.1f} k pairs/s", "of one thread", one / two)
        for name, product in (("encoding alone", False), ("the product of encoding alone, in float32", True)):
            ((limit,),) = medians(rounds, partial(encoding_alone, view.dim, product))
            row(f"  {name}", f"{1e-3 / limit:8.1f} k pairs/s", "speed of the scores", limit / one)
        alone, both = medians(rounds, partial(scoring, rows // 2, 1), partial(scoring, rows // 2, 2))
        row("two processes, each with a store of its own (limit)", "", "of one process", 2 * alone / both)
        with cluster(2):
            found = medians(rounds, *(partial(scores, view, Ray(workers=n), n) for n in (1, 2)))
        for number, (_, each) in enumerate(found, 1):
            name = f"engine=ray engine.workers={number}"
            row(name, f"{1e-3 / each:8.1f} k pairs/s", "of one thread, after its start", one / each)
        row("  until the first ranges are there", f"{found[-1][0]:8.1f} s")


def compare_training(steps: int, rounds: int) -> None:
    print("\ntraining of an SAE with 1,024 latents of 256 dimensions, 1,024 pairs a step")
    one, two = medians(rounds, partial(step, 1024, 1, steps), partial(step, 1024, 2, steps))
    row("one process", f"{1e3 * one:8.1f} ms a step")
    row("trainer.devices=2, half of the pairs each", f"{1e3 * two:8.1f} ms a step", "speed of one process", one / two)
    with store(16_384, 512) as view:
        datas = [PairedFeatures(view, view, 1024, pool_rows=rows) for rows in (16_384, 4096)]
        runs = [partial(time_lightning, data, 512, 512, steps, view.store.path) for data in datas]
        whole, streamed = medians(rounds, *runs)
    print("\ntraining of an SAE with 512 latents of 512 dimensions, 1,024 pairs a step")
    row("set in memory", f"{1e3 * whole:8.1f} ms a step")
    row(
        "streamed in pools of a quarter",
        f"{1e3 * streamed:8.1f} ms a step",
        "speed of the set in memory",
        whole / streamed,
    )


def sparse(millions: int, dim: int, pool_rows: int, steps: int) -> None:
    """Train from a store that takes no disk space, and say how much memory it took."""

    def held() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("RssAnon")).split()[1])

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), millions * 1_000_000, dim, shard=1_000_000, sparse=True)
        view = FeatureView(FeatureStore(folder))
        batches = ShuffledBatches(RowReader(view, normalize=False), 4096, pool_rows=pool_rows)
        sae = TopKSAE(dim, dim, k=32)
        warm = torch.randn(4096, dim)
        sae(warm, warm).loss.backward()  # with what a step itself takes
        before, peak, begin = held(), 0, time.perf_counter()
        for number, batch in enumerate(batches):
            sae(batch.image, batch.text).loss.backward()
            peak = max(peak, held() - before)
            if number + 1 == steps:
                break
        seconds = time.perf_counter() - begin
        batches.close()
        pool, size = 2 * 4 * batches.pool_rows * dim, 2 * 2 * len(view) * dim
        print(
            f"{len(view):,} × {dim} × 2 ({size / 1e12:.2f} TB): {steps} steps of 4,096 pairs in {seconds:.0f} s, at most "
            f"{peak / 1e9:.2f} GB more than before; the two pools have {2 * pool / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=1000, help="of a shard")
    parser.add_argument("--rows", type=int, default=262_144, help="pairs that are scored")
    parser.add_argument("--steps", type=int, default=100, help="of a training")
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are printed")
    parser.add_argument("--sparse", action="store_true", help="only the memory of a training from a sparse store")
    parser.add_argument("--millions", type=int, default=400, help="of pairs in the sparse store")
    parser.add_argument("--dim", type=int, default=768, help="of the sparse store")
    parser.add_argument("--pool-rows", type=int, default=1 << 17, help="of a training from the sparse store")
    parser.add_argument("--rank-batch", type=int, help=argparse.SUPPRESS)  # of the processes that this one starts
    given = parser.parse_args()
    keep_freed_memory()  # as the entrypoints do
    if given.rank_batch:
        rank(given.rank_batch, given.steps)
    elif given.sparse:
        sparse(given.millions, given.dim, given.pool_rows, given.steps)
    else:
        torch.set_num_threads(1)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore")
        compare_extraction(given.shards, given.pairs, given.rounds)
        compare_scores(given.rows, given.rounds)
        compare_training(given.steps, given.rounds)
