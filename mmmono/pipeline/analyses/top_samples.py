"""`experiments/top_samples.py`: top samples of every feature, and contact sheets of some (Section 2.3, Figures 1–3)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from PIL.Image import Image

from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, ActivationBlock, FeatureSet, Modality
from mmmono.interpretability import TopSamples, TopStream
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.pictures import SplitPictures, tell_missing
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.contact_sheets import FeatureCard, contact_sheet
from mmmono.reporting.rows import sheet_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

MAX_REPEATS = 16  # to deduplicate, at most MAX_REPEATS * m candidates are kept per feature


def find_top_samples(workspace: Workspace) -> None:
    """Save a table of every feature's top samples, and contact sheets of the named or randomly drawn features."""
    settings = workspace.cfg.top_samples
    view = workspace.features(workspace.dataset.split).view
    check_m(settings.m, len(view))
    if not 1 <= settings.shown <= settings.m:
        raise ConfigError(f"top_samples.shown={settings.shown} must lie between 1 and top_samples.m={settings.m}")
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "top_samples": OmegaConf.to_container(settings),
        "seed": workspace.seed,
    }

    def make(directory: Path) -> None:
        metadata = view.metadata()
        pictures = SplitPictures(workspace, workspace.dataset.split)
        drawn: list[dict[str, object]] = []
        planned: list[_Sheet] = []
        for name in workspace.recipes:
            feature_set = workspace.feature_set(name)
            chosen = _named(settings.show, feature_set)
            scored = workspace.dominance(name)
            top = top_samples_of(workspace, feature_set, settings.m, settings.deduplicate, metadata)
            table = _table(name, scored, top, metadata)
            table.to_parquet(directory / f"{name}.parquet", index=False)
            sheets = {"chosen": chosen} if chosen else _draw_features(scored, settings.per_class, workspace.seed)
            planned += [
                _Sheet(name, members, features, scored, top) for members, features in sheets.items() if features
            ]
        shown = pictures.shown({row for sheet in planned for row in sheet.rows(settings.shown)}, title="pictures")
        for sheet in planned:
            cards = [sheet.card(feature, metadata, shown, settings.shown) for feature in sheet.features]
            save_figure(contact_sheet(cards), directory / f"{sheet.name}-{sheet.members}")
            for card in cards:
                file, _ = save_figure(contact_sheet([card]), directory / f"{sheet.name}-{card.members}-{card.feature}")
                drawn.append({**_summary(card, sheet.top), "sheet": file.name})
        save_table(drawn, directory / "sheets")
        pictures.report(directory)

    artifact = workspace.results("top_samples", recipe, make)
    tell_missing(artifact.path)
    rows = json.loads((artifact.path / "sheets.json").read_text())
    if rows:
        show_table(sheet_rows(rows), f"Features on contact sheets: {workspace.title}")
    console.print(f"Figures 1 to 3 and top samples of every feature: {artifact.path}/*.png, *.parquet")


def check_m(m: int, pairs: int) -> None:
    """Raise ConfigError unless 1 ≤ m ≤ pairs."""
    if not 1 <= m <= pairs:
        raise ConfigError(f"m={m} top samples asked for, but the split has {pairs} pairs: give 1 to {pairs}")


def top_samples_of(
    workspace: Workspace, feature_set: FeatureSet, m: int, deduplicate: bool, metadata: pd.DataFrame
) -> dict[Modality, TopSamples]:
    """Find the m most activating samples of every feature by modality, in one pass over the split.

    Args:
        workspace: provides the pairs.
        feature_set: the feature set.
        m: number of samples per feature and modality.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        metadata: metadata of the split.
    """
    search = TopSampleSearch(m, deduplicate, metadata)
    for block in workspace.activations(feature_set):
        search.add(block)
    return search.result()


