"""Train dictionaries of several objectives on synthetic pairs, and say what became of the known concepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmmono.analyses.objectives_synthetic import MEASURES, Settings
from mmmono.analyses.objectives_synthetic.runs import Run, check_dataset, runs
from mmmono.dictionaries import fraction_of_variance_unexplained
from mmmono.features import FeatureSet, RawFeatures
from mmmono.features.grouping import GroupNumbers
from mmmono.features.retrieval import recall_at_k
from mmmono.features.store import MODALITIES
from mmmono.features.synthetic import identity
from mmmono.modality import partition_by_margin, sharedness_scores
from mmmono.modality.agreement import feature_correlations, match_features
from mmmono.modality.splitting import concept_splitting
from mmmono.modality.validation import ConceptMatch, balanced_accuracy, mean_interval
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.halves import Halves
from mmmono.pipeline.running import quiet
from mmmono.pipeline.specs import Fitted, Trained
from mmmono.pipeline.synthetic_runs import Truth, content, in_parallel
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console

MARGIN = 0.3
OTHERS = ("objectives_synthetic", "partition")  # sections that do not determine what a run gives
ANOTHER = 1000  # is added to the seed of the training that stability is measured with

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Train every selected feature set on every setting of the synthetic data, and compare with the ground truth.

    Raises:
        ConfigError: the dataset is not synthetic, or a setting is invalid; raised before any training.
    """
    cfg = workspace.cfg
    check_dataset(workspace.cfg)
    settings = read_settings(cfg, "objectives_synthetic", Settings)
    todo = runs(cfg, settings)

    def compute(folder: Path) -> Tables:
        rows: list[Row] = []
        measured = in_parallel(partial(_measure, stability=not settings.quick), todo, settings.jobs, workspace.device)
        for number, (run, found) in enumerate(zip(todo, measured, strict=True), start=1):
            console.print(f"{number} of {len(todo)}: {run.title}")
            rows += found
        return {"objectives": rows, "summary": list(_summary(pd.DataFrame(rows)))}

    made = [{"name": run.data, "synthetic": identity(run.parameters), **content(run.cfg, OTHERS)} for run in todo]
    kinds = {name: kind.recipe() for name, kind in workspace.specs.items() if isinstance(kind, Trained | Fitted)}
    return Study({"runs": made, "kinds": kinds, "stability": not settings.quick}, compute)


def _measure(run: Run, stability: bool) -> list[Row]:
    quiet()
    workspace = Workspace(run.cfg, makes="none")
    truth = Truth(workspace)
    rows: list[Row] = []
    for name in workspace.specs:
        measured = _Measured(workspace, truth, name)
        found = {**measured.row(), "stability": measured.stability() if stability else None}
        rows.append({"data": run.data, "seed": run.seed, "feature_set": name, **found})
    return rows


def _whole(workspace: Workspace, feature_set: FeatureSet) -> tuple[Tensor, Tensor]:
    """Activations on all images and on all texts of the split."""
    blocks = [(block.image.cpu().clone(), block.text.cpu().clone()) for block in workspace.activations(feature_set)]
    image, text = (torch.cat(side) for side in zip(*blocks, strict=True))
    return image, text


class _Measured:
    """A feature set on synthetic pairs."""

    def __init__(self, workspace: Workspace, truth: Truth, name: str) -> None:
        self.workspace, self.truth, self.name = workspace, truth, name
        self.codes = truth.image, truth.text
        self.embeddings = _whole(workspace, RawFeatures(workspace.features(workspace.dataset.split).view.dim))
        self.feature_set = workspace.feature_set(name)
        self.image, self.text = self.sides = _whole(workspace, self.feature_set)

    def row(self) -> Row:
        """All measures of one training."""
        correlations = [feature_correlations([pair]) for pair in zip(self.codes, self.sides, strict=True)]
        active = [side != 0 for side in self.sides]
        return {
            **asdict(concept_splitting(correlations[0], correlations[1], self.truth.kind)),
            "fvu": self._fvu(),
            "l0": float(torch.cat(active).sum(1).double().mean()),
            "dead": float((~torch.cat(active).any(0)).double().mean()),
            **self._by_class(),
        }

    def _fvu(self) -> float | None:
        if not self.feature_set.decodes:
            return None
        with torch.inference_mode():
            found = [
                fraction_of_variance_unexplained(
                    z, self.feature_set.decode(codes.to(self.workspace.device), modality).cpu()
                )
                for z, codes, modality in zip(self.embeddings, self.sides, MODALITIES, strict=True)
            ]
        return float(sum(found)) / 2

    def _by_class(self) -> Row:
        """Modality of the latents, sharedness, and retrieval with and without those of each class."""
        scored = self.workspace.dominance(self.name).scores
        live = self.workspace.live(scored)
        partition = partition_by_margin(scored.scores, MARGIN, live)
        both = ConceptMatch.of(feature_correlations([(torch.cat(self.codes), torch.cat(self.sides))]))
        shared = sharedness_scores([self.sides], self.truth.groups).score[live]
        recall = self._recall(self.sides, self.truth.groups, (1, 10))
        row: Row = {
            "both": float(((scored.scores[live] - 0.5).abs() <= MARGIN).double().mean()),
            "accuracy": balanced_accuracy(partition, both, self.truth.kind),
            "sharedness": float(shared.nanmean()),
            **{f"recall_at_{k}": value for k, value in recall.items()},
        }
        return row | self._without_classes()

    def _without_classes(self) -> Row:
        """R@1 without the latents of each class, on the half of the groups by which no latent is classified."""
        halves = Halves.of(self.workspace)
        scores = halves.dominance(self.workspace, self.feature_set).scores
        partition = partition_by_margin(scores.scores, MARGIN, self.workspace.live(scores))
        left = halves.left(np.arange(len(self.image)))
        rows, groups = torch.from_numpy(left), self.truth.groups[left]
        sides = self.image[rows], self.text[rows]
        row: Row = {"without_none": self._recall(sides, groups, (1,))[1]}
        for of in ("image_dominant", "text_dominant", "cross_modal"):
            image, text = (side.index_fill(1, getattr(partition, of), 0) for side in sides)
            row[f"without_{of}"] = self._recall((image, text), groups, (1,))[1]
        return row

    def _recall(self, sides: tuple[Tensor, Tensor], groups: GroupNumbers, ks: tuple[int, ...]) -> dict[int, float]:
        found = [recall_at_k(*both, ks, groups) for both in (sides, (sides[1], sides[0]))]
        return {k: sum(one[k] for one in found) / 2 for k in ks}

    def stability(self) -> float | None:
        """Mean correlation of the live latents with those of another training on the same pairs; None if untrained."""
        if not self.workspace.specs[self.name].trained:
            return None
        other = _whole(self.workspace, self.workspace.feature_set(self.name, self.workspace.seed + ANOTHER))
        _, correlation = match_features(zip(self.sides, other, MODALITIES, strict=True))
        live = torch.cat([side != 0 for side in self.sides]).any(0)
        return float(correlation[live].mean())


def _summary(rows: pd.DataFrame) -> Iterator[Row]:
    """Mean over seeds and 95 % t interval of every measure."""
    for (data, name), part in rows.groupby(["data", "feature_set"], sort=False):
        for measure in MEASURES:
            interval = mean_interval(part[measure].astype(float).tolist())
            place = {"data": data, "feature_set": name, "measure": measure}
            yield {**place, **interval.columns("mean"), "seeds": len(part)}
