"""Significance of R(d), confirmed classes, agreement across halves and with other scores, and needed numbers of pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.analyses.certainty import Settings
from mmmono.core.errors import ConfigError
from mmmono.core.memory import usable_memory
from mmmono.features import MODALITIES, ActivationBlock
from mmmono.features.feature_set import FeatureSet
from mmmono.features.folding import OfBlocks, Together, Walk, pairs
from mmmono.modality import (
    LIVE_CLASSES,
    DominanceResamples,
    EnergyStream,
    FeatureClass,
    Partition,
    adjusted_rand_index,
    image_auroc,
    partition_by_null,
    rank_correlation,
)
from mmmono.modality.confirmation import ClassCertainty, class_certainty
from mmmono.modality.groups import group_sizes, shared_groups
from mmmono.modality.intervals import score_intervals
from mmmono.modality.planning import Aims, plan_rows
from mmmono.modality.report import FeatureSetDominance
from mmmono.modality.resampling import ResamplingStream
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.sharedness import feature_sharedness, score_rows
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]
DOMINANT: tuple[FeatureClass, FeatureClass] = ("ImgD", "TextD")


def prepare(workspace: Workspace) -> Study:
    """Test R(d) of all feature sets by group: null, borders, agreement across halves and with other scores; plan."""
    settings = read_settings(workspace.cfg, "certainty", Settings)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "certainty": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        studied = [_studied(workspace, name, settings) for name in workspace.specs]
        return {
            "scores": [row for study in studied for row in study["scores"]],
            "summary": [row for study in studied for row in study["summary"]],
            **({"plan": [row for study in studied for row in study["plan"]]} if settings.plan else {}),
        }

    return Study(recipe, compute)


def _studied(workspace: Workspace, name: str, settings: Settings) -> dict[str, list[Row]]:
    """Rows of a feature set in each table."""
    feature_set = workspace.feature_set(name)
    scored = workspace.dominance(name)
    live = workspace.live(scored.scores)
    groups = shared_groups(workspace.features(workspace.dataset.split).view.groups())
    sizes = None if groups is None else group_sizes(groups)
    draws = settings.n_permutations, settings.n_bootstrap, settings.n_halves
    # Dead features, most latents of a wide dictionary, would take as much memory in each resample as live ones.
    chosen = scored.partition.live if bool(live.any()) else torch.arange(len(live))
    ranges = Walk(workspace.features(workspace.dataset.split).view).ranges()
    check_memory(draws, len(chosen), workspace.engine.streams(workspace.device) if len(ranges) > 1 else 1)
    resampling = OfBlocks(ResamplingStream(*draws, workspace.seed, sizes), OfFeatures(chosen, len(live)))
    both = Together(resampling, OfBlocks(EnergyStream(), pairs))
    resamples, energy = workspace.folded(feature_set, both, groups).result()
    tested = live[chosen]
    certainty = _of_all(
        class_certainty(scored.scores.of(chosen), resamples.bootstrap, workspace.classify, tested), chosen, len(live)
    )
    p_value, q_value = (
        _spread(values, chosen, len(live)) for values in (resamples.p_value, resamples.q_values(tested))
    )
    auroc = image_auroc(*_sample(workspace, feature_set, settings.auroc_pairs))
    other = {"energy": energy, "auroc": auroc}
    summary = {
        "feature_set": name,
        **_counts(
            scored, partition_by_null(scored.scores.scores, q_value, settings.fdr, live), certainty, settings.fdr
        ),
        **{key: getattr(scored.summary, key) for key in ("pairs", "groups", "std", "reliability", "corrected_std")},
        "null_std": resamples.null_std(tested),
        **_halves(workspace, resamples, tested),
        **{f"{key}_rho": _rho(scored, values) for key, values in other.items()},
    }
    low, high = score_intervals(scored.scores)
    columns = {
        "p_value": p_value, "q_value": q_value, "low": low, "high": high,
        **{f"{of}_probability": share for of, share in zip(LIVE_CLASSES, certainty.probabilities, strict=True)},
        "border_p_value": certainty.border_p_value, "border_q_value": certainty.border_q_value, **other,
    }  # fmt: skip
    values = {key: column.tolist() for key, column in columns.items()}
    scores = [
        {**row, **{key: value[i] for key, value in values.items()}}
        for i, row in enumerate(score_rows(scored, feature_sharedness(workspace, name), live))
    ]
    return {"scores": scores, "summary": [summary], "plan": _plan(workspace, scored, certainty, live, settings)}


@dataclass(frozen=True)
class OfFeatures:
    """Gives a stream the activations of some features alone, and the groups of the pairs; a value, so that it travels.

    Attributes:
        chosen: indices of the features, ascending.
        features: number of all of them.
    """

    chosen: Int64[Tensor, " chosen"]
    features: int

    def __call__(self, block: ActivationBlock) -> tuple[Any, ...]:
        """Arguments of `ResamplingStream.add`."""
        if len(self.chosen) == self.features:
            return block.image, block.text, block.groups
        return *(side.index_select(1, self.chosen.to(side.device)) for side in (block.image, block.text)), block.groups


def _spread(values: Float64[Tensor, "*rows chosen"], chosen: Int64[Tensor, " chosen"], features: int) -> Tensor:
    """Values of all features: NaN for those that were not chosen."""
    return values.new_full((*values.shape[:-1], features), torch.nan).index_copy(-1, chosen, values)


def _of_all(certainty: ClassCertainty, chosen: Int64[Tensor, " chosen"], features: int) -> ClassCertainty:
    """Certainty of all features from that of the chosen ones; NaN for the others."""
    own = {field.name: _spread(getattr(certainty, field.name), chosen, features) for field in fields(certainty)}
    return ClassCertainty(**own)


def check_memory(draws: tuple[int, int, int], features: int, streams: int = 1) -> None:
    """Raise ConfigError if the resamples alone, of several streams, are more than the memory that this process may use."""
    n_permutations, n_bootstrap, n_halves = draws
    needed = streams * 8 * features * (n_permutations + 2 * (n_bootstrap + 2 * n_halves))
    there = usable_memory()
    if needed > there:
        raise ConfigError(
            f"certainty: resamples of {features:,} live features take {needed / 1e9:.0f} GB, but this process may use "
            f"{there / 1e9:.0f} GB of memory: lower "
            f"{'engine.workers, of which each holds two streams of them, ' if streams > 1 else ''}"
            f"certainty.n_permutations={n_permutations} or certainty.n_bootstrap={n_bootstrap}"
        )


def _counts(scored: FeatureSetDominance, by_null: Partition, certainty: ClassCertainty, fdr: float) -> Row:
    """Count the significant features and the confirmed ones, overall and among ImgD and TextD."""
    confirmed = certainty.confirmed(fdr)
    counts: Row = {
        "live": len(scored.partition.live),
        "significant": len(by_null["ImgD"]) + len(by_null["TextD"]),
    }
    for name in DOMINANT:
        members = scored.partition[name]
        counts[name] = len(members)
        counts[f"{name}_significant"] = int(torch.isin(members, by_null[name]).sum())
        counts[f"{name}_confirmed"] = int(confirmed[members].sum())
    return counts


def _plan(
    workspace: Workspace, scored: FeatureSetDominance, certainty: ClassCertainty, live: Tensor, settings: Settings
) -> list[Row]:
    """Groups of pairs that are needed to know R(d) and the classes, from those here as a pilot."""
    scores, partition = scored.scores, scored.partition
    aims = Aims(settings.plan_half_width, settings.plan_difference, settings.plan_power, settings.fdr)
    distance = torch.maximum(scores.scores - partition.high, partition.low - scores.scores)
    rows = plan_rows(scores, live, distance, certainty.border_error, aims, workspace.settings.mds.min_pairs)
    return [{"feature_set": scored.name, **row} for row in rows]


def _halves(workspace: Workspace, resamples: DominanceResamples, live: Tensor) -> Row:
    """Agreement between random halves of the groups of pairs, averaged over the random splits."""
    first, second = resamples.halves
    partitions = [[workspace.classify(scores, live) for scores in half] for half in (first, second)]
    return {
        "halves_rho": _mean([rank_correlation(a[live], b[live]) for a, b in zip(first, second, strict=True)]),
        "halves_ari": _mean([adjusted_rand_index(a, b) for a, b in zip(*partitions, strict=True)]),
    }


def _sample(workspace: Workspace, feature_set: FeatureSet, size: int) -> tuple[Tensor, Tensor]:
    """Activations of both modalities on a seeded sample of about `size` pairs; independent of the block size."""
    view = workspace.features(workspace.dataset.split).view
    keep = min(1.0, size / len(view))
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
