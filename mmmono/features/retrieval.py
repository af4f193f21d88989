"""Metrics of a joint embedding space: retrieval, zero-shot classification and contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.finite import check_finite, unit_rows
from mmmono.core.ranges import check_whole

CHUNK_ROWS = 1024  # queries that are compared with all targets at once
TIE = 1e-9  # cosines that differ by less count as equal; in float64, those of equal vectors differ by about 1e-15
EQUAL = 3e-3  # unit vectors of one group that are closer are equal: half precision moves an embedding by up to 1e-3


def recall_at_k(
    queries: Float[Tensor, "pairs dim"],
    targets: Float[Tensor, "pairs dim"],
    ks: Sequence[int] = (1, 5, 10),
    groups: np.ndarray[Any, Any] | None = None,
) -> dict[int, float]:
    """Return R@k by cosine similarity: share of queries with a right target among the k most similar targets.

    Computed in float64. Tied targets count with the probability of a right one among the k under random tie-breaking, so
    that all-zero features score at chance level. NaN if there are no pairs.

    Args:
        queries, targets: the two sides of the same pairs.
        ks: numbers of targets.
        groups: group of each pair, as `FeatureView.groups` returns it. Any target of the query's group is right, such as
            each of an image's five captions. Rows of a side that are equal and of one group count once: the image of five
            captions is one query, and one target. Default: each pair is a group, and the target of the same row is right.

    Raises:
        NonFiniteError: a value is NaN or infinite.
        TypeError: a side is no tensor.
        ValueError: queries, targets and groups differ in number, or queries and targets in width.
    """
    for k in ks:
        check_whole("ks", k)
    _check_sides(queries, targets, "query", "target")
    if len(queries) != len(targets):
        raise ValueError(f"{len(queries)} queries but {len(targets)} targets: each query has the target of its row")
    if groups is None:
        own = torch.arange(len(queries))
        return _recall(queries, targets, own, own, ks)
    if len(groups) != len(queries):
        raise ValueError(f"{len(queries)} pairs but {len(groups)} groups: each pair has the group of its row")
    own = torch.from_numpy(np.ascontiguousarray(groups))
    sides = [(side, distinct_rows(side, groups)) for side in (queries, targets)]
    (queries, of_queries), (targets, of_targets) = ((side[kept], own[kept.cpu()]) for side, kept in sides)
    return _recall(queries, targets, of_queries, of_targets, ks)


def zero_shot_accuracy(
    samples: Float[Tensor, "samples dim"], classes: Float[Tensor, "classes dim"], target: Int64[Tensor, " samples"]
) -> float:
    """Return the share of samples whose own class is the most similar one by cosine similarity, computed in float64.

    Args:
        samples: one row per sample.
        classes: one row per class, such as the embedding of the class's name.
        target: index of each sample's class; samples with a negative index are ignored.

    Returns:
        The accuracy; NaN if all samples are ignored. If n classes tie for the first place, the own class counts 1/n.

    Raises:
        NonFiniteError: a value is NaN or infinite.
        TypeError: samples or classes are no tensor.
        ValueError: samples and classes differ in width, samples and targets in number, or there is no such class.
    """
    if target.shape != samples.shape[:1]:
        raise ValueError(
            f"{len(samples)} samples but targets of shape {tuple(target.shape)}: each sample has one class"
        )
    if len(target) and int(target.max()) >= len(classes):
        raise ValueError(
            f"a sample is of class {int(target.max())}, but the {len(classes)} classes are numbered from 0"
        )
    known = target >= 0
    _check_sides(samples[known], classes, "sample", "class")
    return _recall(samples[known], classes, target[known], torch.arange(len(classes)), (1,))[1]


def distinct_rows(rows: Float[Tensor, "rows dim"], groups: np.ndarray[Any, Any]) -> Int64[Tensor, " kept"]:
    """Ascending positions of the rows that are not equal to an earlier row of their group, up to half precision."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    kept = np.ones(len(groups), dtype=bool)
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        members = order[start : start + size]
        unit = unit_rows(rows[torch.from_numpy(members).to(rows.device)])
        equal = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist") <= EQUAL
        kept[members[equal.tril(-1).any(1).cpu().numpy()]] = False
    return torch.from_numpy(np.flatnonzero(kept)).to(rows.device)


