"""Steerability of all live features of each feature set, and contact sheets of some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.analyses.steering import Settings
from mmmono.analyses.steering.figures import IMAGES
from mmmono.core.progress import progress_bar
from mmmono.features import FeatureSet, Modality, RawFeatures
from mmmono.features.removal import Composition, composition_of
from mmmono.features.rows import prepare as prepare_rows
from mmmono.interpretability.steerability import Steered
from mmmono.interpretability.steering import SteeredRetrieval
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import SplitImages, or_without
from mmmono.pipeline.maker import encoder_of_pairs
from mmmono.pipeline.steering import (
    Row,
    check_groups,
    check_shown,
    class_rows,
    drawn_by_class,
    one_of_each_group,
    random_features,
    steered_rows,
)
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import embeddings_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Samples:
    """What finds, and what is found.

    Attributes:
        images: positions of the images in the split, one of each group.
        texts: positions of the texts.
        shown: embedding of the text on contact sheets, `[1, dim]`; None without sheets.
        query: this text.
    """

    images: Array
    texts: Array
    shown: Tensor | None
    query: str


def prepare(workspace: Workspace) -> Study:
    """Steer the live features of the selected feature sets on the dataset's split.

    Raises:
        ConfigError: a setting is invalid, there are too few groups of pairs, or contact sheets are wanted of a dataset
            without images.
        DataError: contact sheets are wanted, and none of the first images can be read.
    """
    settings = read_settings(workspace.cfg, "steering", Settings)
    check_groups(workspace, "steering", settings.k)
    if settings.sheets:
        with or_without("steering.per_class=0 makes no contact sheets"):
            SplitImages(workspace, workspace.dataset.split).check()
        if settings.query is None:
            workspace.features(workspace.dataset.split).view.captions()  # raises if there is none to show
    embeds = settings.sheets and settings.query is not None
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "steering": asdict(settings),
        "model": workspace.model.identity if embeds else None,
        "seed": workspace.seed,
    }
    return Study(recipe, lambda folder: _compute(workspace, settings, folder))


def _compute(workspace: Workspace, settings: Settings, folder: Path) -> Tables:
    check_shown(workspace, "steering", settings.show)
    samples = _samples(workspace, settings)
    tables: dict[str, list[Row]] = {name: [] for name in ("features", "summary", "shown", "samples")}
    for name in workspace.specs:
        features, scored = workspace.feature_set(name), workspace.dominance(name)
        steering = _steering(workspace, features, samples.texts, samples.images, settings.k)
        live = scored.partition.live
        active = live[steering.reference[live] != 0]
        chosen = drawn_by_class(scored.partition, active, settings.max_features, workspace.seed)
        if len(chosen) > 1:
            found = _steered(steering, chosen, settings, name)
            rows = [row for steered in found for row in steered_rows(scored, chosen, steered, steering.reference)]
            tables["features"] += rows
            tables["summary"] += class_rows(rows)
        if samples.shown is not None:
            tables["shown"] += _shown(workspace, features, scored, samples, settings)
        tables["samples"].append({
            "feature_set": name, "queries": len(samples.texts), "images": len(samples.images),
            "steered": len(chosen), "active": len(active), "silent": len(live) - len(active),
        })  # fmt: skip
    if settings.sheets:
        images = SplitImages(workspace, workspace.dataset.split)
        (folder / IMAGES).mkdir(exist_ok=True)
        shown = {int(str(row["row"])) for row in tables["shown"]}
        for row, image in images.shown(shown, title=workspace.modalities.said("images")).items():
            image.save(folder / IMAGES / f"{row}.png")
        images.report(folder)
    return tables


def _samples(workspace: Workspace, settings: Settings) -> Samples:
    """One pair of each group, drawn at random: all of them as images, some as texts."""
    view = workspace.features(workspace.dataset.split).view
    rng = np.random.default_rng(workspace.seed)
    images = one_of_each_group(workspace, settings.images, rng)
    texts = np.sort(rng.permutation(images)[: settings.queries])
    shown, query = None, ""
    if settings.sheets and settings.query is not None:
        shown, query = _embedded(workspace, settings.query), settings.query
    elif settings.sheets:
        at = int(rng.choice(texts))
        shown, query = embeddings_of(workspace, "text", np.array([at])), str(view.captions().iloc[at])
    return Samples(np.sort(images), texts, shown, query)


def _embedded(workspace: Workspace, text: str) -> Float64[Tensor, "1 dim"]:
    """Embed a text as the dataset's texts were."""
    encoder = encoder_of_pairs(workspace, f"steering.query={text}", "steering.query=null takes a caption of the pairs")
    with torch.inference_mode():
        embedding = encoder.encode_text(encoder.tokenize([text]).to(workspace.device))
        return prepare_rows(embedding, workspace.settings.features.normalize, "cpu", "steering.query")


