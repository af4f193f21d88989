"""Cross-modal retrieval: how often the right partner of a pair is among the k nearest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def recall_at_k(
    queries: Float[Tensor, "pairs dim"], targets: Float[Tensor, "pairs dim"], ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """R@k by cosine: share of queries whose own target (same row) is among the k most similar ones.

    A target that ties with others counts by its expected place among them, so that features that are all zero score
    chance and not luck.
    """
    queries, targets = F.normalize(queries.float(), dim=1), F.normalize(targets.float(), dim=1)
    hits = dict.fromkeys(ks, 0.0)
    for start in range(0, len(queries), 1024):
        block = queries[start : start + 1024]
        similarity = block @ targets.T
        own = similarity[torch.arange(len(block)), torch.arange(start, start + len(block))].unsqueeze(1)
        above = (similarity > own).sum(1).double()
        ties = (similarity == own).sum(1).double()
        for k in ks:
            hits[k] += float(((k - above) / ties).clamp(0, 1).sum())
    return {k: hit / len(queries) for k, hit in hits.items()}
