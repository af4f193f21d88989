"""`experiments/gender.py`: do image- or text-dominant features carry a concept? (Section 4.1)"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from mmmono.case_studies.concepts import ConceptLabels, ConceptPair, Labeler, tokens
from mmmono.case_studies.gender import Space, class_share, concept_removal, paired_differences
from mmmono.case_studies.words import WordScore, distinctive_words
from mmmono.core.errors import ConfigError, DictionaryError
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.modality import Partition
from mmmono.pipeline.analyses.dominance import dominance
from mmmono.pipeline.labels import classified
from mmmono.pipeline.pictures import SplitPictures, finished_features, tell_missing
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.concept_figures import images_by_share, removal_drops, words_by_share
from mmmono.reporting.published import published
from mmmono.reporting.rows import concept_rows, paired_rows, word_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

ENOUGH_PAIRS = 10  # minimum number of twins (captions equal but for the concept) for the paired test


def study_concepts(workspace: Workspace) -> None:
    """Remove ImgD and TextD (Table 2); sort images and words by their share of them (Figure 7, Table 6).

    Raises:
        ConfigError: a setting is invalid, or there are too few samples or features.
    """
    settings = workspace.cfg.concepts
    pair = _concepts(workspace)
    if settings.space not in ("features", "embeddings"):
        raise ConfigError(f"concepts.space={settings.space} is none of features, embeddings")
    labeler: Labeler = instantiate(workspace.cfg.labels)
    split = workspace.whole_split(settings.split)
    if finished_features(workspace, split) is None:  # check before hours of extraction
        labeler.check(pair)
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
        # Detect problems before reading images.
        labeler.check(pair)
        partitions = {name: _partition(workspace, name, settings.space) for name in workspace.recipes}
        metadata = features.view.metadata()
        pictures = SplitPictures(workspace, split)
        # One pair per group: variants of one image would be each other's nearest references.
        rows = np.flatnonzero(~metadata["group"].duplicated()) if "group" in metadata else np.arange(len(metadata))
        labels = labeler.label(
            pair, metadata.iloc[rows].reset_index(drop=True),
            lambda classifier: classified(workspace, classifier, split, rows.tolist(), pictures),
        )  # fmt: skip
        _check(pair, labels, settings.min_samples)
        samples = _Samples.of(labels, rows, metadata, settings.confidence)
        found = [_study(workspace, name, partitions[name], samples, directory) for name in workspace.recipes]
        squares = pictures.shown({row for findings in found for row, _ in findings.shown})
        for findings in found:
            figure = images_by_share([(squares[row], share) for row, share in findings.shown], pair.a)
            save_figure(figure, directory / f"{findings.name}-figure7")
        save_table([row for findings in found for row in findings.removal], directory / "table2")
        save_table([row for findings in found for row in findings.words], directory / "table6")
        if paired := [row for findings in found for row in findings.paired]:
            save_table(paired, directory / "paired")
        counts = {**samples.counts(pair), "ambiguous": labels.ambiguous, "missing": labels.missing, "of": len(rows)}
        (directory / "labels.json").write_text(json.dumps(counts, indent=2) + "\n")
        pictures.report(directory)

    artifact = workspace.results(f"gender-{_slug(pair)}", recipe, make)
    _show(workspace, pair, artifact.path)


@dataclass
class _Findings:
    """Results of one feature set.

    Attributes:
        name: name of the feature set.
        removal, paired, words: rows of Table 2, of the paired test and of Table 6.
        shown: rows of the split with their shares of ImgD, for Figure 7.
    """

    name: str
    removal: list[dict[str, Any]]
    paired: list[dict[str, Any]]
    words: list[dict[str, Any]]
    shown: list[tuple[int, float]]


@dataclass(frozen=True)
class _Samples:
    """Pairs that show one of the two concepts, as aligned arrays.

    Attributes:
        rows: positions in the split.
        is_a, is_b: whether a pair shows concept a, or concept b.
        confident: whether the label is confident enough for the pair to be a reference.
        captions: captions of the pairs.
    """

    rows: np.ndarray[Any, Any]
    is_a: np.ndarray[Any, Any]
    is_b: np.ndarray[Any, Any]
    confident: np.ndarray[Any, Any]
    captions: pd.Series[str]

    @classmethod
    def of(
        cls, labels: ConceptLabels, rows: np.ndarray[Any, Any], metadata: pd.DataFrame, confidence: float
    ) -> _Samples:
        """Select the rows with a label; `confidence` is the threshold for references."""
        chosen = np.flatnonzero(labels.a | labels.b)
        captions = metadata["caption"].iloc[rows[chosen]].reset_index(drop=True)
        return cls(rows[chosen], labels.a[chosen], labels.b[chosen], labels.confidence[chosen] >= confidence, captions)

    def counts(self, pair: ConceptPair) -> dict[str, int]:
        """Numbers of samples of each concept, and of confident ones."""
        return {
            pair.a: int(self.is_a.sum()),
            pair.b: int(self.is_b.sum()),
            "confident": int(self.confident.sum()),
        }


def _study(workspace: Workspace, name: str, partition: Partition, samples: _Samples, directory: Path) -> _Findings:
    """Compute the tables and figures of one feature set, except Figure 7, which needs the images."""
    settings, pair, split = (
        workspace.cfg.concepts,
        _concepts(workspace),
        workspace.whole_split(workspace.cfg.concepts.split),
    )
    feature_set = workspace.feature_set(name)
    codes: dict[Modality, Tensor] = {
        modality: workspace.encode_rows(feature_set, modality, samples.rows, split) for modality in MODALITIES
    }
    try:
        removal = concept_removal(
            codes, (samples.is_a, samples.is_b), samples.confident, partition, (pair.a, pair.b),
            references=settings.references, draws=settings.draws,
            space=_space(feature_set, settings.space, workspace.device), seed=workspace.seed,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"feature set {name!r}: {error}") from error
    save_figure(removal_drops(removal), directory / f"{name}-table2")
    twins = _twins(pair, samples.captions.tolist(), samples.is_a, samples.is_b)
    enough = len(twins) >= ENOUGH_PAIRS
    paired = paired_differences(codes, twins, partition, seed=workspace.seed) if enough else []
    share = class_share(codes["text"], partition.text_dominant, settings.top)
    scores, bins = _words(samples.captions, share, samples.is_b, settings.bins, pair)
    save_figure(words_by_share(scores, bins, pair.b), directory / f"{name}-table6")
    ends = [{"low": low, "high": high} for low, high, _ in bins]
    share = class_share(codes["image"], partition.image_dominant, settings.top)
    return _Findings(
        name,
        [{"feature_set": name, **_flat(asdict(row))} for row in removal],
        [{"feature_set": name, **_flat(asdict(row))} for row in paired],
        [{"feature_set": name, **ends[score.group], **asdict(score)} for score in scores],
        [(int(samples.rows[i]), value) for i, value in _by_share(share, samples.is_a, settings.shown)],
    )


def _concepts(workspace: Workspace) -> ConceptPair:
    concept = workspace.cfg.concept
    return ConceptPair(concept.a, concept.b, tuple(concept.words_a), tuple(concept.words_b))


def _partition(workspace: Workspace, name: str, space: str) -> Partition:
    """Partition a feature set. Raises ConfigError if ImgD or TextD is empty, or a needed decoder is missing."""
    feature_set = workspace.feature_set(name)
    partition = dominance(workspace, name, feature_set).partition
    image, text = len(partition.image_dominant), len(partition.text_dominant)
    if not image or not text:
        raise ConfigError(
            f"feature set {name!r}: {image} features are ImgD and {text} TextD: both are needed; "
            "lower partition.n_sigma or mds.min_pairs"
        )
    if space == "embeddings":
        try:
            feature_set.decode(torch.zeros(1, feature_set.num_features, device=workspace.device), "image")
        except DictionaryError as error:
            raise ConfigError(f"concepts.space=embeddings: {error}") from error
    return partition


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
    """Pair rows of a and b whose captions differ only in the concepts' words; each row is used at most once."""
    concept = {*pair.words_a, *pair.words_b}

    def rest(caption: str) -> tuple[str, ...]:
        return tuple(word for word in tokens(caption) if word not in concept)

    second = {rest(captions[row]): row for row in np.flatnonzero(is_b)}
    return [(int(row), int(second.pop(key))) for row in np.flatnonzero(is_a) if (key := rest(captions[row])) in second]


def _by_share(share: Tensor, members: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Sort a concept's samples by share and pick up to `count` at evenly spaced ranks."""
    rows = np.flatnonzero(members & ~share.isnan().numpy())
    order = rows[np.argsort(share.numpy()[rows], kind="stable")]
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [(int(order[place]), float(share[order[place]])) for place in places]


def _words(
    captions: pd.Series[str], share: Tensor, members: np.ndarray, count: int, pair: ConceptPair
) -> tuple[list[WordScore], list[tuple[float, float, int]]]:
    """Score the words of a concept's texts in `count` bins of equal size, ordered by share."""
    rows = np.flatnonzero(members & ~share.isnan().numpy())
    order = rows[np.argsort(share.numpy()[rows], kind="stable")]
    groups = [group for group in np.array_split(order, count) if len(group)]
    bins = [(float(share[group[0]]), float(share[group[-1]]), len(group)) for group in groups]
    texts = [[captions.iloc[row] for row in group] for group in groups]
    return distinctive_words(texts, left_out={*pair.words_a, *pair.words_b}), bins


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Flatten each mean with its interval into three columns."""
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
    tell_missing(path)
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