def _composed(workspace: Workspace, features: FeatureSet, embeddings: Tensor, modality: Modality) -> Composition:
    decoded = features.decodes and not isinstance(features, RawFeatures)
    return composition_of(features, embeddings, modality, decoded, workspace.device)


def _steering(
    workspace: Workspace, features: FeatureSet, texts: Array | Tensor, images: Array, k: int
) -> SteeredRetrieval:
    """Put texts and images into the space of a feature set: embeddings if it has a decoder, else its codes.

    Args:
        workspace: provides the pairs.
        features: the feature set.
        texts: positions of the texts, or their embeddings.
        images: positions of the images.
        k: number of images to find.
    """
    text = texts if isinstance(texts, Tensor) else embeddings_of(workspace, "text", texts)
    image = embeddings_of(workspace, "image", images)
    of_text, of_image = _composed(workspace, features, text, "text"), _composed(workspace, features, image, "image")
    if of_text.atoms is None:  # embeddings themselves, or codes without a decoder
        return SteeredRetrieval(of_text.codes, of_text.codes, of_image.codes, of_image.codes, None, k)
    return SteeredRetrieval(text.double(), of_text.codes, image.double(), of_image.codes, of_text.atoms, k)


def _steered(steering: SteeredRetrieval, chosen: Sequence[int], settings: Settings, name: str) -> list[Steered]:
    with progress_bar() as bar:
        task = bar.add_task(f"steering, {name}", total=len(chosen) * len(settings.strengths))
        return list(steering.steered(chosen, settings.strengths, settings.how, partial(bar.advance, task)))


def _shown(
    workspace: Workspace, features: FeatureSet, scored: FeatureSetDominance, samples: Samples, settings: Settings
) -> Iterator[Row]:
    """Rows of the contact sheets: images that activate a feature most, and images that the text finds."""
    assert samples.shown is not None
    shown = min(settings.shown, len(samples.images))
    steering = _steering(workspace, features, samples.shown, samples.images, settings.k)
    classes = scored.partition.class_of()
    for feature in settings.show or random_features(scored, steering.reference, settings.per_class, workspace.seed):
        reference = float(steering.reference[feature])
        activation = steering.image_codes[:, feature] / (reference or 1.0)
        most = activation.topk(shown).indices
        found = {("most", 0.0): most[activation[most] > 0], ("found", None): steering.found(count=shown)[0]}
        found |= {("found", s): steering.found(feature, s, settings.how, shown)[0] for s in settings.strengths}
        for (kind, strength), rows in found.items():
            for rank, row in enumerate(rows.tolist()):
                yield {
                    "feature_set": scored.name, "feature": feature, "class": classes[feature],
                    "mds": float(scored.scores.scores[feature]), "query": samples.query,
                    "strength": None if kind == "most" else strength, "most": int(kind == "most"), "rank": rank,
                    "row": int(samples.images[row]), "activation": float(activation[row]),
                }  # fmt: skip
