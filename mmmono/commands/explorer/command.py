"""`experiments/explorer.py`: an interactive page of score distributions, features and their top samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mmmono.commands.explorer.page import ExploredFeatures, ExplorerWriter
from mmmono.commands.explorer.results import USED, embedders
from mmmono.commands.explorer.runs import Run, ShownSet, check_same_pairs, runs_of, shown_sets, title_of
from mmmono.commands.explorer.samples import MapMethod, Samples
from mmmono.commands.selection import Selection
from mmmono.core.errors import DataError
from mmmono.core.modality_names import IMAGE_AND_TEXT
from mmmono.features import MODALITIES, Modality
from mmmono.features.folding import OfBlocks, Together, images, pairs, texts
from mmmono.features.selection import CAPTION_WANTED
from mmmono.interpretability import ActivationHistograms, HistogramStream, TopSamples
from mmmono.interpretability.top_sample_search import Side
from mmmono.modality import sign_flip_p_values
from mmmono.modality.random_sets import ActivityStream
from mmmono.pipeline.images import SplitImages, or_without, print_missing
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
        compare: overrides that make a second run of this one, whose feature sets are shown too; empty for none.
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
    compare: Sequence[str]

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
        DataError: the pairs have no captions, their images cannot be read, or a compared run has other pairs.
    """
    settings = read_settings(workspace.cfg, "explorer", ExplorerSettings)
    runs = runs_of(workspace, settings.compare)
    features = workspace.features(workspace.dataset.split)
    for m in (settings.images, settings.texts):
        check_m(m, len(features.view))
    metadata = features.view.metadata()
    if "caption" not in metadata:
        raise DataError(f"{features.store.path} has no captions to show: {CAPTION_WANTED}")
    check_same_pairs(runs)
    thumbnails = None
    if settings.thumbnails:
        with or_without("explorer.thumbnails=false makes the page without"):
            thumbnails = SplitImages(workspace, workspace.dataset.split)
            thumbnails.check()
    own, *others = (run.recipe() for run in runs)
    recipe = {
        **own,
        "explorer": {name: value for name, value in asdict(settings).items() if name != "compare"},
        **({"compared": [{"called": runs[1].called, **other} for other in others]} if others else {}),
        **({} if workspace.modalities == IMAGE_AND_TEXT else {"called": workspace.modalities.fields}),
    }

    def make(directory: Path) -> None:
        writer = ExplorerWriter(directory, metadata["caption"].tolist(), thumbnails is not None, workspace.modalities)
        for explored in _explored(list(shown_sets(runs)), settings):
            writer.add(explored)
            if thumbnails is not None and (rows := writer.rows(explored)):
                for row, pair in thumbnails.pairs(rows, title=f"{explored.name}: thumbnails"):
                    writer.write_thumbnail(row, pair.image if pair else missing_image())
        made = {
            "pairs": len(features.view),
            "seed": workspace.seed,
            **{of: embedders(r for run in runs for r in run.results[of].values()) for of in ("mono", "named")},
            "attribution": thumbnails.attribution if thumbnails is not None else "",
        }
        writer.finish(title_of(runs), made)
        if thumbnails is not None:
            thumbnails.report(directory)

    artifact = workspace.results("explorer", recipe, make)
    print_missing(artifact.path)
    for run in runs:
        _tell_what_is_missing(run)
    console.print(f"open in a browser: {artifact.path}/index.html")
    if address := escaped_address(artifact.path / "index.html"):
        console.print(f"its address: {address}")


def _tell_what_is_missing(run: Run) -> None:
    """Say which results of other analyses the page could show too."""

    def command(of: str) -> str:
        if run.called:
            return f"{USED[of].command} with its settings"
        selection = Selection.given(list(run.workspace.specs), "explorer")
        return f"{USED[of].command}{selection.arguments(USED[of].name, selection.features)}"

    if not all(run.results["mono"].values()):
        console.print(
            f"without monosemanticity scores{run.called}: {command('mono')}, then this again, to have them", style="dim"
        )
        for settings_of_others in run.there.other_settings(USED["mono"]):
            console.print(f"there, under other settings: {settings_of_others}")
    if not all(run.results["sharedness"].values()):
        console.print(
            f"without sharedness{run.called}: {command('sharedness')}, then this again, to have it", style="dim"
        )


def escaped_address(page: Path) -> str | None:
    """Address of a page whose path a browser would misread if it is typed, such as one with a #; else None."""
    address = page.absolute().as_uri()
    return None if address == f"file://{page.absolute()}" else address


@dataclass(frozen=True)
class Walked:
    """What one pass over the activations of a feature set tells.

    Attributes:
        top: the most activating samples by modality.
        negative: features whose top samples are those of the negative side of 0.
        histograms: histograms of the activations.
        energy: share of each feature in the energy Σ z² of all, mean over both modalities.
        active: share of images, and of texts, with an activation on the side of 0 that the top samples are of.
    """

    top: dict[Modality, TopSamples]
    negative: Bool[Tensor, " features"]
    histograms: ActivationHistograms
    energy: Float64[Tensor, " features"]
    active: Float64[Tensor, "modalities features"]


def _walked(shown: ShownSet, settings: ExplorerSettings) -> Walked:
    workspace, feature_set = shown.run.workspace, shown.feature_set
    search = search_of(workspace, max(settings.images, settings.texts), settings.deduplicate, settings.side)
    histograms = HistogramStream(settings.bins)
    activity = [ActivityStream() for _ in MODALITIES]
    measured = (OfBlocks(stream, of) for stream, of in zip(activity, (images, texts), strict=True))
    workspace.folded(feature_set, Together(search, OfBlocks(histograms, pairs), *measured))
    top = deepened(workspace, feature_set, search)
    counts: dict[Modality, int] = {"image": settings.images, "text": settings.texts}
    sides = [stream.result() for stream in activity]
    negative, found = search.negative().cpu(), histograms.result()
    positive = found.positive.cpu() / found.samples
    active = torch.from_numpy(np.stack([side.frequency for side in sides]))
    return Walked(
        top={modality: top[modality].first(counts[modality]) for modality in MODALITIES},
        negative=negative,
        histograms=found,
        energy=torch.from_numpy((sides[0] + sides[1]).energy),
        active=torch.where(negative, active - positive, positive),
    )


def _explored(sets: Sequence[ShownSet], settings: ExplorerSettings) -> Iterator[ExploredFeatures]:
    """Everything that the page shows of each feature set."""
    walked = {shown.name: _walked(shown, settings) for shown in sets}
    samples = Samples(sets, {name: walk.negative for name, walk in walked.items()}, settings.correlation_pairs)
    for shown in sets:
        workspace, found, walk = shown.run.workspace, shown.found, walked.pop(shown.name)
        scored = workspace.dominance(shown.own)
        p_value, q_value = sign_flip_p_values(scored.scores, workspace.live(scored.scores))
        yield ExploredFeatures(
            dominance=replace(scored, name=shown.name),
            min_pairs=workspace.settings.mds.min_pairs,
            p_value=p_value,
            q_value=q_value,
            energy=walk.energy,
            top=walk.top,
            histograms=walk.histograms,
            active=walk.active,
            likeness=samples.likeness(shown.name, settings.neighbors, settings.map),
            mono=found.mono,
            consensus=found.consensus,
            sharedness=found.sharedness,
            named=found.named,
            probability=found.probability,
            run=shown.number,
        )
