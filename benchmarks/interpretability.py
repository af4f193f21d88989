"""Compare the speed of top samples, EmbSim and WinRate, and MS with that of straightforward implementations.

    python benchmarks/interpretability.py      # writes 1 M pairs × 1024, float16, 4 GB, into a temporary folder

The store lies in the page cache when it is read, so that the ratio is to memory, not to somebody's disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from feature_store import bare_pass, best, write
from torch import Tensor

from mmmono.core.memory import keep_freed_memory
from mmmono.features import MODALITIES, FeatureStore, FeatureView, RawFeatures, activations
from mmmono.features.feature_set import COMPILED_BLOCK
from mmmono.interpretability import TopSamples, TopStream, monosemanticity_score
from mmmono.interpretability.chance import random_rows
from mmmono.interpretability.report import monosemanticity

M = 20


def top(pairs: int, dim: int) -> None:
    """Time the search for all features' top samples against a pass that only sums the store's bits."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), pairs, dim, shard=100_000)
        view = FeatureView(FeatureStore(folder))

        def read() -> None:
            bare_pass(view, COMPILED_BLOCK)

        def stream(normalize: bool) -> Callable[[], None]:
            def run() -> None:
                streams = [TopStream(M) for _ in MODALITIES]
                for block in activations(view, RawFeatures(dim), normalize=normalize):
                    for stream, values in zip(streams, (block.image_rows, block.text_rows), strict=True):
                        stream.add(values)

            return run

        read()
        seconds = {
            "bare pass": best(read),
            f"top {M}, as stored": best(stream(False)),
            f"top {M}, L2-normalized": best(stream(True)),
        }
        print(f"top samples of {dim} features over {pairs:,} pairs, both modalities")
        for name, value in seconds.items():
            print(f"  {name:28} {value:6.2f} s   {seconds['bare pass'] / value:5.2f} of a bare pass")


def eq5(features: int, looped: int) -> None:
    """Time Eq. 5 for both modalities against a loop over features and pairs, extrapolated from `looped` features."""
    generator = torch.Generator().manual_seed(0)
    tables = [
        torch.nn.functional.normalize(torch.randn(20_000, dim, generator=generator) + 0.1, dim=1) for dim in (768, 384)
    ]
    tops = [
        TopSamples(torch.ones(features, M), torch.randint(0, 20_000, (features, M), generator=generator))
        for _ in tables
    ]
    random = random_rows(torch.arange(1000), features, M, draws=1, seed=0)

    def batched() -> list[Tensor]:
        return [
            monosemanticity(top, random, lambda rows, t=table: t[rows]).mono
            for top, table in zip(tops, tables, strict=True)
        ]

    def loop() -> list[list[float]]:
        scores: list[list[float]] = []
        for top, table in zip(tops, tables, strict=True):
            scores.append([])
            for feature in range(looped):
                active, other = table[top.rows[feature]], table[random[0, feature]]
                similarity = wins = 0.0
                for i in range(M):
                    for j in range(M):
                        if i != j:
                            plus, minus = float(active[i] @ active[j]), float(other[i] @ other[j])
                            floored = minus if abs(minus) >= 0.01 else (-0.01 if minus < 0 else 0.01)
                            similarity += (plus - minus) / floored
                            wins += plus > minus
                scores[-1].append((similarity + wins) / 2 / (M * (M - 1)))
        return scores

    start = time.perf_counter()
    expected = loop()
    slow = (time.perf_counter() - start) * features / looped
    fast = best(batched)
    for mine, theirs in zip(batched(), expected, strict=True):
        torch.testing.assert_close(mine[:looped], torch.tensor(theirs, dtype=torch.float64), rtol=1e-3, atol=1e-4)
    print(f"EmbSim + WinRate, {features} features × 2 modalities, m = {M}")
    print(f"  batched {fast:.3f} s, loop {slow:.1f} s (from {looped} features): {slow / fast:,.0f} ×, equal scores")


def ms(features: int, samples: int, feasible: int) -> None:
    """Time MS of all features, and compare it with the all-pairs formula on `feasible` samples, which fit in memory."""
    generator = torch.Generator().manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(samples, 768, generator=generator), dim=1)
    a = torch.rand(samples, features, generator=generator).sub_(0.9).clamp_min_(0)

    def streamed(count: int) -> Tensor:
        return monosemanticity_score(zip(a[:count].split(4096), e[:count].split(4096), strict=True))

    def pairwise(count: int) -> Tensor:
        scaled = a[:count] - a[:count].amin(0)
        scaled = scaled / scaled.amax(0)
        similarity = (e[:count] @ e[:count].T).fill_diagonal_(0)
        weight = scaled.sum(0).square() - scaled.square().sum(0)
        return (scaled * (similarity @ scaled)).sum(0) / weight

    torch.testing.assert_close(streamed(feasible).float(), pairwise(feasible), rtol=1e-3, atol=1e-5)
    whole, small, pairs = (
        best(lambda: streamed(samples)),
        best(lambda: streamed(feasible)),
        best(lambda: pairwise(feasible)),
    )
    floor = best(lambda: a.T @ e)
    print(f"MS, {features} features over {samples:,} samples, embeddings of 768")
    print(f"  streamed {whole:.2f} s; its matrix product alone {floor:.2f} s: {floor / whole:.2f} of the limit")
    print(
        f"  over {feasible:,} samples: streamed {small:.3f} s, all pairs {pairs:.2f} s: {pairs / small:.0f} ×, equal scores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--pairs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    keep_freed_memory()
    top(arguments.pairs, 1024)
    eq5(1024, looped=8)
    ms(1024, 50_000, feasible=10_000)


if __name__ == "__main__":
    main()
