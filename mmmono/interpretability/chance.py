"""Random samples for Eq. 5, and the chance level of its scores: those of random samples in place of the top samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.interpretability.monosemanticity import FLOOR, embsim, winrate

Lookup = Callable[[Int64[Tensor, " rows"]], Float[Tensor, "rows dim"]]

DRAWN = ("embsim", "embsim_pooled", "winrate", "mono")  # metrics that compare with random samples, in this order
CHANCE_SETS = 1000  # sets of random samples scored in each draw for the chance level
CHUNK = 256  # sets scored at a time; limits the memory for their samples' embeddings
CHANCE_STREAM = 1 << 32  # added to the seed, so that the chance level has random samples of its own


def random_rows(
    population: Int64[Tensor, " pool"], features: int, m: int, draws: int, seed: int
) -> Int64[Tensor, "draws features m"]:
    """Draw m distinct samples of a population for every draw and feature.

    Each draw has a part of the population of its own, so that the spread between draws is also that between populations;
    if the parts would hold fewer than 2 m samples, all draws share the population.

    Args:
        population: rows to draw from, in random order.
        features: number of features.
        m: samples per feature.
        draws: number of independent draws.
        seed: seed of the draws.

    Raises:
        ValueError: the population is smaller than m.
    """
    if m > len(population):
        raise ValueError(f"m={m} samples asked for out of {len(population)}")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_sets(part, features, m, generator) for part in _parts(population, m, draws)])


def _parts(population: Tensor, m: int, draws: int) -> list[Tensor]:
    apart = len(population) // draws >= 2 * m
    return [population[draw::draws] if apart else population for draw in range(draws)]


def _sets(population: Tensor, count: int, m: int, generator: torch.Generator) -> Int64[Tensor, "count m"]:
    rows = torch.empty(count, m, dtype=torch.int64)
    for start in range(0, count, 1024):
        shuffled = torch.rand(min(1024, count - start), len(population), generator=generator)
        rows[start : start + 1024] = population[shuffled.topk(m, dim=1).indices]
    return rows


def eq5_scores(
    active: Int64[Tensor, "sets m"], random: Int64[Tensor, "sets m"], embed: Lookup, floor: float = FLOOR
) -> Float64[Tensor, "metrics sets"]:
    """Compute EmbSim in both forms, WinRate and Mono of sets of samples, in the order of `DRAWN`.

    Args:
        active: rows of the top samples of each set.
        random: rows of its random samples.
        embed: returns the embeddings of rows, as unit vectors.
        floor: see `embsim`.
    """
    scores = torch.empty(len(DRAWN), len(active), dtype=torch.float64)
    for start in range(0, len(active), CHUNK):
        part = slice(start, start + CHUNK)
        top, other = (embed(rows[part].flatten()).unflatten(0, rows[part].shape) for rows in (active, random))
        scores[0, part] = embsim(top, other, floor=floor)
        scores[1, part] = embsim(top, other, form="pooled", floor=floor)
        scores[2, part] = winrate(top, other)
    scores[3] = (scores[0] + scores[2]) / 2
    return scores


@dataclass(frozen=True)
class Chance:
    """Chance level of the scores of Eq. 5 on one modality.

    Attributes:
        by_draw: mean score of random sets in each draw; metrics in the order of `DRAWN`.
        spread: standard error of each of these means.
    """

    by_draw: Float64[Tensor, "metrics draws"]
    spread: Float64[Tensor, "metrics draws"]

    def of(self, metric: str) -> Float64[Tensor, " draws"]:
        """Return the level in each draw."""
        return self.by_draw[DRAWN.index(metric)]

    def level(self, metric: str) -> float:
        """Return the level, averaged over draws."""
        return float(self.of(metric).mean())

    def error(self, metric: str) -> float:
        """Return the standard error of the level: over draws or, if there is only one, over its random sets."""
        levels = self.of(metric)
        if len(levels) > 1:
            return float(levels.std()) / len(levels) ** 0.5
        return float(self.spread[DRAWN.index(metric)])


def chance_level(
    pool: Int64[Tensor, " pool"],
    embed: Lookup,
    m: int,
    draws: int,
    seed: int,
    *,
    floor: float = FLOOR,
) -> Chance:
    """Score random samples as if they were top samples.

    The random "top" samples of a draw come from the same part of the pool as its random samples (see `random_rows`), and
    no sample is in both of a set. They are as distinct as the pool: give one without repeated captions or variants.

    Args:
        pool: rows from which random samples are drawn, in random order.
        embed: returns the embeddings of rows, as unit vectors.
        m: samples per set.
        draws: number of draws, as for the scores.
        seed: seed of the draws; not that of `random_rows` with the same number.
        floor: see `embsim`.

    Raises:
        ValueError: the pool is smaller than m.
    """
    if m > len(pool):
        raise ValueError(f"m={m} samples asked for out of {len(pool)}")
    generator = torch.Generator().manual_seed(seed + CHANCE_STREAM)
    levels, spreads = [], []
    for part in _parts(pool, m, draws):
        if len(part) >= 2 * m:
            active, random = _sets(part, CHANCE_SETS, 2 * m, generator).split(m, dim=1)
        else:  # the same samples may be on both sides
            active, random = (_sets(part, CHANCE_SETS, m, generator) for _ in range(2))
        scores = eq5_scores(active, random, embed, floor)
        levels.append(scores.mean(1))
        spreads.append(scores.std(1) / CHANCE_SETS**0.5)
    return Chance(torch.stack(levels, dim=1), torch.stack(spreads, dim=1))
