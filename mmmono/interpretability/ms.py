"""Monosemanticity score (MS) of Pach et al. 2025, computed exactly over all samples in one pass.

MS is a weighted mean over all pairs of samples, or over those of different groups; its closed form needs only sums over
samples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Self

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, check_tensor, double, unit_rows
from mmmono.core.streams import Stream, unpacked
from mmmono.modality.groups import GroupsLike, group_codes

CHUNK_ROWS = 256  # a chunk's float64 activations fit into a core's L2 cache


def monosemanticity_score(
    blocks: Iterable[tuple[Float[Tensor, "samples features"], Float[Tensor, "samples dim"]]],
    groups: GroupsLike | None = None,
) -> Float64[Tensor, " features"]:
    """MS = Σ a_i a_j ⟨e_i, e_j⟩ / Σ a_i a_j over pairs i < j for every feature, with a min-max scaled to [0, 1].

    Pairs of one group say nothing of a feature: the texts of one image, or one drawing in several skin tones, are alike
    whatever activates on them. With groups, the sums are over pairs of samples of different groups.

    Computed as (‖Σ a_i e_i‖² − Σ_g ‖Σ_{i∈g} a_i e_i‖²) / ((Σ a_i)² − Σ_g (Σ_{i∈g} a_i)²) from sums of the unscaled
    activations, in one pass; without groups, each sample is a group. Sums are float64, of activations minus the first
    sample's: in float32, the score would be lost to rounding if activations are large relative to their spread or one
    sample outweighs all others.

    Args:
        blocks: activations and embeddings of the same samples, row by row. Embeddings are L2-normalized here; an
            all-zero one has similarity 0 to all others.
        groups: group of each sample, as whole numbers from 0 on in ascending order, so that the samples of a group follow
            one another.

    Returns:
        MS of each feature, at most 1; NaN if fewer than two samples, or only those of one group, lie above the feature's
        minimum.

    Raises:
        NonFiniteError: an activation or an embedding is NaN or infinite.
        ValueError: there are no samples, activations, embeddings and groups do not match, blocks have other features or
            dimensions than those before, or groups are no such numbers or not in order.
    """
    codes = None if groups is None else group_codes(groups)
    groups = None if codes is None else torch.from_numpy(codes)
    stream, start = MonosemanticityStream(), 0
    for activations, embeddings in unpacked(blocks, "activations, embeddings"):
        stream.add(activations, embeddings, None if groups is None else groups[start : start + len(activations)])
        start += len(activations)
    if groups is not None and start != len(groups):
        raise ValueError(f"{len(groups)} groups given for {start} samples")
    return stream.result()


class MonosemanticityStream(Stream[..., Tensor]):
    """Running MS, for callers that compute several things in one pass; see `monosemanticity_score`."""

    def __init__(self) -> None:
        self._sums: _Sums | None = None
        self._open: list[tuple[Tensor, Tensor, Tensor]] = []  # blocks of the last group, which may go on
        self._first: int | None = None  # the first group

    def add(
        self,
        activations: Float[Tensor, "samples features"],
        embeddings: Float[Tensor, "samples dim"],
        groups: Int64[Tensor, " samples"] | None = None,
    ) -> None:
        """Add a block of samples with their embeddings. Errors: see `monosemanticity_score`."""
        for values, name in ((activations, "activations"), (embeddings, "embeddings")):
            check_tensor(values, name)
        if activations.ndim != 2 or embeddings.ndim != 2 or len(activations) != len(embeddings):
            raise ValueError(
                "activations [samples, features] and embeddings [samples, dim] expected, got "
                f"{tuple(activations.shape)} and {tuple(embeddings.shape)}"
            )
        if self._sums is not None and (activations.shape[1], embeddings.shape[1]) != self._sums.ae.shape:
            raise ValueError(
                f"a block of {activations.shape[1]} features and {embeddings.shape[1]} dimensions after blocks of "
                f"{self._sums.ae.shape[0]} and {self._sums.ae.shape[1]}: all must have the same ones"
            )
        if self._sums is not None and len(activations) and (groups is None) != (self._first is None):
            raise ValueError("a block with groups and one without: give the groups of all samples, or of none")
        if groups is not None:
            self._add_groups(activations, embeddings, groups)
            return
        for a, e in zip(activations.split(CHUNK_ROWS), embeddings.split(CHUNK_ROWS), strict=True):
            if len(a):
                self._sums = self._sums or _Sums(double(a[0]), e.shape[1])
                self._sums.add(a, e)

    def _add_groups(self, activations: Tensor, embeddings: Tensor, groups: Tensor) -> None:
        if len(groups) != len(activations):
            raise ValueError(f"{len(groups)} groups for {len(activations)} samples")
        if not len(groups):
            return
        if bool((groups.diff() < 0).any()) or (self._open and groups[0] < self._open[-1][2][0]):
            raise ValueError("the groups of samples must be in ascending order: sort the samples by group")
        if self._first is None:
            self._first, self._sums = int(groups[0]), _Sums(double(activations[0]), embeddings.shape[1])
        last = int(torch.searchsorted(groups, groups[-1]))  # where the last group begins
        block = (activations, embeddings, groups)
        if self._open and groups[0] != self._open[-1][2][0]:
            self._close(self._sums)
            self._open = []
        if last:
            self._open.append((activations[:last], embeddings[:last], groups[:last]))
            self._close(self._sums)
            self._open = []
        self._open.append(tuple(part[last:].clone() for part in block))  # type: ignore[arg-type]

    def _close(self, sums: _Sums | None) -> None:
        """Add the blocks that are waiting, cut between groups."""
        if not self._open or sums is None:
            return
        activations, embeddings, groups = (torch.cat(parts) for parts in zip(*self._open, strict=True))
        starts = torch.cat(
            [groups.new_zeros(1), 1 + groups.diff().nonzero().squeeze(1), groups.new_tensor([len(groups)])]
        )
        first = 0
        while first < len(groups):
            fitting = starts[(starts > first) & (starts <= first + CHUNK_ROWS)]
            end = int(fitting[-1] if len(fitting) else starts[starts > first][0])
            sums.add(activations[first:end], embeddings[first:end], groups[first:end])
            first = end

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`. No group may lie in both.

        Raises:
            ValueError: the other stream's groups do not follow this one's.
        """
        if other._sums is None:
            return
        if (self._first is None) != (other._first is None) and self._sums is not None:
            raise ValueError("a stream with groups and one without cannot be merged")
        if self._open and other._first is not None and other._first <= int(self._open[-1][2][0]):
            raise ValueError(f"group {other._first} of the other stream does not follow those of this one")
        self._close(self._sums)
        self._open = list(other._open)
        self._first = other._first if self._first is None else self._first
        self._sums = self._sums or _Sums(other._sums.origin, len(other._sums.e))
        self._sums.merge(other._sums)

    def result(self) -> Float64[Tensor, " features"]:
        """Return the MS of each feature over all samples added so far. Raises ValueError if there are none."""
        if self._sums is None:
            raise ValueError("no activations to score")
        if not self._open:
            return self._sums.score().cpu()
        whole = copy.deepcopy(self._sums)
        self._close(whole)
        return whole.score().cpu()


