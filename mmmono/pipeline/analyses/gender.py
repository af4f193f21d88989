"""`experiments/gender.py`: is a concept carried by the picture or by the words? (Section 4.1)"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL.Image import Image
from torch import Tensor

from mmmono.case_studies.concepts import ConceptLabels, ConceptPair, Labeler, tokens
from mmmono.case_studies.gender import Space, class_share, concept_removal, paired_differences
from mmmono.case_studies.words import WordScore, distinctive_words
from mmmono.core.errors import ConfigError
from mmmono.data import PairSource
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.pipeline.analyses.dominance import dominance
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.concept_figures import images_by_share, removal_drops, words_by_share
from mmmono.reporting.published import published
from mmmono.reporting.rows import concept_rows, paired_rows, word_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

ENOUGH_PAIRS = 10  # of samples that differ in the concept alone, for the paired test


def study_concepts(workspace: Workspace) -> None:
    """Removal of ImgD and TextD (Table 2), images and words by their share (Figure 7, Table 6), for all feature sets."""
    settings = workspace.cfg.concepts
    concept = workspace.cfg.concept
    pair = ConceptPair(concept.a, concept.b, tuple(concept.words_a), tuple(concept.words_b))
    if settings.space not in ("features", "embeddings"):
        raise ConfigError(f"concepts.space={settings.space} is none of features, embeddings")
    labeler: Labeler = instantiate(workspace.cfg.labels)
    split = workspace.whole_split(settings.split)
    features = workspace.features(split)
    recipe = {
        "features": features.recipe,
        "partitions": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "concept": asdict(pair),
        "labels": labeler.identity(),
        "concepts": OmegaConf.to_container(settings),
        "seed": workspace.seed,
    }

    def make(directory: Path) -> None:
        metadata = features.view.metadata()
        source = workspace.dataset.source(split)
        # One pair of each group: variants of one picture would be each other's nearest references.
        rows = np.flatnonzero(~metadata["group"].duplicated()) if "group" in metadata else np.arange(len(metadata))
        everyone = metadata.iloc[rows].reset_index(drop=True)
        labels = labeler.label(pair, everyone, partial(_images, source, everyone))
        chosen = np.flatnonzero(labels.a | labels.b)
        _check(pair, labels, settings.min_samples)
        metadata = everyone.iloc[chosen].reset_index(drop=True)
        is_a, is_b = labels.a[chosen], labels.b[chosen]
        confident = labels.confidence[chosen] >= settings.confidence
        removal, paired, words = [], [], []
        for name in workspace.recipes:
            feature_set = workspace.feature_set(name)
            partition = dominance(workspace, name, feature_set).partition
            codes: dict[Modality, Tensor] = {
                modality: workspace.encode_rows(feature_set, modality, rows[chosen], split) for modality in MODALITIES
            }
            try:
                found = concept_removal(
                    codes, (is_a, is_b), confident, partition, (pair.a, pair.b),
                    references=settings.references, draws=settings.draws,
                    space=_space(feature_set, settings.space, workspace.device), seed=workspace.seed,
                )  # fmt: skip
            except ValueError as error:
                raise ConfigError(f"feature set {name!r}: {error}") from error
            save_figure(removal_drops(found), directory / f"{name}-table2")
            removal += [{"feature_set": name, **_flat(asdict(row))} for row in found]
            twins = _twins(pair, metadata["caption"].tolist(), is_a, is_b)
            if len(twins) >= ENOUGH_PAIRS:
                rows_of = paired_differences(codes, twins, partition, seed=workspace.seed)
                paired += [{"feature_set": name, **_flat(asdict(row))} for row in rows_of]

            shown = _by_share(class_share(codes["image"], partition.image_dominant, settings.top), is_a, settings.shown)
            pictures = [(next(_images(source, metadata, [i])), share) for i, share in shown]
            save_figure(images_by_share(pictures, pair.a), directory / f"{name}-figure7")
            share = class_share(codes["text"], partition.text_dominant, settings.top)
            scores, bins = _words(metadata["caption"], share, is_b, settings.bins, pair)
            save_figure(words_by_share(scores, bins, pair.b), directory / f"{name}-table6")
            ends = [{"low": low, "high": high} for low, high, _ in bins]
            words += [{"feature_set": name, **ends[s.group], **asdict(s)} for s in scores]
        save_table(removal, directory / "table2")
        save_table(words, directory / "table6")
        if paired:
            save_table(paired, directory / "paired")
        counts = {
            pair.a: int(is_a.sum()), pair.b: int(is_b.sum()), "ambiguous": labels.ambiguous,
            "confident": int(confident.sum()), "of": len(rows),
        }  # fmt: skip
        (directory / "labels.json").write_text(json.dumps(counts, indent=2) + "\n")

    artifact = workspace.results(f"gender-{_slug(pair)}", recipe, make)
    _show(workspace, pair, artifact.path)


def _images(source: PairSource, metadata: pd.DataFrame, positions: Sequence[int]) -> Iterator[Image]:
    rows = metadata.iloc[list(positions)]
    locators = rows["locator"] if "locator" in rows else [""] * len(rows)
    for key, locator in zip(rows["key"], locators, strict=True):
        yield source.fetch(key, locator).image


def _slug(pair: ConceptPair) -> str:
    return "".join(c if c.isalnum() else "_" for c in f"{pair.a}-{pair.b}").lower()


def _check(pair: ConceptPair, labels: ConceptLabels, min_samples: int) -> None:
    for name, members in ((pair.a, labels.a), (pair.b, labels.b)):
        if (count := int(members.sum())) < min_samples:
            raise ConfigError(
                f"concept {name!r} has {count} samples, fewer than concepts.min_samples={min_samples} "
                f"({labels.ambiguous} were left out as ambiguous): give it more words in concept.words_a or "
                "concept.words_b, or more pairs"
            )


def _space(feature_set: FeatureSet, name: str, device: str) -> Space | None:
    if name == "features":
        return None

    def decode(codes: Tensor, modality: Modality) -> Tensor:
        with torch.inference_mode():
            return feature_set.decode(codes.to(device), modality).cpu()

    return decode


def _twins(pair: ConceptPair, captions: list[str], is_a: np.ndarray, is_b: np.ndarray) -> list[tuple[int, int]]:
    """Rows whose captions are the same but for the words of the concepts, each at most once."""
    concept = {*pair.words_a, *pair.words_b}

    def rest(caption: str) -> tuple[str, ...]:
        return tuple(word for word in tokens(caption) if word not in concept)

    second = {rest(captions[row]): row for row in np.flatnonzero(is_b)}
    return [(int(row), int(second.pop(key))) for row in np.flatnonzero(is_a) if (key := rest(captions[row])) in second]


def _by_share(share: Tensor, members: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Some samples of a concept at evenly spaced places in the order of their shares."""
    rows = np.flatnonzero(members & ~share.isnan().numpy())
    order = rows[np.argsort(share.numpy()[rows], kind="stable")]
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [(int(order[place]), float(share[order[place]])) for place in places]


