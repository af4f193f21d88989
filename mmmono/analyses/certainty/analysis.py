"""Significance of R(d) by permutation, its bootstrap intervals, and agreement across halves and other scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmmono.analyses.certainty import Settings
from mmmono.features import MODALITIES
from mmmono.features.feature_set import FeatureSet
from mmmono.modality import (
    DominanceResamples,
    adjusted_rand_index,
    energy_ratio,
    image_auroc,
    partition_by_null,
    rank_correlation,
    resample_dominance,
)
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Test R(d) of all feature sets: permutation null, bootstrap, agreement across halves and other scores."""
    settings = read_settings(workspace.cfg, "certainty", Settings)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "certainty": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        studied = [_studied(workspace, name, settings) for name in workspace.recipes]
        return {
            "scores": [row for _, features in studied for row in features],
            "summary": [summary for summary, _ in studied],
        }

    return Study(recipe, compute)


def _studied(workspace: Workspace, name: str, settings: Settings) -> tuple[Row, list[Row]]:
    """Row of the summary, and one row for each feature."""
    feature_set = workspace.feature_set(name)
    scored = workspace.dominance(name)
    pairs = ((block.image, block.text) for block in workspace.activations(feature_set))
    resamples = resample_dominance(
        pairs, settings.n_permutations, settings.n_bootstrap, settings.n_halves, workspace.seed
    )
    other = _other_scores(workspace, feature_set, settings.auroc_pairs)
    summary = {
        "feature_set": name,
        **_significant(scored, resamples, settings.fdr),
        **_halves(workspace, scored, resamples),
        **{f"{key}_rho": _rho(scored, values) for key, values in other.items()},
    }
    low, high = resamples.interval().tolist()
    columns = {
        "p_value": resamples.p_value.tolist(), "q_value": resamples.q_value.tolist(), "low": low, "high": high,
        **{key: values.tolist() for key, values in other.items()},
    }  # fmt: skip
    features = [
        {**row, **{key: values[i] for key, values in columns.items()}} for i, row in enumerate(scored.to_rows())
    ]
    return summary, features


def _significant(scored: FeatureSetDominance, resamples: DominanceResamples, fdr: float) -> Row:
    """Count the significant features, overall and among ImgD and TextD."""
    live = torch.zeros(len(scored.partition), dtype=torch.bool)
    live[scored.partition.live] = True
    by_null = partition_by_null(scored.scores.scores, resamples.q_value, fdr, live)
    return {
        "live": int(live.sum()),
        "significant": len(by_null["ImgD"]) + len(by_null["TextD"]),
        "ImgD": len(scored.partition.image_dominant),
        "ImgD_significant": int(np.isin(scored.partition.image_dominant, by_null.image_dominant).sum()),
        "TextD": len(scored.partition.text_dominant),
        "TextD_significant": int(np.isin(scored.partition.text_dominant, by_null.text_dominant).sum()),
    }


def _halves(workspace: Workspace, scored: FeatureSetDominance, resamples: DominanceResamples) -> Row:
    """Agreement between random halves of the pairs, averaged over the random splits."""
    first, second = resamples.halves
    live = scored.scores.informative_pairs >= workspace.cfg.mds.min_pairs
    partitions = [[workspace.classify(scores, live) for scores in half] for half in (first, second)]
    return {
        "halves_rho": _mean([rank_correlation(a[live], b[live]) for a, b in zip(first, second, strict=True)]),
        "halves_ari": _mean([adjusted_rand_index(a, b) for a, b in zip(*partitions, strict=True)]),
    }


def _other_scores(workspace: Workspace, feature_set: FeatureSet, auroc_pairs: int) -> dict[str, Tensor]:
    energy = energy_ratio((block.image, block.text) for block in workspace.activations(feature_set))
    image, text = _sample(workspace, feature_set, auroc_pairs)
    return {"energy": energy, "auroc": image_auroc(image, text)}


def _sample(workspace: Workspace, feature_set: FeatureSet, pairs: int) -> tuple[Tensor, Tensor]:
    """Activations of both modalities on a seeded sample of about `pairs` pairs; independent of the block size."""
    view = workspace.features(workspace.dataset.split).view
    keep = min(1.0, pairs / len(view))
    drawn = torch.rand(len(view), generator=torch.Generator().manual_seed(workspace.seed)) < keep
    kept: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
    for block in workspace.activations(feature_set):
        chosen = drawn[block.start : block.start + len(block.image)]
        for modality in MODALITIES:
            kept[modality].append(getattr(block, modality).cpu()[chosen])
    return torch.cat(kept["image"]), torch.cat(kept["text"])


def _rho(scored: FeatureSetDominance, values: Tensor) -> float:
    """Rank correlation with R(d) over live features."""
    live = scored.partition.live
    return rank_correlation(scored.scores.scores[live], values[live])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
