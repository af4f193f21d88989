"""`experiments/explorer.py`: an interactive page of score distributions, features and their top samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.analyses.consensus import CONSENSUS
from mmmono.analyses.interpretability import INTERPRETABILITY
from mmmono.analyses.names import NAMES
from mmmono.analyses.sharedness import SHAREDNESS
from mmmono.commands.explorer.page import ExploredFeatures, ExplorerWriter, FoundAgain, Named
from mmmono.core.artifacts import Artifact
from mmmono.core.errors import DataError
from mmmono.core.modality_names import IMAGE_AND_TEXT
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.features.folding import OfBlocks, Together, pairs
from mmmono.interpretability import HistogramStream, Neighbors, centered_activations, nearest_features
from mmmono.interpretability.top_sample_search import Side
from mmmono.modality import sign_flip_p_values
from mmmono.pipeline.images import SplitImages, print_missing
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.top_samples import check_m, check_side, deepened, search_of
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.missing import missing_image
from mmmono.reporting.tables import console


@dataclass(frozen=True)
class _Results:
    """Results of other analyses of a feature set; None where there are none."""

    interpretability: Artifact | None
    sharedness: Artifact | None
    consensus: Artifact | None
    named: Artifact | None


@dataclass(frozen=True)
class ExplorerSettings:
    """Settings of the section `explorer`.

    Attributes:
        images, texts: number of top images and of top texts on a feature's card.
        deduplicate: show one sample of those with equal captions, and one of each group.
        side: which side of a signed feature's activations is shown, `dominant` or `positive`.
        thumbnails: whether images are shown, or captions alone.
        bins: of the histograms of activations, a multiple of 4.
        neighbors: number of similar features on a card.
        correlation_pairs: number of pairs over which features without atoms are correlated.
    """

    images: int
    texts: int
    deduplicate: bool
    side: Side
    thumbnails: bool
    bins: int
    neighbors: int
    correlation_pairs: int

    def __post_init__(self) -> None:
        for name in ("neighbors", "correlation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_side(self.side)
        if self.bins < 4 or self.bins % 4:
            raise ValueError(f"bins={self.bins} must be a positive multiple of 4")


def explore(workspace: Workspace) -> None:
    """Compute everything the page shows, in one pass over the activations per feature set, and write the page.

    Raises:
        ConfigError: a setting is invalid.
        DataError: the pairs have no captions, or their images cannot be read.
    """
    settings = read_settings(workspace.cfg, "explorer", ExplorerSettings)
    features = workspace.features(workspace.dataset.split)
    for m in (settings.images, settings.texts):
        check_m(m, len(features.view))
    metadata = features.view.metadata()
    if "caption" not in metadata:
        raise DataError(f"{features.store.path} has no captions to show: its metadata lacks the column caption")
    images = _images(workspace) if settings.thumbnails else None
    there = ResultsOnDisk(workspace)
    scored = {name: there.latest(INTERPRETABILITY, name) for name in workspace.recipes}
    compared = {name: there.latest(CONSENSUS, name) for name in workspace.recipes}
    shared = {name: there.latest(SHAREDNESS, name) for name in workspace.recipes}
    named = {name: there.latest(NAMES, name) for name in workspace.recipes}
    recipe = {
        "features": features.recipe,
        **workspace.partitions_recipe(),
        "explorer": asdict(settings),
        "interpretability": {name: result.digest if result else None for name, result in scored.items()},
        "consensus": {name: result.digest if result else None for name, result in compared.items()},
        "sharedness": {name: result.digest if result else None for name, result in shared.items()},
        "named": {name: result.digest if result else None for name, result in named.items()},
        "seed": workspace.seed,
        **({} if workspace.modalities == IMAGE_AND_TEXT else {"called": workspace.modalities.fields}),
    }

    def make(directory: Path) -> None:
        writer = ExplorerWriter(directory, metadata["caption"].tolist(), images is not None, workspace.modalities)
        for name in workspace.recipes:
            explored = _explored(
                workspace, settings, name, _Results(scored[name], shared[name], compared[name], named[name])
            )
            writer.add(explored)
            if images is not None and (rows := writer.rows(explored)):
                for row, pair in images.pairs(rows, title=f"{name}: thumbnails"):
                    writer.write_thumbnail(row, pair.image if pair else missing_image())
        made = {
            "pairs": len(features.view), "seed": workspace.seed, "embedder": _embedders(scored), "names": _embedders(named),
        }  # fmt: skip
        writer.finish(workspace.title, {**made, "attribution": images.attribution if images is not None else ""})
        if images is not None:
            images.report(directory)

    artifact = workspace.results("explorer", recipe, make)
    print_missing(artifact.path)
    if not all(scored.values()):
        console.print("without monosemanticity scores: make section-3, then this again, to have them", style="dim")
        for settings_of_others in there.other_settings(INTERPRETABILITY):
            console.print(f"there, under other settings: {settings_of_others}")
    if not all(shared.values()):
        console.print("without sharedness: make section-2.1, then this again, to have it", style="dim")
    console.print(f"open in a browser: {artifact.path}/index.html")


def _images(workspace: Workspace) -> SplitImages:
    """Images of the split. Raises DataError if the first one cannot be loaded, before anything is computed."""
    try:
        images = SplitImages(workspace, workspace.dataset.split)
        list(images.pairs([0]))
    except DataError as error:
        raise DataError(f"{error}; explorer.thumbnails=false makes the page without") from error
    return images


def _explored(workspace: Workspace, settings: ExplorerSettings, name: str, results: _Results) -> ExploredFeatures:
    """Everything that the page shows of a feature set."""
    feature_set = workspace.feature_set(name)
    search = search_of(workspace, max(settings.images, settings.texts), settings.deduplicate, settings.side)
    histograms = HistogramStream(settings.bins)
    workspace.folded(feature_set, Together(search, OfBlocks(histograms, pairs)))
    scored = workspace.dominance(name)
    p_value, q_value = sign_flip_p_values(scored.scores, workspace.live(scored.scores))
    neighbors, alike_by = _neighbors(workspace, settings, feature_set)
    top = deepened(workspace, feature_set, search)
    shown: dict[Modality, int] = {"image": settings.images, "text": settings.texts}
    return ExploredFeatures(
        dominance=scored,
        p_value=p_value,
        q_value=q_value,
        top={modality: top[modality].first(shown[modality]) for modality in MODALITIES},
        histograms=histograms.result(),
        neighbors=neighbors,
        alike_by=alike_by,
        mono=_mono(results.interpretability, name, feature_set.num_features) if results.interpretability else None,
        consensus=_found_again(results.consensus, name) if results.consensus else None,
        named=_named(results.named, name) if results.named else None,
        **(_sharedness(results.sharedness, name) if results.sharedness else {}),
    )


def _neighbors(workspace: Workspace, settings: ExplorerSettings, feature_set: FeatureSet) -> tuple[Neighbors, str]:
    """Most similar features, and the similarity used: cosine of atoms if there are any, else correlation."""
    if (atoms := feature_set.atoms) is not None:
        return nearest_features(atoms, settings.neighbors), "cosine of decoder atoms"
    count = len(workspace.features(workspace.dataset.split).view)
    rows = np.arange(count)
    if count > settings.correlation_pairs:
        rng = np.random.default_rng(workspace.seed)
        rows = np.sort(rng.choice(count, settings.correlation_pairs, replace=False))
    image, text = (workspace.encode_rows(feature_set, modality, rows) for modality in MODALITIES)
    return nearest_features(centered_activations(image, text), settings.neighbors), "correlation of activations"


def _mono(artifact: Artifact, name: str, features: int) -> dict[Modality, Float64[Tensor, " features"]]:
    frame = pd.read_parquet(
        artifact.path / "scores.parquet", columns=["feature_set", "feature", "samples", "mono_corrected"]
    )
    frame = frame[frame["feature_set"] == name]
    scores: dict[Modality, Tensor] = {}
    for modality in MODALITIES:
        mine = frame[frame["samples"] == modality].set_index("feature")["mono_corrected"].reindex(range(features))
        scores[modality] = torch.from_numpy(mine.to_numpy(dtype=np.float64).copy())
    return scores


def _found_again(artifact: Artifact, name: str) -> FoundAgain:
    frame = pd.read_parquet(
        artifact.path / "features.parquet", columns=["feature_set", "feature", "match", "consensus"]
    )
    mine = frame[frame["feature_set"] == name].sort_values("feature")
    return FoundAgain(*(torch.from_numpy(mine[column].to_numpy().copy()) for column in ("match", "consensus")))


def _named(artifact: Artifact, name: str) -> Named:
    frame = pd.read_parquet(artifact.path / "names.parquet")
    mine = frame[frame["feature_set"] == name].sort_values("feature")
    auroc: dict[Modality, Tensor] = {
        modality: torch.from_numpy(mine[f"auroc_{modality}"].to_numpy(np.float64).copy()) for modality in MODALITIES
    }
    return Named(mine["name"].where(mine["named"], "").tolist(), auroc)


def _sharedness(artifact: Artifact, name: str) -> dict[str, Float64[Tensor, " features"]]:
    columns = {"sharedness": "sharedness", "sharedness_q": "q_value"}
    frame = pd.read_parquet(artifact.path / "scores.parquet", columns=["feature_set", "feature", *columns.values()])
    mine = frame[frame["feature_set"] == name].sort_values("feature")
    return {key: torch.from_numpy(mine[column].to_numpy(dtype=np.float64).copy()) for key, column in columns.items()}


def _embedders(results: dict[str, Artifact | None]) -> str | None:
    """Names of the embedders behind results, and which of them are not independent of the model; None without results."""
    names = {
        (str(result.recipe["embedder"]).rpartition("-")[0] or "clip")
        + ("" if result.recipe["independent"] else " (not independent)")
        for result in results.values()
        if result
    }
    return ", ".join(sorted(names)) or None
