"""Steerability of all live features of each feature set, and contact sheets of some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.analyses.steering import Settings
from mmmono.analyses.steering.figures import IMAGES
from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.core.statistics import t_mean
from mmmono.features import FeatureSet, Modality, RawFeatures
from mmmono.features.removal import Composition, composition_of
from mmmono.features.rows import prepare as prepare_rows
from mmmono.interpretability.steering import Steered, SteeredRetrieval
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import SplitImages
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import embeddings_of

Row = dict[str, object]
Array = np.ndarray[Any, Any]
FDR = 0.05


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
    """
    settings = read_settings(workspace.cfg, "steering", Settings)
    view = workspace.features(workspace.dataset.split).view
    groups = len(np.unique(view.groups()))
    if groups < max(3, settings.k + 1):
        raise ConfigError(f"steering.k={settings.k} images are to be found, but the split has {groups} groups of pairs")
    if settings.sheets:
        _images(workspace)
    embeds = settings.sheets and settings.query is not None
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "steering": asdict(settings),
        "model": workspace.model.recipe() if embeds else None,
        "seed": workspace.seed,
    }
    return Study(recipe, lambda folder: _compute(workspace, settings, folder))


def _images(workspace: Workspace) -> SplitImages:
    try:
        return SplitImages(workspace, workspace.dataset.split)
    except ConfigError as error:
        raise ConfigError(f"{error}; steering.per_class=0 makes no contact sheets") from error


def _check_shown(workspace: Workspace, settings: Settings) -> None:
    """Raise ConfigError if a named feature does not exist; the dictionaries are made for it, before anything else."""
    for name in workspace.recipes if settings.show else ():
        count = workspace.feature_set(name).num_features
        for feature in settings.show or ():
            if not 0 <= feature < count:
                raise ConfigError(f"steering.show names feature {feature}, but {name} has 0 to {count - 1}")


def _compute(workspace: Workspace, settings: Settings, folder: Path) -> Tables:
    _check_shown(workspace, settings)
    samples = _samples(workspace, settings)
    tables: dict[str, list[Row]] = {name: [] for name in ("features", "summary", "shown", "samples")}
    for name in workspace.recipes:
        features, scored = workspace.feature_set(name), workspace.dominance(name)
        steering = _steering(workspace, features, samples.texts, samples.images, settings.k)
        live = scored.partition.live
        chosen = live[steering.reference[live] != 0].tolist()
        if len(chosen) > 1:
            found = _steered(steering, chosen, settings, name)
            rows = [row for steered in found for row in _rows(scored, steering, chosen, steered)]
            tables["features"] += rows
            tables["summary"] += _summary(rows)
        if samples.shown is not None:
            tables["shown"] += _shown(workspace, features, scored, samples, settings)
        tables["samples"].append({
            "feature_set": name, "queries": len(samples.texts), "images": len(samples.images),
            "steered": len(chosen), "silent": len(live) - len(chosen),
        })  # fmt: skip
    if settings.sheets:
        images = _images(workspace)
        (folder / IMAGES).mkdir(exist_ok=True)
        for row, image in images.shown({int(str(row["row"])) for row in tables["shown"]}, title="images").items():
            image.save(folder / IMAGES / f"{row}.png")
        images.report(folder)
    return tables


def _samples(workspace: Workspace, settings: Settings) -> Samples:
    """One pair of each group, drawn at random: all of them as images, some as texts."""
    view = workspace.features(workspace.dataset.split).view
    rng = np.random.default_rng(workspace.seed)
    order = rng.permutation(len(view))
    images = order[np.sort(np.unique(view.groups()[order], return_index=True)[1])][: settings.images]
    texts = np.sort(rng.permutation(images)[: settings.queries])
    shown, query = None, ""
    if settings.sheets and settings.query is not None:
        shown, query = _embedded(workspace, settings.query), settings.query
    elif settings.sheets:
        at = int(rng.choice(texts))
        shown, query = embeddings_of(workspace, "text", np.array([at])), str(view.metadata()["caption"].iloc[at])
    return Samples(np.sort(images), texts, shown, query)


def _embedded(workspace: Workspace, text: str) -> Float64[Tensor, "1 dim"]:
    """Embed a text as the dataset's texts were."""
    encoder = workspace.model.load(workspace.artifacts, workspace.device)
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


def _rows(
    scored: FeatureSetDominance, steering: SteeredRetrieval, chosen: Sequence[int], steered: Steered
) -> Iterator[Row]:
    """Rows of all steered features at one strength; texts are of different groups, so they are independent."""
    beyond = [t_mean(difference) for difference in (steered.moves - steered.controls).T.numpy()]
    adjusted = q_values(torch.tensor([estimate.p_value for estimate in beyond], dtype=torch.float64))
    classes, scores = scored.partition.class_of(), steered.scores()
    for place, feature in enumerate(chosen):
        yield {
            "feature_set": scored.name, "feature": feature, "class": classes[feature],
            "mds": float(scored.scores.scores[feature]), "reference": float(steering.reference[feature]),
            "strength": steered.strength, **t_mean(steered.moves[:, place].numpy()).interval().columns("move"),
            "control": float(steered.controls[:, place].mean()), **beyond[place].interval().columns("beyond"),
            "q_value": float(adjusted[place]), "stay": float(steered.stays[:, place].mean()),
            "score": float(scores[place]),
        }  # fmt: skip


def _summary(rows: Sequence[Row]) -> Iterator[Row]:
    """Means over the features of each class at each strength."""
    table = pd.DataFrame(rows)
    for of in LIVE_CLASSES:
        for strength, part in table[table["class"] == of].groupby("strength"):
            yield {
                "feature_set": part["feature_set"].iloc[0], "class": of, "strength": strength, "features": len(part),
                **{name: float(part[name].mean()) for name in ("move", "control", "stay", "score")},
                "moved": int(((part["q_value"] <= FDR) & (part["beyond"] > 0)).sum()),
            }  # fmt: skip


def _shown(
    workspace: Workspace, features: FeatureSet, scored: FeatureSetDominance, samples: Samples, settings: Settings
) -> Iterator[Row]:
    """Rows of the contact sheets: images that activate a feature most, and images that the text finds."""
    assert samples.shown is not None
    shown = min(settings.shown, len(samples.images))
    steering = _steering(workspace, features, samples.shown, samples.images, settings.k)
    classes = scored.partition.class_of()
    for feature in settings.show or _drawn(scored, steering, settings.per_class, workspace.seed):
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


def _drawn(scored: FeatureSetDominance, steering: SteeredRetrieval, per_class: int, seed: int) -> list[int]:
    """Random features of each class that some image activates."""
    drawn: list[int] = []
    for name in LIVE_CLASSES:
        members = scored.partition[name].numpy()
        members = members[(steering.reference[members] != 0).numpy()]
        drawn += np.random.default_rng(seed).choice(members, min(per_class, len(members)), replace=False).tolist()
    return drawn