def _words(
    captions: pd.Series[str], share: Tensor, members: np.ndarray, count: int, pair: ConceptPair
) -> tuple[list[WordScore], list[tuple[float, float, int]]]:
    """Words of a concept's texts in bins of equal size by share."""
    rows = np.flatnonzero(members & ~share.isnan().numpy())
    order = rows[np.argsort(share.numpy()[rows], kind="stable")]
    groups = [group for group in np.array_split(order, count) if len(group)]
    bins = [(float(share[group[0]]), float(share[group[-1]]), len(group)) for group in groups]
    texts = [[captions.iloc[row] for row in group] for group in groups]
    return distinctive_words(texts, left_out={*pair.words_a, *pair.words_b}), bins


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Means as three columns."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {key: value["value"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
        else:
            flat[key] = value
    return flat


def _show(workspace: Workspace, pair: ConceptPair, path: Path) -> None:
    counts = json.loads((path / "labels.json").read_text())
    table2 = json.loads((path / "table2.json").read_text())
    paired = json.loads((path / "paired.json").read_text()) if (path / "paired.json").exists() else []
    table6 = pd.read_parquet(path / "table6.parquet")
    for name in workspace.recipes:
        show_table(concept_rows(table2, name), f"Table 2, {name}: {pair.a} and {pair.b}, {workspace.title}")
        if paired:
            title = f"Paired test, {name}: {paired[0]['pairs']} pairs that differ in nothing else"
            show_table(paired_rows(paired, name), title)
        show_table(word_rows(table6, name), f"Table 6, {name}: words of {pair.b} texts")
    if difference := published("table2").difference(workspace.model.name, workspace.dataset_name):
        console.print(difference)
    labeled = f"{counts[pair.a]} {pair.a}, {counts[pair.b]} {pair.b}, {counts['ambiguous']} ambiguous of {counts['of']}"
    console.print(f"{labeled}; labels are what captions or a classifier say: see docs/ethics.md")
    console.print(f"Table 2, Figure 7, Table 6: {path}/*.png, *.parquet")
