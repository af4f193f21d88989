"""Training steps of the autoencoders that keep the largest pre-activations, as ratios of TopK's step in the same run.

    python benchmarks/family.py            # d = 512, k = 32, batch 4096, n = 512 and 4096; one thread

All see the same batches, with L0 = k at the start of training, and take turns, a step each. Times are processor seconds
of the process, so that a machine that others use as well does not decide; a ratio is the median of the ratios within
the turns. Kinds that train with whole matrices are not compared: their step depends on n, not on k.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from train_sae import features, our_step

from mmmono.core.memory import keep_freed_memory
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import dictionary_class

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "TopK": ("topk_sae", {}),
    "BatchTopK": ("batch_topk_sae", {}),
    "Matryoshka of BatchTopK": ("matryoshka_sae", {}),
    "Matryoshka of TopK": ("matryoshka_sae", {"select": "sample"}),
}


def compare(dim: int, latents: int, k: int, batch: int, rounds: int) -> None:
    """Time all kinds at one size and print a table."""
    data = features(8 * batch, dim, torch.Generator().manual_seed(0))
    steps = {}
    for name, (architecture, settings) in KINDS.items():
        torch.manual_seed(0)
        sae = dictionary_class(architecture)(dim, latents, k=k, **settings)  # type: ignore[call-arg]
        assert isinstance(sae, SparseAutoencoder)
        sae.initialize_pre_bias(data.mean(0), data.mean(0))
        steps[name] = our_step(sae)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start = time.process_time()
            step(data.split(batch)[number % 8])
            if number > 1:  # the first rounds warm up
                times[name].append(time.process_time() - start)
    print(f"\nd = {dim}, n = {latents}, k = {k}, batch {batch}, {rounds} steps, {torch.get_num_threads()} threads")
    print(f"{'':26}{'CPU ms':>10}{'× TopK':>10}")
    for name, seconds in times.items():
        ratio = statistics.median(mine / topk for mine, topk in zip(seconds, times["TopK"], strict=True))
        print(f"{name:26}{1000 * statistics.median(seconds):10.0f}{ratio:10.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every command does
    for latents in arguments.latents:
        compare(arguments.dim, latents, arguments.k, arguments.batch, arguments.rounds)
