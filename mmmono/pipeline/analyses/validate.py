"""`experiments/validate.py`: does the method find what was planted?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import DictionaryFeatures, TopKSAE
from mmmono.features import FeatureSet
from mmmono.features.planted import read_truth
from mmmono.modality import modality_dominance_score, partition_by_null, resample_dominance
from mmmono.modality.agreement import feature_correlations
from mmmono.modality.validation import mean_max_cosine, planted_recovery
from mmmono.pipeline.analyses.dominance import dominance
from mmmono.pipeline.datasets import Planted
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.rows import validation_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table
from mmmono.reporting.validation_figures import recovery_curves


def validate(workspace: Workspace) -> None:
    """Train on planted pairs, one knob turned at a time, and compare with the truth."""
    cfg = workspace.cfg
    if not isinstance(workspace.dataset, Planted):
        raise ConfigError(f"validation needs to know the answer: set dataset=planted, not {workspace.dataset_name}")
    settings = cfg.validate
    knobs = {} if settings.quick else settings.knobs
    unknown = [knob for knob in knobs if knob not in cfg.dataset and knob != "k"]
    if unknown:
        raise ConfigError(f"validate.knobs names {unknown[0]!r}: choose knobs of dataset=planted, or k")
    runs = [("", None, *_turned(cfg, "", None, seed), seed) for seed in range(settings.seeds)]
    for knob, values in knobs.items():
        for value in values:
            runs += [(knob, value, *_turned(cfg, knob, value, seed), seed) for seed in range(settings.seeds)]
    recipe = {"cfg": [OmegaConf.to_container(run[2], resolve=True) for run in runs], "fdr": settings.fdr}

    def make(directory: Path) -> None:
        rows: list[dict[str, object]] = []
        for number, (knob, value, turned, seed) in enumerate(runs, start=1):
            console.print(f"{number} of {len(runs)}: {knob or 'base'} {'' if value is None else value}, seed {seed}")
            for measured in _measure(Workspace(turned, makes="none"), settings):
                rows.append({"knob": knob, "value": value, "seed": seed, **measured})
        save_table(rows, directory / "validation")
        if knobs:
            save_figure(recovery_curves(pd.DataFrame(rows), _base(cfg, knobs)), directory / "validation")

    artifact = workspace.artifacts.build("results", "validation", recipe, make)
    frame = pd.read_parquet(artifact.path / "validation.parquet")
    show_table(validation_rows(frame), f"Planted concepts, base setting, mean over {settings.seeds} seeds")
    curves = f"curves over {', '.join(knobs)} in validation.png, " if knobs else ""
    console.print(f"{artifact.path}: {curves}numbers in validation.parquet")


def _base(cfg: DictConfig, knobs: Any) -> dict[str, float]:
    return {knob: _active(cfg) if knob == "k" else cfg.dataset[knob] for knob in knobs}


def _active(cfg: DictConfig) -> int:
    return max(1, round(cfg.dataset.active))


def _turned(cfg: DictConfig, knob: str, value: Any, seed: int) -> tuple[DictConfig]:
    """The configuration with one knob turned; as many latents as there are concepts, and as active ones."""
    turned = OmegaConf.merge(cfg, {"dataset": {knob: value}} if knob and knob != "k" else {}, {"seed": seed})
    assert isinstance(turned, DictConfig)
    turned.dataset.seed = seed
    data = turned.dataset
    atoms = data.image_atoms + data.text_atoms + data.shared_atoms
    for name in ("sae", "ncl"):
        if name in turned:
            turned[name].expansion = cfg.validate.latents * atoms / data.dim
    if "sae" in turned:
        turned.sae.k = value if knob == "k" else _active(turned)
    return (turned,)


def _measure(workspace: Workspace, settings: DictConfig) -> Iterator[dict[str, object]]:
    features = workspace.features(workspace.dataset.split)
    truth = read_truth(features.store.path)
    rows = features.view.rows
    chosen = torch.arange(len(features.view)) if rows is None else torch.from_numpy(rows)
    image, text = truth["image_codes"][chosen], truth["text_codes"][chosen]
    true_scores = modality_dominance_score(image, text).nan_to_num(0.5)
    for name in workspace.recipes:
        feature_set = workspace.feature_set(name)
        scored = dominance(workspace, name, feature_set)
        pairs = ((block.image, block.text) for block in workspace.activations(feature_set))
        q_value = resample_dominance(pairs, settings.n_permutations, 1, 1, workspace.seed).q_value
        live = scored.scores.informative_pairs >= workspace.cfg.mds.min_pairs
        by_null = partition_by_null(scored.scores.scores, q_value, settings.fdr, live)
        correlations = feature_correlations(_with_codes(workspace, feature_set, image, text))
        found = planted_recovery(
            correlations, truth["kind"].long(), true_scores, scored.scores.scores, scored.partition, by_null
        )
        cosine = None
        if isinstance(feature_set, DictionaryFeatures) and isinstance(feature_set.dictionary, TopKSAE):
            cosine = mean_max_cosine(truth["atoms"], feature_set.dictionary.W_dec.detach())
        yield {"feature_set": name, "max_cosine": cosine, **asdict(found)}


def _with_codes(
    workspace: Workspace, feature_set: FeatureSet, image: Tensor, text: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """True codes beside activations, images and texts in turn."""
    for block in workspace.activations(feature_set):
        rows = slice(block.start, block.start + len(block.image))
        yield image[rows], block.image.cpu()
        yield text[rows], block.text.cpu()
