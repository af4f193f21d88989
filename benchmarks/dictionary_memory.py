"""Memory that the training of an SAE takes, by its number of latents: from which width on one device does not hold it.

    python benchmarks/dictionary_memory.py      # d = 256, 128 and 512 pairs a batch, 2^14 to 2^16 latents, on a CPU

Each width is trained for three steps in a process of its own, whose peak of memory is taken. A line through the peaks gives
the bytes a parameter: weights, gradients, Adam's two moments. A CPU computes with the active latents alone; a GPU also holds
the pre-activations of a batch, which cannot be measured here: widths are printed without them, and with 4 bytes for each.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor
from train_sae import our_step

from mmmono.dictionaries import TopKSAE

STEPS = 3
DEVICES = {"A100, 80 GB": 80e9, "H200, 141 GB": 141e9}


def main(dim: int, batches: list[int], widths: list[int]) -> None:
    rows, peaks = [], []
    print(f"d = {dim}, k = 32, float32")
    for batch in batches:
        for width in widths:
            ours, theirs = mp.Pipe()
            process = mp.get_context("spawn").Process(target=train, args=(dim, batch, width, theirs))
            process.start()
            peaks.append(ours.recv())
            process.join()
            rows.append((2 * dim * width, 1))
            print(f"{batch:6} pairs a batch {width:9,} latents {peaks[-1] / 1e9:7.2f} GB", flush=True)
    parameter, _ = np.linalg.lstsq(np.array(rows, float), np.array(peaks), rcond=None)[0]
    print(f"{parameter:.1f} bytes a parameter")
    for name, memory in DEVICES.items():
        for width, batch in ((768, 4096), (768, 1024), (4096, 1024)):
            most = [memory / (2 * width * parameter + 2 * batch * held) / 1e6 for held in (0, 4)]
            print(f"{name}: d = {width}: {most[0]:.2f} M latents, {most[1]:.2f} M with {batch} pairs a batch on a GPU")


def train(dim: int, batch: int, width: int, told: Connection) -> None:
    """Train for some steps; tell by how many bytes the memory peaked above what it was before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs = torch.randn(2 * batch, dim)  # images, then texts
    train_steps(TopKSAE(dim, 64, k=32), pairs)  # what the libraries take
    before = peak()
    train_steps(TopKSAE(dim, width, k=32), pairs)
    told.send(peak() - before)


def train_steps(sae: TopKSAE, pairs: Tensor) -> None:
    step = our_step(sae)
    for _ in range(STEPS):
        step(pairs)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--widths", type=int, nargs="+", default=[1 << 14, 1 << 15, 1 << 16])
    chosen = parser.parse_args()
    main(chosen.dim, chosen.batches, chosen.widths)
