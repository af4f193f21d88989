"""How an SAE's codes are computed on a CPU: the product, and the search for the k largest pre-activations of each sample.

    python benchmarks/encoding.py                 # one thread; d = 512 and 1,024, as wide and eight times as wide

A search has to read each pre-activation once, which `amax` does: how many times as long it takes is the last column. The
three searches take turns, and times are the medians of processor seconds, which other programs on the machine hardly change.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mmmono.dictionaries.sparse import _compiled_topk, topk

SHAPES = ((512, 512, 32), (1024, 1024, 32), (512, 4096, 32), (1024, 8192, 64), (512, 4096, 819))


def seconds(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each piece of work, which take turns."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):  # the first compiles
        for work, of in zip(works, spent, strict=True):
            begin = time.process_time()
            work()
            of.append(time.process_time() - begin)
    return [statistics.median(of[1:]) for of in spent]


def measure(dim: int, latents: int, k: int, samples: int, rounds: int) -> None:
    """Print the times of an SAE's product and of three searches, which must agree."""
    torch.manual_seed(0)
    rows, weight = torch.randn(samples, dim), torch.randn(latents, dim) / dim**0.5
    activations = rows @ weight.T
    found = [search(activations, k)[0].sort(1).values for search in (torch.topk, topk, _compiled_topk)]
    assert all(torch.equal(one, found[0]) for one in found)
    times = seconds(
        rounds,
        lambda: torch.mm(rows, weight.T),
        lambda: activations.topk(k, dim=1, sorted=False),
        lambda: topk(activations, k),
        lambda: _compiled_topk(activations, k),
        lambda: activations.amax(1),
    )
    product, plain, levels, compiled, read = (1e6 * one / samples for one in times)
    print(
        f"{f'{dim} to {latents}, k = {k}':20} {product:7.1f} {plain:12.1f} {levels:15.1f} {compiled:10.1f} {read:9.2f} "
        f"{compiled / read:15.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("µs a sample          product   torch.topk   in two levels   compiled   to read   compiled/read")
    for shape in SHAPES:
        measure(*shape, options.samples, options.rounds)
