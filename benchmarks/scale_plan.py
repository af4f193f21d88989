"""Bytes, hours, machines and money for sets from CC3M to LAION-2B, at each stage, from rates that are measured here.

    python benchmarks/scale_plan.py                       # rates of one core of this machine, then the plan
    python benchmarks/scale_plan.py --gpu-pairs 2300 --gpu-price 2.5 --machines 8

Rates of one core are measured on random images and numbers. What cannot be measured here, the GPU, the network and prices,
is an option; the plan prints which values it took.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from feature_store import bare_pass
from PIL import Image

from mmmono.core.streams import Stream
from mmmono.data import SplitShares
from mmmono.data.images import decode_image
from mmmono.dictionaries import DictionaryFeatures, RowReader, TopKSAE
from mmmono.dictionaries.pools import CHUNK_ROWS
from mmmono.features import FeatureSet, FeatureStore, FeatureStoreWriter, FeatureView, RawFeatures, feature_set
from mmmono.features.folding import OfBlocks, Together, Walk, pairs, stored_pairs
from mmmono.features.grouping import split_rows
from mmmono.modality import DominanceStream, SharednessStream
from mmmono.modality.resampling import ResamplingStream
from mmmono.vlm.loading import load_open_clip

SETS = {"CC3M": 2.9e6, "CC12M": 10e6, "LAION-400M": 407e6, "LAION-2B": 2.3e9}  # pairs that could still be fetched
PERMUTATIONS = 10_000  # of `certainty`, whose cost they are
ROWS = 40_000  # of the stores that are measured


@dataclass(frozen=True)
class Rates:
    """What one core does a second, and what a pair takes.

    Attributes:
        jpeg_bytes: of the images that are decoded.
        decode, tokenize, write, read: pairs a second of each stage.
        raw, sae, certainty: pairs a second of MDS and sharedness of raw features, of those of an SAE, and of the resamples
            of raw features.
        pool: pairs a second that are read into a training pool.
        metadata_bytes: of a pair's key, caption and place in the store.
        metadata_memory: bytes of the same in memory.
        shards: shards of a store a second of whose files the headers are read.
        split: pairs a second of the split by keys.
    """

    jpeg_bytes: float
    decode: float
    tokenize: float
    write: float
    read: float
    raw: float
    sae: float
    certainty: float
    pool: float
    metadata_bytes: float
    metadata_memory: float
    shards: float
    split: float


def rate(work: Callable[[], object], units: int, repeats: int = 3) -> float:
    """Units a second, in CPU time of this thread, of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        begin = time.thread_time()
        work()
        times.append(time.thread_time() - begin)
    return units / min(times)


