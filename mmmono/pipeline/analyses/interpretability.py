"""`experiments/interpretability.py`: monosemanticity of the features (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import Float, Float64, Int64
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import digest
from mmmono.core.errors import ConfigError, DataError
from mmmono.core.versions import version_of
from mmmono.dictionaries import DictionaryFeatures
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.interpretability.embedders import Embedder, TimmSentenceEmbedder
from mmmono.interpretability.embedding_cache import EmbeddingCache
from mmmono.interpretability.ms import monosemanticity_score
from mmmono.interpretability.report import FeatureSetInterpretability, monosemanticity, random_rows
from mmmono.interpretability.top_samples import TopSamples
from mmmono.modality import Partition
from mmmono.pipeline.analyses.top_samples import check_m, top_samples_of
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.pictures import SplitPictures, in_batches, tell_missing
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

IMAGE_BATCH = 64  # images in memory at a time
TopByModality = dict[Modality, TopSamples]


def interpret(workspace: Workspace) -> None:
    """Score every feature on images and texts (EmbSim, WinRate, MS), average by class, and compare the modalities.

    Raises:
        ConfigError: a setting is invalid.
        DataError: too few images could be read.
    """
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
        embeddings.load()
        metadata = view.metadata()
        sets = {name: workspace.feature_set(name) for name in workspace.recipes}
        candidates = {
            name: top_samples_of(workspace, features, settings.m + embeddings.spare, settings.deduplicate, metadata)
            for name, features in sets.items()
        }
        rows = torch.arange(len(view))
        rng = torch.Generator().manual_seed(workspace.seed)
        shuffled = rows[torch.randperm(len(rows), generator=rng)]
        # Like the top samples, the random samples hold one of several variants of an image.
        different = shuffled
        if settings.deduplicate and "group" in metadata:
            different = shuffled[~metadata["group"].iloc[shuffled.numpy()].duplicated().to_numpy()]
        pool = different[: max(settings.m, settings.random_pool)]
        ms_rows = rows if embeddings.free else shuffled[: settings.ms_pairs].sort().values
        if settings.ms:
            embeddings.prepare(dict.fromkeys(MODALITIES, ms_rows))
        best = {name: {m: top.first(settings.m) for m, top in tops.items()} for name, tops in candidates.items()}
        embeddings.prepare({m: torch.cat([pool, *(b[m].rows.flatten() for b in best.values())]) for m in MODALITIES})
        ms_rows, pool = embeddings.had(ms_rows), embeddings.had(pool)
        if len(pool) < settings.m:
            raise DataError(f"{len(pool)} pictures could be read for random samples: {settings.m} are needed")
        top = {name: _at_hand(tops, embeddings, settings.m) for name, tops in candidates.items()}
        scored = []
        for name, features in sets.items():
            ms = _ms(workspace, features, embeddings, ms_rows) if settings.ms else {}
            scored.append(_score(workspace, name, features, top[name], pool, embeddings, ms, workspace.partition(name)))
        save_table([row for s in scored for row in s.to_rows()], directory / "scores")
        save_table([row for s in scored for row in s.averages()], directory / "table4")
        save_table([row for s in scored for row in _table5(s)], directory / "table5")
        save_figure(average_monosemanticity(scored), directory / "monosemanticity")
        save_figure(modality_monosemanticity(scored), directory / "modality_monosemanticity")
        history = list(_over_training(workspace, pool, embeddings, metadata)) if settings.over_training else []
        if history:
            save_table(history, directory / "over_training")
            save_figure(monosemanticity_over_training(pd.DataFrame(history)), directory / "over_training")
        embeddings.report(directory)

    artifact = workspace.results("interpretability", recipe, make)
    tell_missing(artifact.path)
    _show(workspace, artifact.path, embeddings.name)


class SampleEmbeddings:
    """Embeddings of the split's images and texts by row, from the configured embedder; each is computed once.

    Attributes:
        name: name of the embedder.
        identity: name and fingerprint of the embedder, for recipes.
        free: whether the embedder is the model itself, whose embeddings are in the store.
        spare: number of candidates beyond the m best, to replace samples whose images cannot be read.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._view = workspace.features(workspace.dataset.split).view
        chosen = workspace.cfg.embedder
        self.free = chosen is None or "_target_" not in chosen  # embedder=clip
        self._embedder: Embedder | None = None
        if self.free:
            self.name, self.identity = "clip", "clip"
        else:
            self._embedder = instantiate(chosen, device=workspace.device)
            self.name, self.identity = self._embedder.name, f"{self._embedder.name}-{self._embedder.fingerprint}"
        self.spare = 0 if self.free else max(2, workspace.cfg.monosemanticity.m // 4)
        self._pictures: SplitPictures | None = None
        self._position = {modality: torch.full((len(self._view),), -1) for modality in MODALITIES}
        self._table: dict[Modality, Tensor] = {}

    def load(self) -> None:
        """Load the embedder's weights. Raises ModelError if they are not available."""
        if isinstance(self._embedder, TimmSentenceEmbedder):
            self._embedder.load()

    def prepare(self, rows: dict[Modality, Int64[Tensor, " rows"]]) -> None:
        """Compute the embeddings of these rows unless they are in memory; rows of −1 are ignored."""
        for modality, wanted in rows.items():
            missing = wanted[wanted >= 0].unique()
            missing = missing[self._position[modality][missing] < 0]
            if not len(missing):
                continue
            new = self._compute(modality, missing)
            before = self._table.get(modality)
            self._position[modality][missing] = torch.arange(len(missing)) + (0 if before is None else len(before))
            self._table[modality] = new if before is None else torch.cat([before, new])

    def had(self, rows: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """Return the prepared rows whose embeddings exist in all modalities for which they were prepared."""
        for modality, table in self._table.items():
            place = self._position[modality][rows]
            rows = rows[(place < 0) | ~table[place].isnan().any(1)]
        return rows

    def missing(self, modality: Modality) -> Int64[Tensor, " rows"]:
        """Return the prepared rows whose embeddings could not be computed."""
        place = self._position[modality]
        gone = self._table[modality].isnan().any(1)
        return torch.nonzero((place >= 0) & gone[place.clamp_min(0)]).squeeze(1)

    def report(self, directory: Path) -> None:
        """Record the missing images, if any, in the folder of the results."""
        if self._pictures is not None:
            self._pictures.report(directory)

    def of(self, modality: Modality, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Return the unit-length embeddings of prepared rows."""
        return self._table[modality][self._position[modality][rows]]

    def _compute(self, modality: Modality, rows: Tensor) -> Tensor:
        if self._embedder is None:
            return F.normalize(self._view.gather(modality, rows.numpy()).float(), dim=1)
        embedder = self._embedder
        metadata = self._view.metadata()
        features = self._workspace.features(self._workspace.dataset.split)
        # The cache's key determines which sample a row is, and how it is embedded.
        name = f"{self._embedder.name}-{features.store.path.name}"
        key = digest({"rows": features.recipe, "embedder": embedder.fingerprint, "version": version_of("embeddings")})
        folder = self._workspace.artifacts.root / "embeddings" / f"{name}-{key}" / modality
        if modality == "image" and self._pictures is None:
            self._pictures = SplitPictures(self._workspace, self._workspace.dataset.split)

        def compute(positions: Sequence[int]) -> Tensor:
            if modality == "text":
                return embedder.embed_texts(metadata["caption"].iloc[list(positions)].tolist())
            assert self._pictures is not None
            return _embedded(self._pictures, embedder, positions)

        return EmbeddingCache(folder, compute, f"{self.name}: {modality}s").get(rows)


def _embedded(pictures: SplitPictures, embedder: Embedder, rows: Sequence[int]) -> Float[Tensor, "rows dim"]:
    """Embed the images of ascending rows; NaN for images that cannot be read."""
    parts: list[Tensor] = []
    there: list[bool] = []
    for batch in in_batches(pictures.pairs(rows), IMAGE_BATCH):
        images = [pair.image for _, pair in batch if pair is not None]
        there += [pair is not None for _, pair in batch]
        if images:
            parts.append(embedder.embed_images(images))
    if not parts:
        return torch.full((len(rows), 1), torch.nan)
    embeddings = torch.cat(parts)
    found = torch.full((len(rows), embeddings.shape[1]), torch.nan)
    found[torch.tensor(there)] = embeddings
    return found


def _at_hand(candidates: TopByModality, embeddings: SampleEmbeddings, m: int) -> TopByModality:
    """Select the m best samples whose embeddings can be computed; the next candidates replace missing ones."""
    while True:
        best = {modality: samples.first(m) for modality, samples in candidates.items()}
        embeddings.prepare({modality: samples.rows.flatten() for modality, samples in best.items()})
        missing = {modality: embeddings.missing(modality) for modality in best}
        if not any(torch.isin(samples.rows, missing[modality]).any() for modality, samples in best.items()):
            return best
        candidates = {modality: _without(samples, missing[modality]) for modality, samples in candidates.items()}


def _without(top: TopSamples, rows: Int64[Tensor, " rows"]) -> TopSamples:
    """Remove rows from top samples; later samples move up and the freed ranks at the end are empty (−1)."""
    gone = torch.isin(top.rows, rows)
    order = torch.argsort(gone.int(), dim=1, stable=True)
    gone = gone.gather(1, order)
    return TopSamples(top.values.gather(1, order).masked_fill(gone, 0), top.rows.gather(1, order).masked_fill(gone, -1))


def _ms(
    workspace: Workspace, features: FeatureSet, embeddings: SampleEmbeddings, rows: Int64[Tensor, " rows"]
) -> dict[Modality, Float64[Tensor, " features"]]:
    """Compute MS on images and on texts over the given rows, in one pass per modality."""

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
    partition: Partition,
) -> FeatureSetInterpretability:
    settings = workspace.cfg.monosemanticity
    random = random_rows(pool, features.num_features, settings.m, settings.n_draws, workspace.seed)
    image, text = (
        monosemanticity(top[modality], random, partial(embeddings.of, modality), ms.get(modality))
        for modality in MODALITIES
    )
    return FeatureSetInterpretability(name, partition, image, text)


def _over_training(
    workspace: Workspace, pool: Tensor, embeddings: SampleEmbeddings, metadata: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Average the scores at each snapshot of each dictionary (Figure 13)."""
    settings = workspace.cfg.monosemanticity
    for name, kind in workspace.recipes.items():
        if not isinstance(kind, Trained):
            continue
        for step, dictionary in snapshots(workspace.dictionary(name).path):
            features = DictionaryFeatures(name, dictionary.to(workspace.device))
            candidates = top_samples_of(
                workspace, features, settings.m + embeddings.spare, settings.deduplicate, metadata
            )
            top = _at_hand(candidates, embeddings, settings.m)
            partition = workspace.score(name, features).partition
            scored = _score(workspace, name, features, top, pool, embeddings, {}, partition)
            for row in scored.averages():
                if row["class"] == "all":
                    yield {"feature_set": name, "step": step, **row}


def _table5(scored: FeatureSetInterpretability) -> Iterator[dict[str, object]]:
    """Visual and Textual Mono by metric (Table 5); None if a class has no scored feature."""
    for modality in MODALITIES:
        row: dict[str, object] = {
            "feature_set": scored.name,
            "score": "Visual Mono" if modality == "image" else "Textual Mono",
            "samples": modality,
        }
        for metric in ("mono", "embsim", "winrate", "ms"):
            estimate = scored.modality_mono(modality, metric)
            known = not np.isnan(estimate.mean)
            row[metric] = estimate.mean if known else None
            row[f"{metric}_se"] = estimate.error if known and not np.isnan(estimate.error) else None
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
