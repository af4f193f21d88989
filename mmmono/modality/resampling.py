"""Uncertainty of modality dominance scores: permutation test, bootstrap intervals, and scores on halves of the data.

All three are sums of the groups' ratios with different random weights, so that one pass over the pairs computes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, check_mask, double
from mmmono.core.ranges import check_number, check_whole
from mmmono.core.streams import Stream, require_equal
from mmmono.features.grouping import GroupNumbers
from mmmono.features.rows import check_pairs
from mmmono.modality.dominance import paired_ratio
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.groups import GroupsLike, OpenGroups, group_sizes, grouped_blocks, numbered_groups, shared_groups
from mmmono.modality.resampled_sums import ResampledSums

CHUNK_PAIRS = 512  # pairs, and groups, per draw of random numbers, independent of the block size
QUANTILE_LIMIT = 1 << 24  # largest input of torch.nanquantile
KEPT = 1000  # permutations whose scores are kept

Blocks = Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]]


@dataclass(frozen=True)
class DominanceResamples:
    """Permutation p-values of R(d), and R(d) on resamples of the groups of pairs.

    Attributes:
        p_value: two-sided p-value of the null that image and text are exchangeable within groups, under which R(d) is ½
            in expectation. Where no permutation reaches the observed score, it is the normal tail of
            `sign_flip_p_values`, at most 1 / (n_permutations + 1), and at least 2 / 2ⁿ, the smallest that n equal groups
            allow, with n = (Σ |e_g|)² / Σ e_g² for the sums e_g of ratio − ½ over groups.
            NaN for features that no sample activates.
        q_value: p-value adjusted for the false discovery rate over all features (Benjamini and Hochberg 1995).
        bootstrap: R(d) on Poisson bootstrap resamples; NaN if no sample of a resample activates the feature.
        halves: R(d) on both halves of random splits of the groups.
        permuted: R(d) on the first 1,000 permutations.
    """

    p_value: Float64[Tensor, " features"]
    q_value: Float64[Tensor, " features"]
    bootstrap: Float64[Tensor, "n_bootstrap features"]
    halves: Float64[Tensor, "2 n_halves features"]
    permuted: Float64[Tensor, "n_kept features"]

    def q_values(self, live: Bool[Tensor, " features"]) -> Float64[Tensor, " features"]:
        """q-values over the live features alone, which is the family of tests that is reported; NaN for the others.

        Raises:
            TypeError, ValueError: `live` is no mask of these features.
        """
        check_mask(live, "live", len(self.p_value))
        return q_values(torch.where(live, self.p_value, torch.nan))

    def null_std(self, live: Bool[Tensor, " features"]) -> float:
        """Standard deviation of the live features' R(d) if no feature preferred a modality; NaN without live features.

        The root of the mean, over permutations, of the scores' (population) variance over features. A permutation swaps
        the same groups for all features, so that correlated features stay correlated. Raises as `q_values` does.
        """
        check_mask(live, "live", len(self.p_value))
        if not bool(live.any()):
            return float("nan")
        return float(self.permuted[:, live].var(1, correction=0).mean().sqrt())

    def interval(self, level: float = 0.95) -> Float64[Tensor, "2 features"]:
        """Bootstrap percentile interval of R(d): lower bounds in row 0, upper bounds in row 1.

        It is too short, or has no width, for features that few pairs activate and one modality wins nearly always;
        `score_intervals` covers these.
        """
        check_number("level", level, above=0, below=1)
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        features = max(1, QUANTILE_LIMIT // max(1, len(self.bootstrap)))
        return torch.cat([torch.nanquantile(b, tails, dim=0) for b in self.bootstrap.split(features, dim=1)], dim=1)


def resample_dominance(
    blocks: Blocks,
    n_permutations: int = 10_000,
    n_bootstrap: int = 1000,
    n_halves: int = 20,
    seed: int = 0,
    groups: GroupsLike | None = None,
) -> DominanceResamples:
    """Test and resample Eq. 1 over blocks of paired activations, in one pass.

    A permutation swaps image and text of all pairs of a group with probability ½; the bootstrap and the halves take
    groups as a whole (Cameron, Gelbach and Miller 2008). Pairs in which both activations are 0 are left out, as in
    `dominance_scores(undefined="skip")`. Sums are float64. Random numbers are drawn for the groups in the order of their
    last pairs: results depend on the seed and the device type, not on the block size.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        n_permutations: permutations of the null.
        n_bootstrap: bootstrap resamples.
        n_halves: random splits into two halves.
        seed: seed of all draws.
        groups: the group of each pair of all blocks, as a number from 0 on (`FeatureView.groups`); by default, each pair
            is a group of its own. Memory holds the sums of groups that have begun and not ended.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: image and text blocks differ in shape, there is no block, or there are not as many groups as pairs.
    """
    codes = None if groups is None else numbered_groups(groups)
    shared = None if codes is None else shared_groups(codes)
    sizes = None if shared is None else group_sizes(shared)
    stream = ResamplingStream(n_permutations, n_bootstrap, n_halves, seed, sizes)
    for image, text, of_block in grouped_blocks(blocks, codes if shared is None else shared):
        stream.add(image, text, None if shared is None else of_block)
    return stream.result()


class ResamplingStream(Stream[[Tensor, Tensor, GroupNumbers | None], DominanceResamples]):
    """Running resamples of R(d), for callers that compute several things in one pass; see `resample_dominance`.

    Random numbers are drawn for the groups in the order of their last pairs, 512 groups at a time. The stream of a range
    (`fresh`) draws its own; groups that lie in two ranges are drawn for when the streams are merged. So cutting data into
    other ranges gives other draws of the same distribution, whereas the same ranges give the same bits.

    Memory: 8 bytes for each feature and permutation, 16 for each feature and bootstrap resample.

    Args:
        n_permutations, n_bootstrap, n_halves, seed: see `resample_dominance`.
        group_sizes: number of pairs of each group, over all blocks and streams to be merged; None if all pairs are
            groups of their own.
    """

    def __init__(
        self,
        n_permutations: int = 10_000,
        n_bootstrap: int = 1000,
        n_halves: int = 20,
        seed: int = 0,
        group_sizes: np.ndarray | None = None,
    ) -> None:
        for name, draws in (("n_permutations", n_permutations), ("n_bootstrap", n_bootstrap), ("n_halves", n_halves)):
            check_whole(name, draws, least=0)
        self.draws = n_permutations, n_bootstrap, n_halves
        self.seed = seed
        self._range: int | None = None
        self._sums: ResampledSums | None = None
        self._open = None if group_sizes is None else OpenGroups(group_sizes)
        self._waiting: Tensor | None = None  # complete groups, fewer than are drawn for at a time
        self._pairs = 0

    def fresh(self, number: int) -> Self:
        """Return an empty stream of a range, which draws numbers of its own; see `Stream.fresh`."""
        other = super().fresh(number)
        other._range = number
        return other

    def shared(self) -> tuple[object, ...]:
        """Return the sizes of all groups; see `Stream.shared`."""
        return () if self._open is None else (self._open.sizes,)

    def add(
        self,
        image: Float[Tensor, "pairs features"],
        text: Float[Tensor, "pairs features"],
        groups: GroupNumbers | None = None,
    ) -> None:
        """Add a block of pairs.

        Args:
            image, text: activations; row i of both belongs to the same pair.
            groups: group of each pair, if the stream has groups of several pairs.

        Raises:
            NonFiniteError: an activation is NaN or infinite.
            ValueError: the sides differ in shape, there is not one group for each pair, or a group has more pairs than
                were announced.
        """
        check_pairs(image, text, None if self._sums is None else len(self._sums.observed))
        codes = None if self._open is None else np.asarray([] if groups is None else groups)
        if codes is not None and len(codes) != len(image):
            raise ValueError(
                f"groups of {len(codes)} pairs, but the block has {len(image)}: both must be of the same pairs"
            )
        for start in range(0, len(image), CHUNK_PAIRS):
            chunk = slice(start, start + CHUNK_PAIRS)
            rows = self._ratios(image[chunk], text[chunk])
            self._draw(rows if self._open is None or codes is None else self._open.add(codes[chunk], rows))

    def _ratios(self, image: Tensor, text: Tensor) -> Tensor:
        """Return ratio − ½ (0 if undefined) and whether it is defined, as one float64 tensor [pairs, 2 · features]."""
        check_finite(image, "image", self._pairs)
        check_finite(text, "text", self._pairs)
        self._pairs += len(image)
        ratio = paired_ratio(double(image), double(text))
        known = ~ratio.isnan()
        return torch.cat([(ratio - 0.5).masked_fill_(~known, 0), known.double()], 1)

    def _draw(self, rows: Tensor, least: int = CHUNK_PAIRS) -> None:
        """Add complete groups; draw for those of full chunks, or for as many as `least` at once."""
        rows = (
            rows
            if self._waiting is None or not len(self._waiting)
            else torch.cat([self._waiting.to(rows.device), rows])
        )
        self._sums = self._sums or ResampledSums(rows.shape[1] // 2, self.draws, rows.device, self._draw_seed())
        while len(rows) >= max(1, least):
            excess, pairs = rows[:CHUNK_PAIRS].chunk(2, 1)
            self._sums.add(excess, pairs)
            rows = rows[CHUNK_PAIRS:]
        self._waiting = rows.clone()  # not the block that it is a part of

    def _draw_seed(self) -> int:
        if self._range is None:
            return self.seed
        return int(np.random.SeedSequence((self.seed, self._range)).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def merge(self, other: Self) -> None:
        """Add the groups of another stream, also those that both have begun; see `Stream.merge`.

        Random numbers for groups that were not drawn for yet are drawn by this stream.
        """
        require_equal("(n_permutations, n_bootstrap, n_halves)", self.draws, other.draws)
        if (self._open is None) != (other._open is None):
            raise ValueError("a stream with groups of several pairs and one without cannot be merged")
        self._pairs += other._pairs
        if other._sums is None or other._waiting is None:
            return
        self._draw(other._waiting)
        assert self._sums is not None
        self._sums.merge(other._sums)
        if self._open is not None and other._open is not None and (ended := self._open.merge(other._open)) is not None:
            self._draw(ended)

    def result(self) -> DominanceResamples:
        """Return all resamples; draws for the groups that were waiting for a full chunk.

        Raises:
            ValueError: nothing was added, or a group has fewer pairs than were announced.
        """
        if self._sums is None or self._waiting is None:
            raise ValueError("no activations to resample")
        if self._open is not None and len(self._open):
            raise ValueError(f"{len(self._open)} groups have fewer pairs than were announced: add all pairs first")
        self._draw(self._waiting[:0], least=1)
        sums, (_, n_bootstrap, n_halves) = self._sums, self.draws
        p_value = sums.p_value().cpu()
        scores = (0.5 + sums.weighted / sums.weights).cpu()
        return DominanceResamples(
            p_value,
            q_values(p_value),
            scores[:n_bootstrap],
            scores[n_bootstrap:].unflatten(0, (2, n_halves)),
            (0.5 + sums.permuted[:KEPT] / sums.informative).cpu(),
        )
