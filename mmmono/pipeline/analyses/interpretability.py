"""`experiments/interpretability.py`: monosemanticity of the features (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import Float, Float64, Int64
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import digest
from mmmono.core.errors import ConfigError
from mmmono.core.versions import version_of
from mmmono.dictionaries import DictionaryFeatures
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.interpretability.embedders import Embedder
from mmmono.interpretability.embedding_cache import EmbeddingCache
from mmmono.interpretability.ms import monosemanticity_score
from mmmono.interpretability.report import FeatureSetInterpretability, monosemanticity, random_rows
from mmmono.interpretability.top_samples import TopSamples
from mmmono.pipeline.analyses.dominance import dominance
from mmmono.pipeline.analyses.top_samples import check_m, top_samples_of
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.training import snapshots
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.interpretability_figures import (
    average_monosemanticity,
    modality_monosemanticity,
    monosemanticity_over_training,
)
from mmmono.reporting.published import published
from mmmono.reporting.rows import modality_mono_rows, monosemanticity_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

TopByModality = dict[Modality, TopSamples]


def interpret(workspace: Workspace) -> None:
    """EmbSim, WinRate and MS of every feature on images and texts, averages by class, Visual and Textual Mono."""
    settings = workspace.cfg.monosemanticity
    view = workspace.features(workspace.dataset.split).view
    check_m(settings.m, len(view))
    if settings.m < 2 or settings.n_draws < 1:
        raise ConfigError("monosemanticity.m must be at least 2 and monosemanticity.n_draws at least 1")
    embeddings = SampleEmbeddings(workspace)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "embedder": embeddings.identity,
        "monosemanticity": OmegaConf.to_container(settings),
        "seed": workspace.seed,
    }

    def make(directory: Path) -> None:
        metadata = view.metadata()
        sets = {name: workspace.feature_set(name) for name in workspace.recipes}
        top = {
            name: top_samples_of(workspace, features, settings.m, settings.deduplicate, metadata)
            for name, features in sets.items()
        }
        rows = torch.arange(len(view))
        rng = torch.Generator().manual_seed(workspace.seed)
        shuffled = rows[torch.randperm(len(rows), generator=rng)]
        # As the top samples: of variants of one picture, the random samples hold one.
        different = shuffled
        if settings.deduplicate and "group" in metadata:
            different = shuffled[~metadata["group"].iloc[shuffled.numpy()].duplicated().to_numpy()]
        pool = different[: max(settings.m, settings.random_pool)]
        ms_rows = rows if embeddings.free else shuffled[: settings.ms_pairs].sort().values
        if settings.ms:
            embeddings.prepare(dict.fromkeys(MODALITIES, ms_rows))
        embeddings.prepare(
            {m: torch.cat([pool, *(best[m].rows.flatten() for best in top.values())]) for m in MODALITIES}
        )
        scored = []
        for name, features in sets.items():
            ms = _ms(workspace, features, embeddings, ms_rows) if settings.ms else {}
            scored.append(_score(workspace, name, features, top[name], pool, embeddings, ms))
        save_table([row for s in scored for row in s.to_rows()], directory / "scores")
        save_table([row for s in scored for row in s.averages()], directory / "table4")
        save_table([row for s in scored for row in _table5(s)], directory / "table5")
        save_figure(average_monosemanticity(scored), directory / "monosemanticity")
        save_figure(modality_monosemanticity(scored), directory / "modality_monosemanticity")
        history = list(_over_training(workspace, pool, embeddings, metadata)) if settings.over_training else []
        if history:
            save_table(history, directory / "over_training")
            save_figure(monosemanticity_over_training(pd.DataFrame(history)), directory / "over_training")

    artifact = workspace.results("interpretability", recipe, make)
    _show(workspace, artifact.path, embeddings.name)


class SampleEmbeddings:
    """Embeddings of the split's images and texts by row, of whichever embedder is configured, computed once each."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._view = workspace.features(workspace.dataset.split).view
        chosen = workspace.cfg.embedder
        self.free = chosen is None or "_target_" not in chosen  # embedder=clip: they are in the store
        self._embedder: Embedder | None = None
        if self.free:
            self.name, self.identity = "clip", "clip"
        else:
            self._embedder = instantiate(chosen, device=workspace.device)
            self.name, self.identity = self._embedder.name, f"{self._embedder.name}-{self._embedder.fingerprint}"
        self._position = {modality: torch.full((len(self._view),), -1) for modality in MODALITIES}
        self._table: dict[Modality, Tensor] = {}

    def prepare(self, rows: dict[Modality, Int64[Tensor, " rows"]]) -> None:
        """See to it that these rows' embeddings are at hand; −1 stands for no row."""
        for modality, wanted in rows.items():
            missing = wanted[wanted >= 0].unique()
            missing = missing[self._position[modality][missing] < 0]
            if not len(missing):
                continue
            new = self._compute(modality, missing)
            before = self._table.get(modality)
            self._position[modality][missing] = torch.arange(len(missing)) + (0 if before is None else len(before))
            self._table[modality] = new if before is None else torch.cat([before, new])

    def of(self, modality: Modality, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Unit vectors of prepared rows."""
        return self._table[modality][self._position[modality][rows]]

    def _compute(self, modality: Modality, rows: Tensor) -> Tensor:
        if self._embedder is None:
            return F.normalize(self._view.gather(modality, rows.numpy()).float(), dim=1)
        embedder = self._embedder
        metadata = self._view.metadata()
        features = self._workspace.features(self._workspace.dataset.split)
        # Everything that says which sample a row is: the store's own source and split, and the embedder.
        name = f"{self._embedder.name}-{features.store.path.name}"
        key = digest({"rows": features.recipe, "embedder": embedder.fingerprint, "version": version_of("embeddings")})
        folder = self._workspace.artifacts.root / "embeddings" / f"{name}-{key}" / modality
        source = self._workspace.dataset.source(self._workspace.dataset.split)

        def compute(positions: Any) -> Tensor:
            part = metadata.iloc[list(positions)]
            if modality == "text":
                return embedder.embed_texts(part["caption"].tolist())
            locators = part["locator"] if "locator" in part else [""] * len(part)
            images = [source.fetch(key, locator).image for key, locator in zip(part["key"], locators, strict=True)]
            return embedder.embed_images(images)

        return EmbeddingCache(folder, compute, f"{self.name}: {modality}s").get(rows)


def _ms(
    workspace: Workspace, features: FeatureSet, embeddings: SampleEmbeddings, rows: Int64[Tensor, " rows"]
) -> dict[Modality, Float64[Tensor, " features"]]:
    """MS on images and on texts, over the given rows in one pass each."""

    def blocks(modality: Modality) -> Iterator[tuple[Tensor, Tensor]]:
        for part in rows.split(4096):
            yield workspace.encode_rows(features, modality, part.numpy()), embeddings.of(modality, part)

    return {modality: monosemanticity_score(blocks(modality)) for modality in MODALITIES}


def _score(
    workspace: Workspace,
    name: str,
    features: FeatureSet,
    top: TopByModality,
    pool: Int64[Tensor, " pool"],
    embeddings: SampleEmbeddings,
    ms: dict[Modality, Float64[Tensor, " features"]],
) -> FeatureSetInterpretability:
    settings = workspace.cfg.monosemanticity
    random = random_rows(pool, features.num_features, settings.m, settings.n_draws, workspace.seed)
    image, text = (
        monosemanticity(top[modality], random, partial(embeddings.of, modality), ms.get(modality))
        for modality in MODALITIES
    )
    return FeatureSetInterpretability(name, dominance(workspace, name, features).partition, image, text)


def _over_training(
    workspace: Workspace, pool: Tensor, embeddings: SampleEmbeddings, metadata: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Averages at each kept checkpoint of each dictionary (Figure 13)."""
    settings = workspace.cfg.monosemanticity
    for name, kind in workspace.recipes.items():
        if not isinstance(kind, Trained):
            continue
        for step, dictionary in snapshots(workspace.dictionary(name).path):
            features = DictionaryFeatures(name, dictionary.to(workspace.device))
            top = top_samples_of(workspace, features, settings.m, settings.deduplicate, metadata)
            embeddings.prepare({modality: best.rows.flatten() for modality, best in top.items()})
            scored = _score(workspace, name, features, top, pool, embeddings, {})
            for row in scored.averages():
                if row["class"] == "all":
                    yield {"feature set": name, "step": step, **row}


def _table5(scored: FeatureSetInterpretability) -> Iterator[dict[str, object]]:
    """Visual and Textual Mono by each metric; None where a class has no scored feature."""
    for modality in MODALITIES:
        row: dict[str, object] = {
            "feature set": scored.name,
            "score": "Visual Mono" if modality == "image" else "Textual Mono",
            "samples": modality,
        }
        for metric in ("mono", "embsim", "winrate", "ms"):
            estimate = scored.modality_mono(modality, metric)
            known = not np.isnan(estimate.mean)
            row[metric] = estimate.mean if known else None
            row[f"{metric} s.e."] = estimate.error if known and not np.isnan(estimate.error) else None
        yield row


def _show(workspace: Workspace, path: Path, embedder: str) -> None:
    show_table(
        monosemanticity_rows(json.loads((path / "table4.json").read_text())),
        f"Monosemanticity, mean over features ± s.e. (Table 4): {workspace.title}, embedder {embedder}",
    )
    table5 = json.loads((path / "table5.json").read_text())
    show_table(
        modality_mono_rows(table5, workspace.model.name), "Modality-specific monosemanticity (Table 5, Figure 6)"
    )
    if difference := published("table5").difference(workspace.model.name, workspace.dataset_name):
        console.print(difference)
    console.print(f"Figures 5, 6, 13 and scores: {path}/*.png, *.parquet")
