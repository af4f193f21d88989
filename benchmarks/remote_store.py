"""Rates at which a feature store on another machine is read: every request is answered after a delay.

    python benchmarks/remote_store.py                     # 200,000 pairs of 512 dimensions in float16, 50 ms a request

A pass over all pairs, a training pool filled in random order, and both again with what was kept on the disk.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing as mp
import os
import re
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from mmmono.data import blocks
from mmmono.data.blocks import BlockSettings
from mmmono.dictionaries import RowReader
from mmmono.dictionaries.pools import CHUNK_ROWS
from mmmono.features import FeatureStore, FeatureView


def main(pairs: int, dim: int, delay: float) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "store", pairs, dim)
        ours, theirs = mp.Pipe()
        server = mp.get_context("spawn").Process(target=serve, args=(root, delay, theirs), daemon=True)
        server.start()
        address = f"http://127.0.0.1:{ours.recv()}/store"
        kept = BlockSettings(folder=root / "blocks", limit=10**12)
        print(f"{pairs:,} pairs of {dim} in float16, {1e3 * delay:.0f} ms a request")
        row("on this disk", FeatureStore(root / "store"))
        row("16 requests at a time", FeatureStore(address))
        first = FeatureStore(address, kept)
        row("the same, and kept on the disk", first)
        row("from what was kept", FeatureStore(address, kept))
        blocks.THREADS = 1
        row("one request at a time", FeatureStore(address))
        server.kill()


def row(name: str, store: FeatureStore) -> None:
    """Print the pairs per second of a pass, and of a pool that is filled in random order."""
    view = FeatureView(store)
    reader = RowReader(view, normalize=False)
    chunks = np.random.default_rng(0).permutation(len(view) // CHUNK_ROWS).tolist()
    room = reader.allocate(len(view))
    passed = timed(lambda: [None for _ in view.blocks(512)])
    filled = timed(lambda: reader.fill(room, chunks))
    print(f"{name:32} pass {len(view) / passed:12,.0f} pairs/s   pool {len(view) / filled:12,.0f} pairs/s", flush=True)


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def write(store: Path, pairs: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb"):
        (store / name).mkdir(parents=True)
        for shard, start in enumerate(range(0, pairs, 50_000)):
            rows = rng.standard_normal((min(50_000, pairs - start), dim), np.float32).astype(np.float16)
            np.save(store / name / f"{name}_{shard}.npy", rows)


def serve(root: Path, delay: float, told: Connection) -> None:
    """Answer requests for ranges of the files in a folder."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(delay)
            file = root / self.path.lstrip("/")
            if not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = file.stat().st_size
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()  # type: ignore[union-attr]
            stop = min(int(last) + 1, size)
            self.send_response(206)
            self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - int(first)))
            self.end_headers()
            self.wfile.flush()
            with file.open("rb") as opened:
                os.sendfile(self.connection.fileno(), opened.fileno(), int(first), stop - int(first))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before a request is answered")
    chosen = parser.parse_args()
    main(chosen.pairs, chosen.dim, chosen.delay)