class TopSampleSearch:
    """Streaming form of `top_samples_of`, for callers that share one pass with other computations."""

    def __init__(self, m: int, deduplicate: bool, metadata: pd.DataFrame) -> None:
        self._m = m
        self._contents: dict[Modality, list[Sequence[Hashable]]] = {"image": [], "text": []}
        if deduplicate and "group" in metadata:
            self._contents = {modality: [metadata["group"].tolist()] for modality in MODALITIES}
        if deduplicate and "caption" in metadata:
            self._contents["text"].append(metadata["caption"].str.casefold().tolist())
        # If the most frequent content occurs r times, r * m candidates suffice to find m different ones.
        self._repeats = {
            modality: max((Counter(entries).most_common(1)[0][1] for entries in several), default=1)
            for modality, several in self._contents.items()
        }
        self._streams = {
            modality: TopStream(min(m * min(self._repeats[modality], MAX_REPEATS), len(metadata)))
            for modality in MODALITIES
        }

    def add(self, block: ActivationBlock) -> None:
        """Add the next block of pairs."""
        for modality in MODALITIES:
            self._streams[modality].add(block.rows(modality))

    def result(self) -> dict[Modality, TopSamples]:
        """Top samples of all pairs added, deduplicated if requested."""
        found = {modality: stream.result() for modality, stream in self._streams.items()}
        return {
            modality: top.distinct(self._m, *self._contents[modality]) if self._repeats[modality] > 1 else top
            for modality, top in found.items()
        }


def _named(show: Sequence[int] | None, feature_set: FeatureSet) -> list[int]:
    features = list(show or ())
    for feature in features:
        if not 0 <= feature < feature_set.num_features:
            raise ConfigError(
                f"top_samples.show names feature {feature}, but {feature_set.name} has 0 to {feature_set.num_features - 1}"
            )
    return features


def _draw_features(scored: FeatureSetDominance, per_class: int, seed: int) -> dict[str, list[int]]:
    """Draw up to `per_class` random features of each class, sorted by index."""
    drawn: dict[str, list[int]] = {}
    for name in LIVE_CLASSES:
        members = scored.partition[name].numpy()
        chosen = np.random.default_rng(seed).choice(members, min(per_class, len(members)), replace=False)
        drawn[name] = sorted(int(feature) for feature in chosen)
    return drawn


def _table(
    name: str, scored: FeatureSetDominance, top: dict[Modality, TopSamples], metadata: pd.DataFrame
) -> pd.DataFrame:
    """Build a table with one row per feature, modality and rank; ranks without a sample are left out."""
    classes = np.array(scored.partition.class_of())
    frames = []
    for modality, samples in top.items():
        feature, rank = (samples.rows >= 0).numpy().nonzero()
        rows = samples.rows.numpy()[feature, rank]
        columns = {c: metadata[c].to_numpy()[rows] for c in ("key", "caption") if c in metadata}
        frames.append(
            pd.DataFrame(
                {
                    "feature_set": name, "feature": feature, "class": classes[feature], "samples": modality,
                    "rank": rank, "activation": samples.values.numpy()[feature, rank], "row": rows, **columns,
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class _Sheet:
    """Features of one feature set that share a contact sheet."""

    name: str
    members: str
    features: Sequence[int]
    scored: FeatureSetDominance
    top: dict[Modality, TopSamples]

    def rows(self, shown: int) -> list[int]:
        """Rows of the images on the sheet."""
        return self.top["image"].rows[list(self.features), :shown].flatten().tolist()

    def card(self, feature: int, metadata: pd.DataFrame, pictures: dict[int, Image], shown: int) -> FeatureCard:
        """Build the card of a feature."""
        samples = {
            modality: [
                (row, value)
                for row, value in zip(best.rows[feature].tolist(), best.values[feature].tolist(), strict=True)
                if row >= 0
            ][:shown]
            for modality, best in self.top.items()
        }
        return FeatureCard(
            feature_set=self.name,
            feature=feature,
            members=self.scored.partition.class_of()[feature],
            mds=float(self.scored.scores.scores[feature]),
            images=[(pictures[row], value) for row, value in samples["image"]],
            captions=[(metadata["caption"].iloc[row], value) for row, value in samples["text"]],
            asked=shown,
        )


def _summary(card: FeatureCard, top: dict[Modality, TopSamples]) -> dict[str, object]:
    m = top["image"].rows.shape[1]
    found = {modality: int(samples.found[card.feature]) for modality, samples in top.items()}
    return {
        "feature_set": card.feature_set, "feature": card.feature, "class": card.members, "mds": card.mds,
        "images": found["image"], "texts": found["text"], "m": m,
        "top_caption": card.captions[0][0] if card.captions else None,
    }  # fmt: skip
