"""What Lightning, the data module and the book-keeping add to the bare training step, in one run.

    python benchmarks/lightning_overhead.py               # d = n = 1024, k = 32, 4096 pairs a batch

Also what streaming adds, where the set is larger than a pool, and how much memory the pools of such a set take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from train_sae import our_step

from mmmono.dictionaries import PairedFeatures, RowReader, SAEModule, ShuffledBatches, TopKSAE
from mmmono.features import FeatureStore, FeatureView


class Clock(Callback):
    """Record the times at which training batches end."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.moments.append(time.perf_counter())


def main(dim: int, latents: int, batch: int, steps: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for name in ("img_emb", "text_emb"):
            (Path(folder) / name).mkdir()
            np.save(Path(folder) / name / f"{name}_0.npy", rng.standard_normal((8 * batch, dim), np.float32))
        view = FeatureView(FeatureStore(folder))
        data = PairedFeatures(view, view, batch)
        streamed_data = PairedFeatures(view, view, batch, pool_rows=2 * batch)
        bare, wrapped, streamed = [], [], []
        for _ in range(rounds):
            bare.append(time_bare(data, dim, latents, steps))
            wrapped.append(time_lightning(data, dim, latents, steps, Path(folder)))
            streamed.append(time_lightning(streamed_data, dim, latents, steps, Path(folder)))
        ratios = [w / b for w, b in zip(wrapped, bare, strict=True)]
        slower = [s / w for s, w in zip(streamed, wrapped, strict=True)]
        print(f"d = {dim}, n = {latents}, k = 32, {batch} pairs a batch, {steps} steps, {rounds} rounds")
        print(f"bare step      {1e3 * statistics.median(bare):8.1f} ms")
        print(
            f"in Lightning   {1e3 * statistics.median(wrapped):8.1f} ms, overhead {statistics.median(ratios) - 1:+.1%}"
        )
        print(
            f"streamed       {1e3 * statistics.median(streamed):8.1f} ms, overhead {statistics.median(slower) - 1:+.1%}"
        )
        print(f"memory of streaming, in pools: {pools_in_memory(view, batch):.2f}")


def time_bare(data: PairedFeatures, dim: int, latents: int, steps: int) -> float:
    """Median seconds per step: forward, backward, projection, clipping, optimizer, renormalization."""
    step = our_step(TopKSAE(dim, latents))
    batches = [torch.cat(batch) for batch, _ in zip(data.train_dataloader(), range(8), strict=False)]
    times = []
    for number in range(steps):
        start = time.perf_counter()
        step(batches[number % len(batches)])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def pools_in_memory(view: FeatureView, batch: int) -> float:
    """Peak memory of two epochs with pools of a quarter of the set, as a multiple of a pool's size."""

    def held() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("RssAnon")).split()[1])

    batches = ShuffledBatches(RowReader(view), batch, pool_rows=2 * batch)
    pool = 2 * 4 * batches.pool_rows * view.dim
    before, peak = held(), 0
    for _ in range(2):
        for _ in batches:
            peak = max(peak, held() - before)
    batches.close()
    return peak / pool


def time_lightning(data: PairedFeatures, dim: int, latents: int, steps: int, folder: Path, **options: Any) -> float:
    """Median seconds per step in Lightning, between the ends of batches; `options` are the trainer's."""
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu",
        **{"devices": 1, **options},
        max_steps=steps,
        gradient_clip_val=1.0,
        callbacks=[clock],
        logger=L.pytorch.loggers.CSVLogger(str(folder)),
        log_every_n_steps=20,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(SAEModule(TopKSAE(dim, latents)), data)
    return statistics.median(np.diff(clock.moments))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--latents", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