def jpeg(rng: np.random.Generator, side: int) -> bytes:
    """An image with detail, of about as many bytes as a photograph of that size."""
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 255, (side // 3, side // 3, 3), np.uint8))
    coarse.resize((side, side)).save(file, "JPEG", quality=85)
    return file.getvalue()


def fed(view: FeatureView, features: FeatureSet, streams: Callable[[], Sequence[Stream]]) -> Callable[[], object]:  # type: ignore[type-arg]
    def run() -> None:
        together = Together(*streams())
        for block in Walk(view, features).blocks():
            together.add(block)

    return run


def measured(dim: int, latents: int, side: int) -> Rates:
    """Measure with one thread."""
    torch.set_num_threads(1)
    feature_set.WORTH_COMPILING = (
        1  # sets of this size take the compiled kernels; the fastest of several runs compiled nothing
    )
    rng = np.random.default_rng(0)
    encoder = load_open_clip("ViT-B-32", None)
    files = [jpeg(rng, side) for _ in range(64)]
    words = [f"{first}{last}" for first in "bcdfghklmnprstvw" for last in ("ad", "elt", "inge", "oose", "um", "yre")]
    captions = [" ".join(rng.choice(words, 12)) for _ in range(ROWS)]
    both = torch.from_numpy(rng.standard_normal((2, ROWS, dim), np.float32))
    rows = [
        {"key": f"{number:012}", "caption": captions[number], "locator": f"{number // 10_000:05}.tar:{number}"}
        for number in range(ROWS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        writer = FeatureStoreWriter(Path(folder), 1)
        writing = rate(lambda: writer.write(0, both[0], both[1], rows), ROWS, 1)
        store = FeatureStore(folder)
        view = FeatureView(store)
        metadata = store.metadata()
        torch.manual_seed(0)
        sae = DictionaryFeatures("sae", TopKSAE(dim, latents, k=32))
        reader = RowReader(view)
        room, chunks = reader.allocate(ROWS), range(ROWS // CHUNK_ROWS)
        some = FeatureView(store, np.arange(2048))
        return Rates(
            jpeg_bytes=float(np.mean([len(file) for file in files])),
            decode=rate(lambda: [encoder.preprocess(decode_image(file)) for file in files], len(files)),
            tokenize=rate(lambda: encoder.tokenize(captions[:512]), 512),
            write=writing,
            read=rate(lambda: bare_pass(store, 2048), ROWS),
            raw=rate(fed(view, RawFeatures(dim), _scores), ROWS),
            sae=rate(fed(FeatureView(store, np.arange(8192)), sae, _scores), 8192),
            certainty=rate(
                fed(some, RawFeatures(dim), lambda: [OfBlocks(ResamplingStream(PERMUTATIONS), pairs)]), 2048, 1
            ),
            pool=rate(lambda: reader.fill(room, chunks), len(chunks) * CHUNK_ROWS),
            metadata_bytes=sum(file.stat().st_size for file in (Path(folder) / "metadata").iterdir()) / ROWS,
            metadata_memory=float(metadata.memory_usage(deep=True).sum()) / ROWS,
            shards=opening(),
            split=rate(lambda: split_rows(store, "val", SplitShares()), ROWS, 1),
        )


def opening(count: int = 500) -> float:
    """Shards a second of opening a store whose files are in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        writer = FeatureStoreWriter(Path(folder), count)
        rows = [{"key": "0", "caption": "a caption", "locator": "0"}]
        for shard in range(count):
            writer.write(shard, torch.ones(1, 8), torch.ones(1, 8), rows)
        return rate(lambda: FeatureStore(folder), count)


def _scores() -> list[OfBlocks]:  # type: ignore[type-arg]
    return [OfBlocks(DominanceStream(), stored_pairs), OfBlocks(SharednessStream(), stored_pairs)]


def plan(rates: Rates, given: argparse.Namespace) -> None:
    """Print a table of each stage."""
    cpu = 1 / (1 / rates.decode + 1 / rates.tokenize + 1 / rates.write)
    cores = given.gpu_pairs / cpu
    print(
        f"\na GPU that encodes {given.gpu_pairs:,.0f} pairs/s needs {cores:.1f} such cores to decode, tokenize and write"
    )
    columns = (
        "pairs", "shards", "store", "download", "extraction", "cores", "read", "scores raw", "scores SAE", "certainty",
        "epoch", "metadata", "cost",
    )  # fmt: skip
    table = [columns]
    for count in SETS.values():
        stored = count * (4 * given.dim + rates.metadata_bytes)
        gpu = count / given.gpu_pairs / 3600
        hours = {"raw": count / rates.raw, "sae": count / rates.sae, "certainty": count / rates.certainty}
        cpus = {name: seconds / 3600 for name, seconds in hours.items()}
        download = count / given.download / 3600
        month = (count * given.pair_bytes + stored) / 1e12 * given.disk_price
        cost = gpu * (given.gpu_price + cores * given.core_price) + sum(cpus.values()) * given.core_price
        cost += download * 16 * given.core_price + month
        table.append(
            (
                f"{count / 1e6:,.0f} M", size(count * given.pair_bytes), size(stored),
                f"{download / given.machines:,.1f} h", f"{gpu:,.1f} GPU h", f"{count / cpu / 3600:,.0f} h",
                f"{stored / given.disk / 3600 / given.machines:,.2f} h", *(f"{h:,.1f} h" for h in cpus.values()),
                f"{max(stored / given.disk, count / rates.pool) / 3600:,.2f} h", size(count * rates.metadata_memory),
                f"$ {cost:,.0f}",
            )
        )  # fmt: skip
    meaning = (
        "that can still be fetched", "bytes of tars", "bytes of embeddings and metadata",
        f"{given.machines} machines with 16 cores, {given.download:,.0f} pairs/s each",
        f"at {given.gpu_pairs:,.0f} pairs/s", "core hours of decoding, tokenizing, writing",
        f"reading it once, {given.machines} machines, {given.disk / 1e9:g} GB/s each",
        "core hours of MDS and sharedness of the embedding's dimensions",
        f"the same of {given.latents:,} latents of an SAE", f"core hours of {PERMUTATIONS:,} permutations, raw",
        "one epoch of training, the reading of one process", "memory of all keys and captions in one process",
        f"GPU {given.gpu_price:g} $/h, core {given.core_price:g} $/h, a month of {given.disk_price:g} $/TB",
    )  # fmt: skip
    names = ["", *SETS]
    print(f"\n| {' | '.join(names)} | |\n|{'---|' * (len(names) + 1)}")
    for cells in zip(*table, meaning, strict=True):
        print(f"| {' | '.join(cells)} |")


def size(count: float) -> str:
    for unit, value in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= value or unit == "GB":
            return f"{count / value:,.1f} {unit}"
    raise AssertionError


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=512, help="of the embeddings")
    parser.add_argument("--latents", type=int, default=4096, help="of the SAE")
    parser.add_argument("--side", type=int, default=256, help="pixels of an image in a shard")
    parser.add_argument("--pair-bytes", type=float, default=25e3, help="of an image and its caption in a shard")
    parser.add_argument("--gpu-pairs", type=float, default=3000, help="pairs/s that a GPU encodes: ViT-B/32 on an A100")
    parser.add_argument("--download", type=float, default=1400, help="pairs/s that a machine of 16 cores downloads")
    parser.add_argument("--disk", type=float, default=2e9, help="bytes/s that a machine reads")
    parser.add_argument("--machines", type=int, default=1, help="that download and read")
    parser.add_argument("--gpu-price", type=float, default=2.0, help="of an hour, in dollars")
    parser.add_argument("--core-price", type=float, default=0.05, help="of an hour, in dollars")
    parser.add_argument("--disk-price", type=float, default=23.0, help="of a terabyte and month, in dollars")
    arguments = parser.parse_args()
    found = measured(arguments.dim, arguments.latents, arguments.side)
    print(
        f"one core of this machine: width {arguments.dim}, {arguments.latents:,} latents, images of {arguments.side} px"
    )
    for name, value in vars(found).items():
        print(f"{name:16} {value:12,.0f}")
    plan(found, arguments)
