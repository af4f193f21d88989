"""How the default model's dimensions behave with each temperature of its fit, beside those of a real CLIP.

python benchmarks/modality_gap.py --artifacts artifacts --real clip_pairs.npy

Scores are of one pair a group of OpenMoji's split `val`, which no fit has seen; those of the real model are of all pairs in
a `.npy` of shape [2, pairs, dim], images first. `centered` is without the mean of each modality, `rotated` after a random
rotation. `within pairs` is the median correlation of a class's features between the two sides of a pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from embedded_default import Outputs, unseen
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import Artifacts
from mmmono.data import OpenMojiPairs
from mmmono.features.retrieval import recall_at_k
from mmmono.modality import dominance_scores, modality_gap, partition_by_sigma
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.models import DrawingCLIP
from mmmono.vlm.tower_outputs import heads_of

TEMPERATURES = (1 / 0.07, 50.0, 75.0, 90.0, 100.0)
COLUMNS = (
    "gap", "R@10", "σ / null", "σ centered", "σ rotated", "σ rotated, centered", "ρ with centered",
    "within pairs: ImgD, CrossD, TextD",
)  # fmt: skip


def dominance(image: Tensor, text: Tensor) -> FeatureSetDominance:
    """Scores and classes of the dimensions of embeddings `[pairs, dim]`."""
    scores = dominance_scores([(image, text)])
    return FeatureSetDominance("raw", scores, partition_by_sigma(scores.scores))


def correlations(image: Tensor, text: Tensor) -> Tensor:
    """Correlation of each dimension between the two sides of a pair, `[dim]`."""
    image, text = ((side - side.mean(dim=0)) / side.std(dim=0, correction=0) for side in (image, text))
    return (image * text).mean(dim=0)


def line(name: str, image: Tensor, text: Tensor) -> str:
    """Return a row of the table for embeddings `[pairs, dim]`."""
    image, text = F.normalize(image.double(), dim=1), F.normalize(text.double(), dim=1)
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(image.shape[1], image.shape[1], generator=generator, dtype=image.dtype))[0]
    centered = image - image.mean(dim=0), text - text.mean(dim=0)
    own, without = dominance(image, text), dominance(*centered)
    rotated, both = dominance(image @ rotation, text @ rotation), dominance(*(side @ rotation for side in centered))
    pairwise = correlations(image, text)
    cells = [
        f"{modality_gap([(image, text)]).centroid_distance:.2f}",
        f"{recall_at_k(text, image, ks=(10,))[10]:.3f}",
        f"{own.summary.std:.3f} / {own.null_std:.3f}",
        f"{without.summary.std:.3f}",
        f"{rotated.summary.std:.3f}",
        f"{both.summary.std:.3f}",
        f"{spearmanr(own.scores.scores, without.scores.scores).statistic:.2f}",
        ", ".join(f"{pairwise[own.partition[of]].median():.2f}" for of in ("ImgD", "CrossD", "TextD")),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def main(artifacts: Path, real: Path | None) -> None:
    root = Artifacts(artifacts)
    outputs: Outputs = unseen(root, OpenMojiPairs(), "group")
    print("| dimensions of | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    for temperature in TEMPERATURES:
        heads = heads_of(DrawingCLIP(name="drawingclip", temperature=temperature).load(root, "cpu"))
        with torch.inference_mode():
            sides = heads["image"](outputs.image), heads["text"](outputs.text)
        print(line(f"`model.temperature={temperature:.4g}`", *sides), flush=True)
    if real is not None:
        print(line(f"{real.stem}", *torch.from_numpy(np.load(real)).unbind()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--real", type=Path, help="embeddings of a real model, [2, pairs, dim]")
    main(**vars(parser.parse_args()))
