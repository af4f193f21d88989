"""Monosemanticity of all features on images and texts (EmbSim, WinRate, MS), averaged by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.analyses.interpretability import SCORES, TABLE5_METRICS, Settings
from mmmono.analyses.interpretability.embeddings import SampleEmbeddings
from mmmono.core.errors import DataError
from mmmono.dictionaries import DictionaryFeatures
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.interpretability import TopSamples, monosemanticity_score
from mmmono.interpretability.chance import Chance, chance_level, random_rows
from mmmono.interpretability.report import FeatureSetInterpretability, Monosemanticity, monosemanticity
from mmmono.modality import FeatureClass, Partition
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.specs import Trained
from mmmono.pipeline.top_samples import check_m, grouped_metadata, top_samples_of
from mmmono.pipeline.training import snapshots
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]
COMPARED: tuple[FeatureClass, FeatureClass] = ("ImgD", "TextD")  # classes of Table 5
TopByModality = dict[Modality, TopSamples]
Scores = Mapping[Modality, Float64[Tensor, " features"]]


def prepare(workspace: Workspace) -> Study:
    """Score every feature on images and texts, average by class, and compare the modalities.

    Raises:
        ConfigError: a setting is invalid.
    """
    settings = read_settings(workspace.cfg, "interpretability", Settings)
    features = workspace.features(workspace.dataset.split)
    check_m(settings.m, len(features.view))
    embeddings = SampleEmbeddings(workspace, settings.m)
    recipe = {
        "features": features.recipe,
        **workspace.partitions_recipe(),
        "embedder": embeddings.identity,
        "independent": embeddings.independent,
        "interpretability": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        embeddings.load()
        tables = _Scoring(workspace, settings, embeddings).tables()
        embeddings.report(folder)
        return tables

    return Study(recipe, compute)


class _Scoring:
    """Scores feature sets on their top samples, against the same random samples.

    Args:
        workspace: provides pairs, feature sets and partitions.
        settings: settings of the scores.
        embeddings: embeddings of the samples.
    """

    def __init__(self, workspace: Workspace, settings: Settings, embeddings: SampleEmbeddings) -> None:
        self._workspace = workspace
        self._settings = settings
        self._embeddings = embeddings
        self._metadata = grouped_metadata(workspace)
        self._pool: dict[Modality, Int64[Tensor, " pool"]]  # rows from which random samples are drawn
        self._chance: dict[Modality, Chance]

    def tables(self) -> Tables:
        """Score the selected feature sets. Raises DataError if too few images can be read."""
        workspace, settings, embeddings = self._workspace, self._settings, self._embeddings
        sets = {name: workspace.feature_set(name) for name in workspace.specs}
        candidates = {name: self._candidates(features) for name, features in sets.items()}
        ms_rows, pool = self._drawn()
        if settings.ms:
            embeddings.prepare(dict.fromkeys(MODALITIES, ms_rows))
        best = [{m: top.first(settings.m) for m, top in tops.items()} for tops in candidates.values()]
        embeddings.prepare({m: torch.cat([pool[m], *(tops[m].rows.flatten() for tops in best)]) for m in MODALITIES})
        ms_rows, self._pool = embeddings.had(ms_rows), {m: embeddings.had(rows) for m, rows in pool.items()}
        self._measure_chance()
        top = {name: _at_hand(tops, embeddings, settings.m) for name, tops in candidates.items()}
        scored = [
            self._score(name, workspace.partition(name), top[name], self._ms(features, ms_rows))
            for name, features in sets.items()
        ]
        history = list(self._over_training()) if settings.over_training else []
        return {
            "scores": [row for one in scored for row in one.to_rows()],
            "table4": [row for one in scored for row in one.averages()],
            "table5": [row for one in scored for row in _table5(one)],
            **({"over_training": history} if history else {}),
        }

    def _measure_chance(self) -> None:
        """Score random samples in place of top samples. Raises DataError if too few images can be read."""
        settings = self._settings
        for modality, pool in self._pool.items():
            if len(pool) < settings.m:
                raise DataError(
                    f"{len(pool)} {modality}s could be read for random samples, but interpretability.m={settings.m} are "
                    "needed"
                )
        self._chance = {
            modality: chance_level(
                pool, partial(self._embeddings.of, modality), settings.m, settings.n_draws, self._workspace.seed
            )
            for modality, pool in self._pool.items()
        }

    def _candidates(self, features: FeatureSet) -> TopByModality:
        """Top samples of a feature set, with spare ones for those whose images cannot be read."""
        count = self._settings.m + self._embeddings.spare
        return top_samples_of(self._workspace, features, count, self._settings.deduplicate, self._settings.side)

    def _drawn(self) -> tuple[Int64[Tensor, " rows"], dict[Modality, Int64[Tensor, " pool"]]]:
        """Draw the rows over which MS is computed, by group, and those from which random samples are drawn."""
        settings, rows = self._settings, torch.arange(len(self._metadata))
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self._workspace.seed))]
        # Like the top samples, the random samples hold one of several variants of an image, and a caption once.
        kept = self._metadata.iloc[shuffled.numpy()]
        if settings.deduplicate:
            kept = kept[~kept["group"].duplicated()]
        pool: dict[Modality, Tensor] = {"image": torch.from_numpy(kept.index.to_numpy().copy())}
        if settings.deduplicate and "caption" in kept:
            kept = kept[~kept["caption"].str.casefold().duplicated()]
        pool["text"] = torch.from_numpy(kept.index.to_numpy().copy())
        ms_rows = rows if self._embeddings.free else shuffled[: settings.ms_pairs].sort().values
        ms_rows = ms_rows[self._groups_of(ms_rows).argsort(stable=True)]
        return ms_rows, {modality: of[: max(settings.m, settings.random_pool)] for modality, of in pool.items()}

    def _groups_of(self, rows: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        return torch.from_numpy(self._metadata["group"].to_numpy()[rows.numpy()])

    def _ms(self, features: FeatureSet, rows: Int64[Tensor, " rows"]) -> Scores:
        """Compute MS on images and on texts over the given rows, in one pass per modality; empty if not asked for.

        Pairs of samples of one group are left out.
        """
        groups = self._groups_of(rows)
        single = len(groups.unique()) == len(groups)

        def blocks(modality: Modality) -> Iterator[tuple[Tensor, Tensor]]:
            for part in rows.split(4096):
                codes = self._workspace.encode_rows(features, modality, part.numpy())
                yield codes, self._embeddings.of(modality, part)

        return (
            {m: monosemanticity_score(blocks(m), None if single else groups) for m in MODALITIES}
            if self._settings.ms
            else {}
        )

    def _score(self, name: str, partition: Partition, top: TopByModality, ms: Scores) -> FeatureSetInterpretability:
        settings = self._settings

        def scores(modality: Modality) -> Monosemanticity:
            pool, embed = self._pool[modality], partial(self._embeddings.of, modality)
            random = random_rows(pool, len(partition), settings.m, settings.n_draws, self._workspace.seed)
            return monosemanticity(top[modality], random, embed, ms.get(modality), self._chance[modality])

        image, text = (scores(modality) for modality in MODALITIES)
        return FeatureSetInterpretability(name, partition, image, text)

    def _over_training(self) -> Iterator[Row]:
        """Average the scores at each snapshot of each dictionary (Figure 13)."""
        workspace = self._workspace
        for name, kind in workspace.specs.items():
            if not isinstance(kind, Trained):
                continue
            train = workspace.features(workspace.settings.training.split).view
            for step, dictionary in snapshots(workspace.dictionary(name).path):
                kind.finish(dictionary, train, workspace.settings.features.normalize)
                features = DictionaryFeatures(name, dictionary.to(workspace.device))
                top = _at_hand(self._candidates(features), self._embeddings, self._settings.m)
                scored = self._score(name, workspace.score(name, features).partition, top, {})
                for row in scored.averages():
                    if row["class"] == "all":
                        yield {"step": step, **row}


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


def _table5(scored: FeatureSetInterpretability) -> Iterator[Row]:
    """Yield Visual and Textual Mono by metric (Table 5); None if a class has no scored feature."""
    for modality in MODALITIES:
        row: Row = {
            "feature_set": scored.name,
            "score": SCORES[modality],
            "samples": modality,
            **{f"{name}_scored": scored.estimate(modality, "mono", name).count for name in COMPARED},
            **{f"{name}_features": scored.size(name) for name in COMPARED},
        }
        for metric in TABLE5_METRICS:
            estimate = scored.modality_mono(modality, metric)
            known = not np.isnan(estimate.mean)
            row[metric] = estimate.mean if known else None
            row[f"{metric}_se"] = estimate.error if known and not np.isnan(estimate.error) else None
        yield row
