"""`experiments/explorer.py`: an interactive page of score distributions, features and their top samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch

from mmmono.commands.explorer.likeness import MapMethod, Samples
from mmmono.commands.explorer.page import ExploredFeatures, ExplorerWriter
from mmmono.commands.explorer.results import USED, Found, embedders, newest
from mmmono.core.artifacts import Artifact
from mmmono.core.errors import DataError
from mmmono.core.modality_names import IMAGE_AND_TEXT
from mmmono.features import MODALITIES, Modality
from mmmono.features.folding import OfBlocks, Together, images, pairs, texts
from mmmono.interpretability import HistogramStream
from mmmono.interpretability.top_sample_search import Side
from mmmono.modality import sign_flip_p_values
from mmmono.modality.random_sets import ActivityStream
from mmmono.pipeline.images import SplitImages, print_missing
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.top_samples import check_m, check_side, deepened, search_of
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.missing import missing_image
from mmmono.reporting.tables import console


@dataclass(frozen=True)
class ExplorerSettings:
    """Settings of the section `explorer`.

    Attributes:
        images, texts: number of top images and of top texts on a feature's card.
        deduplicate: show one sample of those with equal captions, and one of each group.
        side: which side of a signed feature's activations is shown, `dominant` or `positive`.
        thumbnails: whether images are shown, or captions alone.
        bins: of the histograms of activations, a multiple of 4.
        neighbors: number of similar features on a card, and of those that are active together.
        correlation_pairs: number of pairs over which features are compared by their activations.
        map: how the map of features is made, `tsne` or `pca`; `none` for no map.
    """

    images: int
    texts: int
    deduplicate: bool
    side: Side
    thumbnails: bool
    bins: int
    neighbors: int
    correlation_pairs: int
    map: MapMethod

    def __post_init__(self) -> None:
        for name in ("neighbors", "correlation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_side(self.side)
        if self.map not in get_args(MapMethod):
            raise ValueError(f"map={self.map} is none of {', '.join(get_args(MapMethod))}")
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
    shown = _images(workspace) if settings.thumbnails else None
    there = ResultsOnDisk(workspace)
    results = newest(there, workspace.recipes)
    recipe = {
        "features": features.recipe,
        **workspace.partitions_recipe(),
        "explorer": asdict(settings),
        "shows": {of: {name: r.digest if r else None for name, r in by.items()} for of, by in results.items()},
        "seed": workspace.seed,
        **({} if workspace.modalities == IMAGE_AND_TEXT else {"called": workspace.modalities.fields}),
    }

    def make(directory: Path) -> None:
        writer = ExplorerWriter(directory, metadata["caption"].tolist(), shown is not None, workspace.modalities)
        samples = Samples(workspace, settings.correlation_pairs)
        for name in workspace.recipes:
            found = Found(name, workspace.feature_set(name).num_features, {of: by[name] for of, by in results.items()})
            explored = _explored(workspace, settings, found, samples)
            writer.add(explored)
            if shown is not None and (rows := writer.rows(explored)):
                for row, pair in shown.pairs(rows, title=f"{name}: thumbnails"):
                    writer.write_thumbnail(row, pair.image if pair else missing_image())
        made = {
            "pairs": len(features.view),
            "seed": workspace.seed,
            **{of: embedders(results[of].values()) for of in ("mono", "named")},
            "attribution": shown.attribution if shown is not None else "",
        }
        writer.finish(workspace.title, made)
        if shown is not None:
            shown.report(directory)

    artifact = workspace.results("explorer", recipe, make)
    print_missing(artifact.path)
    _tell_what_is_missing(there, results)
    console.print(f"open in a browser: {artifact.path}/index.html")
    if address := escaped_address(artifact.path / "index.html"):
        console.print(f"its address: {address}")


def _tell_what_is_missing(there: ResultsOnDisk, results: Mapping[str, Mapping[str, Artifact | None]]) -> None:
    """Say which results of other analyses the page could show too."""
    if not all(results["mono"].values()):
        console.print("without monosemanticity scores: make section-3, then this again, to have them", style="dim")
        for settings_of_others in there.other_settings(USED["mono"]):
            console.print(f"there, under other settings: {settings_of_others}")
    if not all(results["sharedness"].values()):
        console.print("without sharedness: make section-2.1, then this again, to have it", style="dim")


def escaped_address(page: Path) -> str | None:
    """Address of a page whose path a browser would misread if it is typed, such as one with a #; else None."""
    address = page.absolute().as_uri()
    return None if address == f"file://{page.absolute()}" else address


def _images(workspace: Workspace) -> SplitImages:
    """Images of the split. Raises DataError if the first one cannot be loaded, before anything is computed."""
    try:
        images = SplitImages(workspace, workspace.dataset.split)
        list(images.pairs([0]))
    except DataError as error:
        raise DataError(f"{error}; explorer.thumbnails=false makes the page without") from error
    return images


def _explored(workspace: Workspace, settings: ExplorerSettings, found: Found, samples: Samples) -> ExploredFeatures:
    """Everything that the page shows of a feature set."""
    feature_set = workspace.feature_set(found.name)
    search = search_of(workspace, max(settings.images, settings.texts), settings.deduplicate, settings.side)
    histograms = HistogramStream(settings.bins)
    activity = [ActivityStream() for _ in MODALITIES]
    measured = (OfBlocks(stream, of) for stream, of in zip(activity, (images, texts), strict=True))
    workspace.folded(feature_set, Together(search, OfBlocks(histograms, pairs), *measured))
    scored = workspace.dominance(found.name)
    p_value, q_value = sign_flip_p_values(scored.scores, workspace.live(scored.scores))
    top = deepened(workspace, feature_set, search)
    shown: dict[Modality, int] = {"image": settings.images, "text": settings.texts}
    both = activity[0].result() + activity[1].result()
    return ExploredFeatures(
        dominance=scored,
        min_pairs=workspace.settings.mds.min_pairs,
        p_value=p_value,
        q_value=q_value,
        energy=torch.from_numpy(both.energy),
        top={modality: top[modality].first(shown[modality]) for modality in MODALITIES},
        histograms=histograms.result(),
        likeness=samples.likeness(found.name, settings.neighbors, settings.map),
        mono=found.mono,
        consensus=found.consensus,
        sharedness=found.sharedness,
        named=found.named,
        probability=found.probability,
    )
