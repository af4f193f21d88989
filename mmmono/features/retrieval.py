"""Metrics of a joint embedding space: retrieval, zero-shot classification and contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.finite import check_finite, unit_rows

CHUNK_ROWS = 1024  # queries that are compared with all targets at once
TIE = 1e-9  # cosines that differ by less count as equal; in float64, those of equal vectors differ by about 1e-15


def recall_at_k(
    queries: Float[Tensor, "pairs dim"], targets: Float[Tensor, "pairs dim"], ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Return R@k by cosine similarity: share of queries whose target (same row) is among the k most similar targets.

    Computed in float64. A tied target counts with its probability of being among the k under random tie-breaking, so
    that all-zero features score at chance level. NaN if there are no pairs.

    Raises:
        NonFiniteError: a value is NaN or infinite.
        ValueError: queries and targets differ in number.
    """
    if len(queries) != len(targets):
        raise ValueError(f"{len(queries)} queries but {len(targets)} targets: each query has the target of its row")
    return _recall(queries, targets, torch.arange(len(queries)), ks)


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
    """
    known = target >= 0
    return _recall(samples[known], classes, target[known], (1,))[1]


def _recall(queries: Tensor, targets: Tensor, own: Tensor, ks: Sequence[int]) -> dict[int, float]:
    check_finite(queries, "query", column="dimension")
    check_finite(targets, "target", column="dimension")
    targets = unit_rows(targets)
    hits = dict.fromkeys(ks, 0.0)
    for block, right in zip(queries.split(CHUNK_ROWS), own.to(queries.device).split(CHUNK_ROWS), strict=True):
        similarity = unit_rows(block) @ targets.T
        excess = similarity - similarity.gather(1, right.unsqueeze(1))
        above = (excess > TIE).sum(1).double()
        ties = (excess.abs() <= TIE).sum(1).double()
        for k in ks:
            hits[k] += float(((k - above) / ties).clamp(0, 1).sum())
    return {k: hit / len(queries) if len(queries) else float("nan") for k, hit in hits.items()}


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
    """
    check_finite(image, "image", column="dimension")
    check_finite(text, "text", column="dimension")
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