class _Sums:
    """Sums of activations minus `origin`, and the extremes of the activations themselves.

    Those over pairs (i, j) of one group, i = j included, are named `near`: of a_i a_j (`near2`), of a_i (`near1`), and
    their number (`near`). The same weighted with ⟨e_i, e_j⟩ are `alike2`, `alike1` and `alike`.
    """

    def __init__(self, origin: Float64[Tensor, " features"], dim: int) -> None:
        self.origin = origin
        self.count = 0
        self.lowest, self.highest = origin.clone(), origin.clone()
        self.at_lowest = torch.zeros_like(origin, dtype=torch.int64)
        self.a = torch.zeros_like(origin)
        self.near2, self.near1, self.near = torch.zeros_like(origin), torch.zeros_like(origin), origin.new_zeros(())
        self.alike2, self.alike1, self.alike = torch.zeros_like(origin), torch.zeros_like(origin), origin.new_zeros(())
        self.ae = origin.new_zeros(len(origin), dim)
        self.e = origin.new_zeros(dim)

    def add(self, activations: Tensor, embeddings: Tensor, groups: Tensor | None = None) -> None:
        check_finite(activations, "sample", self.count)
        check_finite(embeddings, "embedding", self.count, "dimension")
        a = double(activations)
        e = unit_rows(embeddings.to(a.device))
        lowest, highest = a.aminmax(dim=0)
        self._note_extremes(lowest, (a == lowest).sum(0), highest)
        a = a - self.origin
        self.count += len(a)
        total = a.sum(0)
        self.a += total
        if groups is None:
            self._add_singles(a, e, total)
        else:
            same = (groups[:, None] == groups).to(a)
            near, alike = same.sum(1), (e @ e.T) * same
            self.near2, self.near1, self.near = (
                self.near2 + (a * (same @ a)).sum(0), self.near1 + near @ a, self.near + near.sum()
            )  # fmt: skip
            self.alike2 += (a * (alike @ a)).sum(0)
            self.alike1 += alike.sum(1) @ a
            self.alike += alike.sum()
        self.ae.addmm_(a.T, e)
        self.e += e.sum(0)

    def _add_singles(self, a: Tensor, e: Tensor, total: Tensor) -> None:
        """Add samples that are groups of their own: similar to themselves by 1, or 0 if the embedding is all zero."""
        squared = a.square()
        total2 = squared.sum(0)
        self.near2 += total2
        self.near1 += total
        self.near += len(a)
        directed = (e != 0).any(1)
        if not bool(directed.all()):
            total, total2 = directed.double() @ a, directed.double() @ squared
        self.alike1 += total
        self.alike2 += total2
        self.alike += directed.sum()

    def merge(self, other: _Sums) -> None:
        """Add other sums, moved to this origin."""
        device = self.origin.device
        a, ae, e, origin = (x.to(device) for x in (other.a, other.ae, other.e, other.origin))
        near2, near1, near = (x.to(device) for x in (other.near2, other.near1, other.near))
        alike2, alike1, alike = (x.to(device) for x in (other.alike2, other.alike1, other.alike))
        moved = self.origin - origin
        self._note_extremes(*(x.to(device) for x in (other.lowest, other.at_lowest, other.highest)))
        self.count += other.count
        self.a += a - other.count * moved
        self.near2 += _products(near2, near1, near, moved)
        self.near1 += near1 - near * moved
        self.near += near
        self.alike2 += _products(alike2, alike1, alike, moved)
        self.alike1 += alike1 - alike * moved
        self.alike += alike
        self.ae += ae - torch.outer(moved, e)
        self.e += e

    def _note_extremes(self, lowest: Tensor, at_lowest: Tensor, highest: Tensor) -> None:
        low = torch.minimum(self.lowest, lowest)
        self.at_lowest = torch.where(low < self.lowest, 0, self.at_lowest) + torch.where(low < lowest, 0, at_lowest)
        self.lowest, self.highest = low, torch.maximum(self.highest, highest)

    def score(self) -> Tensor:
        low = self.lowest - self.origin
        span = (self.highest - self.origin) - low
        scale = torch.where(span > 0, 1 / span, torch.nan)
        a = (self.a - self.count * low) * scale
        near = _products(self.near2, self.near1, self.near, low) * scale.square()
        alike = _products(self.alike2, self.alike1, self.alike, low) * scale.square()
        ae = (self.ae - torch.outer(low, self.e)) * scale[:, None]
        denominator = a.square() - near
        # With fewer than two active samples or groups, the denominator is only rounding error.
        pairs = (self.count - self.at_lowest >= 2) & (denominator > 1e-9 * a.square())
        return torch.where(pairs, (ae.square().sum(1) - alike) / denominator, torch.nan)


def _products(products: Tensor, sums: Tensor, count: Tensor | int, low: Tensor) -> Tensor:
    """Σ (a_i − low) (a_j − low) over pairs, in both orders, from Σ a_i a_j, Σ a_i and their number or weight."""
    return products - 2 * low * sums + count * low.square()
