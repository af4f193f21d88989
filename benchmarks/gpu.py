"""Pairs a second of dictionary training on a device, beside what the device allows and what other libraries do.

    python benchmarks/gpu.py                                     # d = 1024, n = 1024 and 8192, 4096 pairs a batch
    python benchmarks/gpu.py --device cpu --dim 64 --latents 128 --batch 256 --steps 5

Ours is what `experiments/train.py` does, through Lightning, in the precision that `trainer=auto` takes: with the set
resident on the device, and streamed through two pools from a store on disk. The limits are measured in the same run:
the multiplications of a step at the speed of one large matrix product in that precision, and the bytes it cannot but
move at the speed of a large copy. The libraries (eai-sparsify, sae-lens, dictionary-learning) take the same batches
under the same autocast, those that can be imported; none of them has pairs, so that a pair is two samples.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mmmono.dictionaries import PairedFeatures, SAEModule, TopKSAE
from mmmono.features import FeatureStore, FeatureView

WARM_UP = 3  # steps
Step = Callable[[Tensor], object]


def device_name(device: torch.device) -> str:
    """Name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def finished(device: torch.device) -> float:
    """Wait until the device is idle, and return the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Shortest time of several runs, after one warm-up run."""
    run()
    times = []
    for _ in range(repeats):
        start = finished(device)
        run()
        times.append(finished(device) - start)
    return min(times)


def limits(dim: int, latents: int, batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Upper bounds in pairs per second, from arithmetic alone and from memory bandwidth alone."""
    samples, size = 2 * batch, 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    operations = 2 * size**3 / seconds(lambda: a @ a, device)
    source = torch.empty((1 << 28) if device.type == "cuda" else (1 << 25), device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * 4 * source.numel() / seconds(lambda: target.copy_(source), device)
    # Two products of samples × dim × latents forward, three backward (none for gradients of the embeddings).
    products = 5 * 2 * samples * dim * latents
    # Reads of embeddings, weights, gradients and Adam's two moments, and writes of all but embeddings and gradients.
    moved = 4 * (samples * dim + 2 * latents * dim * (4 + 3))
    return {
        f"limit by arithmetic ({operations / 1e12:.2f} T/s)": batch / products * operations,
        f"limit by bandwidth ({bandwidth / 1e9:.0f} GB/s)": batch / moved * bandwidth,
    }


class Clock(Callback):
    """Measure the time from the end of the warm-up to the end of training."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == WARM_UP:
            self.start = finished(pl_module.device)
        elif trainer.global_step == trainer.max_steps:
            self.taken = finished(pl_module.device) - self.start


def ours(view: FeatureView, latents: int, k: int, batch: int, steps: int, pool: int, device: torch.device) -> float:
    """Pairs per second of training through Lightning."""
    torch.manual_seed(0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator=device.type,
            devices=1,
            precision="bf16-mixed" if device.type == "cuda" else "32-true",
            max_steps=steps + WARM_UP,
            gradient_clip_val=1.0,
            callbacks=[clock],
            logger=L.pytorch.loggers.CSVLogger(folder),
            log_every_n_steps=20,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        trainer.fit(SAEModule(TopKSAE(view.dim, latents, k)), PairedFeatures(view, view, batch, pool_rows=pool))
    return batch * steps / clock.taken


def sparsify_step(dim: int, latents: int, k: int, device: torch.device) -> Step:
    """Training step of eai-sparsify."""
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(dim, SparseCoderConfig(num_latents=latents, k=k), device=device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3)

    def step(z: Tensor) -> None:
        optimizer.zero_grad()
        sae(z).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        sae.set_decoder_norm_to_unit_norm()

    return step


def saelens_step(dim: int, latents: int, k: int, device: torch.device) -> Step:
    """Training step of sae-lens."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=dim, d_sae=latents, k=k, device=str(device)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3)

    def step(z: Tensor) -> None:
        optimizer.zero_grad()
        sae.training_forward_pass(TrainStepInput(z, {}, None, 0, False)).loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    return step


def dictionary_learning_step(dim: int, latents: int, k: int, device: torch.device) -> Step:
    """Training step of dictionary-learning."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(10**6, dim, latents, k, layer=0, lm_name="", lr=1e-3, device=str(device))
    return lambda z: trainer.update(1, z)


PEERS: dict[str, Callable[[int, int, int, torch.device], Step]] = {
    "sparsify": sparsify_step,
    "sae-lens": saelens_step,
    "dictionary-learning": dictionary_learning_step,
}


def peer(step: Step, batches: list[Tensor], steps: int, device: torch.device) -> float:
    """Pairs per second of a library's training step on batches that are on the device."""
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for number in range(WARM_UP):
            step(batches[number % len(batches)])
        start = finished(device)
        for number in range(steps):
            step(batches[number % len(batches)])
    return len(batches[0]) // 2 * steps / (finished(device) - start)


def compare(view: FeatureView, latents: int, k: int, batch: int, steps: int, device: torch.device) -> None:
    """Measure all implementations at one size and print a table."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pairs = len(view)
    speeds = limits(view.dim, latents, batch, dtype, device)
    speeds["mmmono, resident"] = ours(view, latents, k, batch, steps, pairs + batch, device)
    speeds["mmmono, streamed"] = ours(view, latents, k, batch, steps, pairs // 4, device)
    resident = PairedFeatures(view, view, batch, pool_rows=pairs + batch).train_dataloader()
    batches = [torch.cat([pair.image, pair.text]).to(device) for pair, _ in zip(resident, range(4), strict=False)]
    missing = []
    for name, make in PEERS.items():
        try:
            step = make(view.dim, latents, k, device)
        except ImportError as error:
            missing.append(f"{name} ({error})")
            continue
        speeds[name] = peer(step, batches, steps, device)
    print(f"\n{device_name(device)}, PyTorch {torch.__version__}, {str(dtype).removeprefix('torch.')} products")
    print(f"d = {view.dim}, n = {latents}, k = {k}, {batch} pairs a batch, {steps} steps")
    lowest = min(list(speeds.values())[:2])
    print(f"{'':34}{'pairs/s':>14}{'of the limit':>14}")
    for name, speed in speeds.items():
        print(f"{name:34}{speed:14,.0f}{speed / lowest:14.3f}")
    for absent in missing:
        print(f"not measured: {absent}")


def main(device: str, dim: int, latents: list[int], k: int, batch: int, steps: int) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("img_emb", "text_emb"):
            (Path(folder) / name).mkdir()
            for part in range(2):
                rows = rng.standard_normal((-(-16 * batch // 2048) * 1024, dim), np.float32).astype(np.float16)
                np.save(Path(folder) / name / f"{name}_{part}.npy", rows)
        view = FeatureView(FeatureStore(folder))
        for width in latents:
            compare(view, width, k, batch, steps, chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--latents", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=50)
    main(**vars(parser.parse_args()))
