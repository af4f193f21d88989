"""Each metric of paired rows beside its reference: what takes blocks of images and texts, and what definition it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmmono.dictionaries import ReconstructionMoments, fraction_of_variance_unexplained
from mmmono.features.retrieval import clip_loss, recall_at_k, zero_shot_accuracy
from mmmono.interpretability import activation_histograms, monosemanticity_score, top_samples
from mmmono.modality import dominance_scores, energy_ratio, image_auroc, modality_gap, sign_flip_p_values
from mmmono.modality.agreement import feature_correlations
from tests.metrics import references

Blocks = Iterable[tuple[Tensor, ...]]


def whole(blocks: Blocks) -> list[Tensor]:
    return [torch.cat(side) for side in zip(*blocks, strict=True)]


@dataclass(frozen=True)
class Metric:
    """What computes a metric from blocks of two sides, what defines it, and whether it knows directions alone.

    Attributes:
        of: the framework's.
        reference: from both sides in float64.
        invariant: whether a factor that all numbers share changes nothing.
    """

    of: Callable[[Blocks], object]
    reference: Callable[[np.ndarray, np.ndarray], object]
    invariant: bool = True


def _quality(blocks: Blocks, name: str) -> float:
    moments: ReconstructionMoments | None = None
    for x, reconstruction in blocks:
        moments = moments or ReconstructionMoments(x.shape[1], x.shape[1])
        moments.add(x, reconstruction, x)
    assert moments is not None
    return float(getattr(moments.result(), name))


def _zero_shot(blocks: Blocks) -> float:
    samples, classes = whole(blocks)
    return zero_shot_accuracy(samples, classes, torch.arange(len(samples)))


def _histograms(blocks: Blocks) -> np.ndarray:
    found = activation_histograms(blocks, 8)
    return np.concatenate([found.counts.numpy().ravel(), found.width.double().numpy()])


def _histograms_by_numpy(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    peaks = np.maximum(np.abs(image).max(0), np.abs(text).max(0))
    widths = np.array([2.0 ** np.ceil(np.log2(peak)) / 4 for peak in peaks])
    counts = [
        [references.histogram(column, width, 8) for column, width in zip(side.T, widths, strict=True)]
        for side in (image, text)
    ]
    return np.concatenate([np.array(counts).ravel(), widths])


def _sorted(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    order = np.argsort(-image, axis=0, kind="stable")[:5].T
    return np.where(np.take_along_axis(image.T, order, 1) > 0, order, -1)


METRICS: dict[str, Metric] = {
    "R(d)": Metric(lambda b: dominance_scores(b).scores, references.mds),
    "R(d), silent pairs as half": Metric(lambda b: dominance_scores(b, "half").scores, references.mds_half),
    "standard error of R(d)": Metric(lambda b: dominance_scores(b).standard_error, references.standard_error),
    "sign-flip p": Metric(lambda b: sign_flip_p_values(dominance_scores(b))[0], references.sign_flip_p),
    "ratio of energies": Metric(energy_ratio, references.energy),
    "AUROC": Metric(lambda b: image_auroc(*whole(b)), references.auroc),
    "distance of centroids": Metric(lambda b: modality_gap(b).centroid_distance, lambda i, t: references.gap(i, t)[0]),
    "difference of norms": Metric(
        lambda b: modality_gap(b).mean_norm_difference, lambda i, t: references.gap(i, t)[1], invariant=False
    ),
    "correlations": Metric(feature_correlations, references.correlations),
    "MS": Metric(monosemanticity_score, references.ms),
    "top samples": Metric(lambda b: top_samples((image for image, _ in b), 5).rows, _sorted),
    "histograms": Metric(_histograms, _histograms_by_numpy, invariant=False),
    "FVU over blocks": Metric(lambda b: _quality(b, "fvu"), references.fvu),
    "FVU": Metric(lambda b: fraction_of_variance_unexplained(*whole(b)).detach(), references.fvu),
    "explained variance": Metric(lambda b: _quality(b, "explained_variance"), lambda x, r: 1 - references.fvu(x, r)),
    "cosine": Metric(lambda b: _quality(b, "cosine"), references.mean_cosine),
    "L0": Metric(lambda b: _quality(b, "l0"), lambda x, _: (x != 0).sum(1).mean()),
    "R@3": Metric(lambda b: recall_at_k(*whole(b), (3,))[3], lambda q, t: references.recall(q, t, 3)),
    "CLIP loss": Metric(lambda b: clip_loss(*whole(b), 5.0), lambda i, t: references.clip_loss(i, t, 5.0)),
    "zero-shot": Metric(_zero_shot, lambda i, t: references.recall(i, t, 1)),
}