def _check_sides(one: Tensor, other: Tensor, of_one: str, of_other: str) -> None:
    """Raise unless both sides are finite matrices of one width."""
    check_finite(one, of_one, column="dimension")
    check_finite(other, of_other, column="dimension")
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"{of_one} embeddings of {one.shape[1]} dimensions but {of_other} embeddings of {other.shape[1]}: cosines need "
            "embeddings of one model"
        )


def _recall(
    queries: Tensor, targets: Tensor, of_queries: Tensor, of_targets: Tensor, ks: Sequence[int]
) -> dict[int, float]:
    """R@k if a target is right whose number in `of_targets` is the query's in `of_queries`."""
    if not len(queries):
        return dict.fromkeys(ks, float("nan"))
    targets, of_targets = unit_rows(targets), of_targets.to(targets.device)
    hits = dict.fromkeys(ks, 0.0)
    for block, own in zip(queries.split(CHUNK_ROWS), of_queries.to(queries.device).split(CHUNK_ROWS), strict=True):
        similarity = unit_rows(block) @ targets.T
        right = own.unsqueeze(1) == of_targets
        excess = similarity - torch.where(right, similarity, -torch.inf).amax(1, keepdim=True)
        above = (excess > TIE).sum(1).double()
        tied = excess.abs() <= TIE
        rights = (tied & right).sum(1).double()
        wrongs = (tied & ~right).sum(1).double()
        for k in ks:
            hits[k] += float(found_among(wrongs, rights, (k - above).clamp_min(0)).sum())
    return {k: hit / len(queries) for k, hit in hits.items()}


def found_among(
    wrongs: Float64[Tensor, " queries"], rights: Float64[Tensor, " queries"], drawn: Float64[Tensor, " queries"]
) -> Float64[Tensor, " queries"]:
    """Probability of at least one right among `drawn` of so many wrong and right ones, without replacement."""
    most = torch.minimum(drawn, wrongs)
    left = wrongs - most
    none = torch.lgamma(wrongs + 1) - torch.lgamma(left + 1)
    none = none - torch.lgamma(wrongs + rights + 1) + torch.lgamma(left + rights + 1)
    several = torch.where(drawn > wrongs, 1.0, 1 - none.exp())
    return torch.where(rights == 1, (drawn / (wrongs + 1)).clamp_max(1), several)


def clip_loss(image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"], scale: float) -> float:
    """Return CLIP's loss with all other pairs as negatives, by cosine similarity in float64 and in bounded memory.

    It is the mean cross-entropy, in nats, of finding each image's text among all texts and each text's image among all
    images. It depends on the number of pairs: it is log(pairs) if all pairs are equally similar. NaN if there are no
    pairs.

    Args:
        image, text: embeddings of the same pairs.
        scale: factor of the cosine similarities (inverse temperature).

    Raises:
        NonFiniteError: a value is NaN or infinite.
        TypeError: a side is no tensor.
        ValueError: the sides differ in shape.
    """
    _check_sides(image, text, "image", "text")
    if len(image) != len(text):
        raise ValueError(f"{len(image)} images but {len(text)} texts: row i of both belongs to the same pair")
    if not len(image):
        return float("nan")
    sides = unit_rows(image), unit_rows(text)
    losses = [_cross_entropies(a, b, scale) for a, b in (sides, sides[::-1])]
    return float(torch.cat(losses).mean())


def _cross_entropies(queries: Tensor, targets: Tensor, scale: float) -> Float64[Tensor, " pairs"]:
    place = torch.arange(len(queries), device=queries.device)
    return torch.cat(
        [
            F.cross_entropy(scale * block @ targets.T, right, reduction="none")
            for block, right in zip(queries.split(CHUNK_ROWS), place.split(CHUNK_ROWS), strict=True)
        ]
    )
