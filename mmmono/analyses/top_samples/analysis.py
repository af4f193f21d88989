"""Top samples of every feature, and the images of those that are shown on contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmmono.analyses.top_samples import Settings
from mmmono.analyses.top_samples.figures import IMAGES, sheet_of
from mmmono.core.errors import ConfigError, DataError
from mmmono.features import Modality
from mmmono.features.selection import CAPTION_WANTED
from mmmono.interpretability import TopSamples
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import SplitImages, or_without
from mmmono.pipeline.top_samples import check_m, top_samples_of
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

SCHEMA = pa.schema(
    {
        "feature_set": pa.string(), "feature": pa.int64(), "class": pa.string(), "samples": pa.string(),
        "rank": pa.int64(), "activation": pa.float32(), "row": pa.int64(), "key": pa.string(), "caption": pa.string(),
    }
)  # fmt: skip

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Find the top samples of all features of the selected feature sets on the dataset's split.

    Raises:
        ConfigError: a setting is invalid.
    """
    settings = read_settings(workspace.cfg, "top_samples", Settings)
    if settings.sheets:
        with or_without("top_samples.per_class=0 makes the table alone, without contact sheets"):
            workspace.dataset.check_images(workspace.dataset.split)
    features = workspace.features(workspace.dataset.split)
    check_m(settings.m, len(features.view))
    recipe = {
        "features": features.recipe,
        **workspace.partitions_recipe(),
        "top_samples": asdict(settings),
        "seed": workspace.seed,
    }
    return Study(recipe, lambda folder: _compute(workspace, settings, folder))


def _check_features(named: Sequence[int], name: str, count: int) -> None:
    for feature in named:
        if not 0 <= feature < count:
            raise ConfigError(f"top_samples.show names feature {feature}, but {name} has 0 to {count - 1}")


def _compute(workspace: Workspace, settings: Settings, folder: Path) -> Tables:
    """Write the table of samples and the images that are shown; return the table of contact sheets.

    The table of samples, with m rows for each feature and modality, is written one feature set at a time.

    Raises:
        ConfigError: a named feature does not exist.
        DataError: the pairs have no captions, or their images cannot be read.
    """
    metadata = workspace.features(workspace.dataset.split).view.metadata()
    if "caption" not in metadata:
        store = workspace.features(workspace.dataset.split).store.path
        raise DataError(f"{store} has no captions to show: {CAPTION_WANTED}")
    for name in workspace.specs if settings.show else ():
        _check_features(settings.show or (), name, workspace.feature_set(name).num_features)
    sheets: list[Row] = []
    shown: set[int] = set()
    with pq.ParquetWriter(folder / "samples.parquet", SCHEMA) as writer:
        for name in workspace.specs:
            scored = workspace.dominance(name)
            top = top_samples_of(
                workspace, workspace.feature_set(name), settings.m, settings.deduplicate, settings.side
            )
            table = _table(name, scored, top, metadata)
            writer.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False))
            on_sheets = list(settings.show or ()) or _draw_features(scored, settings.per_class, workspace.seed)
            sheets += [_sheet(scored, top, feature, metadata) for feature in on_sheets]
            shown |= set(top["image"].rows[on_sheets, : settings.shown].flatten().tolist())
    if settings.sheets:
        images = SplitImages(workspace, workspace.dataset.split)
        (folder / IMAGES).mkdir(exist_ok=True)
        for row, image in images.shown(shown, title=workspace.modalities.said("images")).items():
            image.save(folder / IMAGES / f"{row}.png")
        images.report(folder)
    return {"sheets": sheets}


def _draw_features(scored: FeatureSetDominance, per_class: int, seed: int) -> list[int]:
    """Draw up to `per_class` random features of each class; by class, and within a class by index."""
    drawn: list[int] = []
    for name in LIVE_CLASSES:
        members = scored.partition[name].numpy()
        chosen = np.random.default_rng(seed).choice(members, min(per_class, len(members)), replace=False)
        drawn += sorted(int(feature) for feature in chosen)
    return drawn


def _table(
    name: str, scored: FeatureSetDominance, top: Mapping[Modality, TopSamples], metadata: pd.DataFrame
) -> pd.DataFrame:
    """Build a table with one row per feature, modality and rank; ranks without a sample are left out."""
    classes = np.array(scored.partition.class_of())
    frames = []
    for modality, samples in top.items():
        feature, rank = (samples.rows >= 0).numpy().nonzero()
        rows = samples.rows.numpy()[feature, rank]
        # A store that another program made may have no keys.
        columns = {name: metadata[name].to_numpy()[rows] if name in metadata else None for name in ("key", "caption")}
        frames.append(
            pd.DataFrame(
                {
                    "feature_set": name, "feature": feature, "class": classes[feature], "samples": modality,
                    "rank": rank, "activation": samples.values.numpy()[feature, rank], "row": rows, **columns,
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _sheet(
    scored: FeatureSetDominance, top: Mapping[Modality, TopSamples], feature: int, metadata: pd.DataFrame
) -> Row:
    found = {modality: int(samples.found[feature]) for modality, samples in top.items()}
    members = scored.partition.class_of()[feature]
    best = int(top["text"].rows[feature, 0])
    negative = any(bool(samples.negative[feature]) for samples in top.values())
    return {
        "feature_set": scored.name, "feature": feature, "class": members,
        "mds": float(scored.scores.scores[feature]), "side": "negative" if negative else "positive",
        "images": found["image"], "texts": found["text"], "m": top["image"].rows.shape[1],
        "top_caption": metadata["caption"].iloc[best] if best >= 0 else None,
        "sheet": f"{sheet_of(scored.name, members, feature)}.png",
    }  # fmt: skip
