"""Remove ImgD and TextD (Table 2); sort images and words by their share of them (Figure 7, Table 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from mmmono.analyses.gender import Settings
from mmmono.analyses.gender.samples import Array, Samples, by_share, evenly
from mmmono.case_studies.concepts import ConceptLabels, ConceptPair, Labeler
from mmmono.case_studies.gender import (
    ConceptRemoval,
    RemovalSettings,
    Space,
    class_share,
    concept_removal,
    paired_differences,
)
from mmmono.case_studies.words import distinctive_words
from mmmono.core.errors import ConfigError, DictionaryError
from mmmono.core.statistics import Interval, holm
from mmmono.core.text import file_name
from mmmono.data.captions import image_key
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.features.selection import Split
from mmmono.modality import Partition
from mmmono.modality.random_sets import Match
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import SplitImages, finished_features, or_without
from mmmono.pipeline.labels import classified
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

ENOUGH_PAIRS = 10  # minimum number of twins (captions equal but for the concept) for the paired test
IMAGES = "images"  # folder of Figure 7's images, named by their rows of the split
Row = dict[str, Any]


def prepare(workspace: Workspace) -> Study:
    """Test on all selected feature sets which class of features carries the concept.

    Raises:
        ConfigError: a setting is invalid. The computation raises it if there are too few samples or features.
    """
    settings = read_settings(workspace.cfg, "gender", Settings)
    pair = read_settings(workspace.cfg, "concept", ConceptPair)
    if pair.a == pair.b:
        raise ConfigError(f"concept.a={pair.a} and concept.b={pair.b} are one concept: give two")
    match = workspace.settings.random_sets
    labeler: Labeler = instantiate(workspace.cfg.labels)
    split = workspace.dataset.whole_split(settings.split)
    if labeler.sees_images:
        workspace.dataset.check_images(split)
    elif settings.shown:
        with or_without("gender.shown=0 leaves Figure 7 out"):
            workspace.dataset.check_images(split)
    if finished_features(workspace, split) is None:  # check before hours of extraction
        labeler.check(pair)
    recipe = {
        "features": workspace.features(split).recipe,
        "scored_on": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "concept": asdict(pair),
        "labels": labeler.identity(),
        "gender": asdict(settings),
        "random_sets": match,
        "seed": workspace.seed,
    }
    case = _Case(workspace, settings, pair, labeler, split, match)
    return Study(recipe, case.compute, label=file_name(f"{pair.a}-{pair.b}".lower()))


@dataclass(frozen=True)
class _Case:
    """The two concepts, who labels them, the split whose pairs are labeled, and what random sets share with a class."""

    workspace: Workspace
    settings: Settings
    pair: ConceptPair
    labeler: Labeler
    split: Split
    match: Match

    def compute(self, folder: Path) -> Tables:
        """Compute all tables, and save the images that Figure 7 shows."""
        # Detect problems before reading images.
        self.labeler.check(self.pair)
        partitions = {name: self._partition(name) for name in self.workspace.specs}
        images = SplitImages(self.workspace, self.split) if self.labeler.sees_images or self.settings.shown else None
        samples, counts = self._labeled(images)
        tables: dict[str, list[Row]] = {"labels": [counts]}
        for name, partition in partitions.items():
            for table, rows in self._tables(name, partition, samples):
                tables.setdefault(table, []).extend({"feature_set": name, **row} for row in rows)
        if images is not None:
            _save_images(images, [row["row"] for row in tables["figure7"]], folder / IMAGES)
            images.report(folder)
        return tables

    def _partition(self, name: str) -> Partition:
        """Partition a feature set. Raises ConfigError if ImgD or TextD is empty, or a needed decoder is missing."""
        feature_set = self.workspace.feature_set(name)
        partition = self.workspace.partition(name)
        image, text = len(partition.image_dominant), len(partition.text_dominant)
        said = self.workspace.modalities.said
        if not image or not text:
            raise ConfigError(
                f"feature set {name!r}: {image} features are {said('ImgD')} and {text} {said('TextD')}: both are needed; "
                "lower partition.n_sigma or mds.min_pairs"
            )
        if self.settings.space == "embeddings":
            try:
                feature_set.decode(torch.zeros(1, feature_set.num_features, device=self.workspace.device), "image")
            except DictionaryError as error:
                raise ConfigError(f"gender.space=embeddings: {error}") from error
        return partition

    def _labeled(self, images: SplitImages | None) -> tuple[Samples, Row]:
        """Label the pairs of the split; return those that show a concept, and how many pairs have which label."""
        view = self.workspace.features(self.split).view
        metadata, captions = view.metadata(), view.captions()
        groups = view.groups()
        # Of an image with several captions the first counts: its other captions show no other image.
        of_one = groups if self.labeler.sees_images or "key" not in metadata else metadata["key"].map(image_key)
        rows = np.sort(np.unique(of_one, return_index=True)[1])
        asked = metadata.iloc[rows].reset_index(drop=True)
        labels = self.labeler.label(
            self.pair, asked,
            lambda classifier: classified(
                self.workspace, classifier, self.split, rows.tolist(), images or SplitImages(self.workspace, self.split)
            ),
        ).first_of_groups(groups[rows])  # fmt: skip
        _check(self.pair, labels, self.settings.min_samples, self.labeler.remedy(asked))
        samples = Samples.of(labels, rows, captions, self.settings.confidence)
        counts = {"a": samples.is_a.sum(), "b": samples.is_b.sum(), "confident": samples.confident.sum()}
        return samples, {
            **{name: int(count) for name, count in counts.items()},
            "ambiguous": labels.ambiguous, "missing": labels.missing, "of": len(rows),
        }  # fmt: skip

    def _tables(self, name: str, partition: Partition, samples: Samples) -> Iterator[tuple[str, list[Row]]]:
        """Yield the tables of one feature set, by name."""
        feature_set = self.workspace.feature_set(name)
        codes: dict[Modality, Tensor] = {
            modality: self.workspace.encode_rows(feature_set, modality, samples.rows, self.split)
            for modality in MODALITIES
        }
        removals = self._removal(feature_set, codes, samples, partition)
        adjusted = iter(holm([removal.beyond_random.p_value for removal in removals if removal.beyond_random]))
        yield (
            "table2",
            [_removal_row(removal, next(adjusted) if removal.beyond_random else None) for removal in removals],
        )
        twins = samples.twins(self.pair)
        if len(twins) >= ENOUGH_PAIRS:
            paired = paired_differences(codes, twins, partition)
            yield "paired", [
                {
                    "samples": row.samples, "class": row.members, "share": row.share, "energy": row.energy,
                    **row.enrichment.columns("enrichment"), "pairs": row.pairs,
                }
                for row in paired
            ]  # fmt: skip
        share = class_share(codes["image"], partition.image_dominant, self.settings.top)
        shown = enumerate(evenly(by_share(share, samples.is_a), self.settings.shown))
        images = [{"rank": rank, "row": int(samples.rows[i]), "share": float(share[i])} for rank, i in shown]
        yield "figure7", images
        yield from self._words(class_share(codes["text"], partition.text_dominant, self.settings.top), samples)

    def _removal(
        self, feature_set: FeatureSet, codes: dict[Modality, Tensor], samples: Samples, partition: Partition
    ) -> list[ConceptRemoval]:
        try:
            return concept_removal(
                codes, (samples.is_a, samples.is_b), samples.confident, partition, (self.pair.a, self.pair.b),
                RemovalSettings(
                    self.settings.references, self.settings.draws,
                    _space(feature_set, self.settings.space, self.workspace.device), self.match, self.workspace.seed,
                ),
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(f"feature set {feature_set.name!r}: {error}") from error

    def _words(self, share: Tensor, samples: Samples) -> Iterator[tuple[str, list[Row]]]:
        """Yield the scores of the words of b's texts, in groups of equal size by share, and the groups."""
        groups = _groups(by_share(share, samples.is_b), self.settings.bins)
        ends = [{"low": float(share[group[0]]), "high": float(share[group[-1]])} for group in groups]
        scores = distinctive_words(
            [[samples.captions[i] for i in group] for group in groups],
            left_out={*self.pair.words_a, *self.pair.words_b},
        )
        yield "table6", [{**ends[score.group], **asdict(score)} for score in scores]
        yield "groups", [{"group": i, **ends[i], "texts": len(group)} for i, group in enumerate(groups)]


def _check(pair: ConceptPair, labels: ConceptLabels, min_samples: int, remedy: str) -> None:
    for name, members in ((pair.a, labels.a), (pair.b, labels.b)):
        if (count := int(members.sum())) < min_samples:
            raise ConfigError(
                f"concept {name!r} has {count} samples, fewer than gender.min_samples={min_samples} "
                f"({labels.ambiguous} were left out as ambiguous): {remedy}"
            )


def _removal_row(removal: ConceptRemoval, p_holm: float | None) -> Row:
    beyond = removal.beyond_random
    return {
        "samples": removal.samples, "concept": removal.concept, "removed": removal.removed,
        "neurons": removal.neurons, "energy": removal.energy, "mismatch": removal.mismatch,
        **removal.baseline.columns("baseline"), **removal.drop.columns("drop"),
        **(beyond.interval() if beyond else Interval(float("nan"))).columns("beyond_random"),
        "p": beyond.p_value if beyond else None, "p_holm": p_holm,
        "equivalence": beyond.equivalence_bound() if beyond else None,
    }  # fmt: skip


def _space(feature_set: FeatureSet, name: str, device: str) -> Space | None:
    if name == "features":
        return None

    def decode(codes: Tensor, modality: Modality) -> Tensor:
        with torch.inference_mode():
            return feature_set.decode(codes.to(device), modality).cpu()

    return decode


def _groups(ordered: Array, count: int) -> list[Array]:
    """Split samples into up to `count` groups of about equal size; none is empty."""
    return [group for group in np.array_split(ordered, count) if len(group)]


def _save_images(images: SplitImages, rows: list[int], folder: Path) -> None:
    folder.mkdir()
    for row, image in images.shown(set(rows)).items():
        image.save(folder / f"{row}.png")
