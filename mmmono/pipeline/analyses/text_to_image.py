"""`experiments/text_to_image.py`: control text-to-image generation by classes of features (Section 4.3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from mmmono.case_studies.control_effects import Cell, Effect, effects
from mmmono.case_studies.generators import Generator
from mmmono.case_studies.picture_measures import color_distance, edge_distance, mean_cosine
from mmmono.case_studies.references import Reference, read_reference
from mmmono.case_studies.text_to_image import ROWS, class_sizes, draw_members, intervene_on_features
from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.features import FeatureSet
from mmmono.interpretability.embedders import Embedder, TimmSentenceEmbedder
from mmmono.modality import Partition
from mmmono.pipeline.analyses.dominance import dominance
from mmmono.pipeline.analyses.real_pictures import NearestPair, nearest_pairs, prompt_pictures
from mmmono.pipeline.feature_sets import NCL
from mmmono.pipeline.generators import GeneratorOption
from mmmono.pipeline.pictures import SplitPictures, known_locators, picture_source, tell_missing
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.generation_figures import GridRow, control_curves, control_grid
from mmmono.reporting.rows import control_rows, strongest_reference
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

PICTURES = "pictures"  # folder of the generated images
Nearest = dict[tuple[int, int], NearestPair]  # key: `id` of the row, index of the strength


@dataclass(frozen=True)
class Strength:
    """A column of the figure: the swept strength, and the reference's weight that follows from it."""

    shown: float
    weight: float


@dataclass(frozen=True)
class Row:
    """Intervened embeddings of one feature set, reference and class.

    Attributes:
        feature_set: name of the feature set.
        reference: the reference.
        members: the class, `Random` or `All`.
        features: number of features moved.
        embeddings: T′ by strength and seed, of shape `[strengths, seeds, tokens, dim]`.
    """

    feature_set: str
    reference: Reference
    members: str
    features: int
    embeddings: Tensor


def control_generation(workspace: Workspace) -> None:
    """Make Figures 10 and 14, and curves of their measures, for all selected feature sets and references."""
    cfg = workspace.cfg
    strengths = _strengths(cfg.intervention)
    option: GeneratorOption = instantiate(cfg.generator)
    option.check(workspace)
    for name, kind in workspace.recipes.items():
        if isinstance(kind, NCL):
            raise ConfigError(f"features={name} has no way back to embeddings: use features=raw or features=sae")
    references = _references(workspace)
    embedder = _embedder(workspace)
    features = workspace.features(workspace.dataset.split)
    recipe = {
        "features": features.recipe,
        **option.training_recipe(workspace),
        **workspace.partitions_recipe(),
        "model": workspace.model.recipe(),
        "generator": option.recipe(),
        "prompt": cfg.prompt,
        "references": [
            {"name": r.name, "picture": hashlib.sha256(r.picture.tobytes()).hexdigest()} for r in references
        ],
        "intervention": OmegaConf.to_container(cfg.intervention),
        "measures": OmegaConf.to_container(cfg.measures),
        "embedder": embedder.fingerprint,
        "seed": workspace.seed,
    }

    def make(directory: Path) -> None:
        sets = {name: workspace.feature_set(name) for name in workspace.recipes}
        partitions = {name: _partition(workspace, name, feature_set) for name, feature_set in sets.items()}
        encoder = workspace.model.load(workspace.artifacts, workspace.device)
        generator = option.load(workspace, encoder)
        seeds = list(range(cfg.intervention.seeds))
        rows: list[Row] = []
        plain: dict[str, Tensor] = {}
        for reference in references:
            text, image = generator.encode(cfg.prompt, reference.picture)
            plain[reference.name] = text.expand(1, len(seeds), *text.shape)
            for name, feature_set in sets.items():
                rows += _intervened(workspace, name, feature_set, partitions[name], reference, text, image, strengths)
        _draw(directory / PICTURES, generator, cfg.prompt, rows, plain, strengths, seeds)
        real = SplitPictures(workspace, workspace.whole_split("auto"))
        of_prompt = prompt_pictures(workspace, embedder, real, {r.key for r in references})
        near: Nearest = {}
        if generator.joint:  # nearest real images are found for the first seed only
            pairs = nearest_pairs(workspace, torch.cat([row.embeddings[:, 0, 0] for row in rows]), real)
            near = dict(zip(product(map(id, rows), range(len(strengths))), pairs, strict=True))
        captions = {cell: pair.caption for cell, pair in near.items()}
        cells, base = _measure(directory / PICTURES, embedder, rows, references, strengths, seeds, of_prompt, captions)
        save_table([asdict(cell) for cell in cells], directory / "cells")
        frame = pd.DataFrame([asdict(cell) for cell in cells])
        found: list[Effect] = []
        axis = f"strength: weight of the {cfg.intervention.weight_on}"
        for name in sets:
            own = effects(frame[frame.feature_set == name], base, cfg.measures.n_bootstrap, workspace.seed)
            found += own
            pooled = [effect for effect in own if effect.reference == "all"]
            save_figure(control_curves(pooled, axis), directory / f"{name}-curves")
            for reference in references:
                alone = [effect for effect in own if effect.reference == reference.name]
                save_figure(control_curves(alone, axis), directory / f"{name}-curves-{reference.name}")
                of_grid = [r for r in rows if r.feature_set == name and r.reference is reference]
                grid = [_grid_row(directory / PICTURES, row, strengths, near) for row in of_grid]
                head = (
                    f"prompt “{cfg.prompt}”, reference {reference.name}\n{name} features of {workspace.model.name}, "
                    f"drawn by {generator.name}\n{axis}; all from the same noise"
                )
                figure = control_grid(grid, [s.shown for s in strengths], reference.picture, head)
                save_figure(figure, directory / f"{name}-figure10-{reference.name}")
        save_table([asdict(effect) for effect in found], directory / "effects")
        real.report(directory)

    artifact = workspace.results("text_to_image", recipe, make, resumable=True)
    tell_missing(artifact.path)
    _show(workspace, artifact.path)


def _strengths(settings: Any) -> list[Strength]:
    if settings.weight_on not in ("reference", "text"):
        raise ConfigError(f"intervention.weight_on={settings.weight_on} is none of reference, text")
    if settings.sizes not in ("equal", "whole"):
        raise ConfigError(f"intervention.sizes={settings.sizes} is none of equal, whole")
    if settings.seeds < 1:
        raise ConfigError(f"intervention.seeds={settings.seeds} must be at least 1")
    swept = [float(strength) for strength in settings.strengths]
    if not swept:
        raise ConfigError("intervention.strengths is empty: give some, such as [0,0.3,0.6]")
    for strength in swept:
        if not 0 <= strength <= 1:
            raise ConfigError(f"intervention.strengths has {strength:g}, which lies outside [0, 1]")
    if len(set(swept)) < len(swept):
        raise ConfigError(f"intervention.strengths={swept} names one twice")
    return [Strength(s, s if settings.weight_on == "reference" else 1 - s) for s in swept]


def _references(workspace: Workspace) -> list[Reference]:
    entries = [str(entry) for entry in workspace.cfg.references]
    if not entries:
        raise ConfigError("references is empty: name a pair's key or a picture's path")
    split = workspace.whole_split("auto")
    source, locators = picture_source(workspace, split), known_locators(workspace, split)
    references = [read_reference(entry, source, locators) for entry in entries]
    names = [reference.name for reference in references]
    if len(set(names)) < len(names):
        raise ConfigError(f"references: {', '.join(names)}: two of them have one name")
    return references


def _embedder(workspace: Workspace) -> TimmSentenceEmbedder:
    chosen = workspace.cfg.embedder
    if chosen is None or "_target_" not in chosen:
        raise ConfigError(
            "embedder=clip is what is intervened on, so it cannot judge: use embedder=offline or embedder=paper"
        )
    embedder: TimmSentenceEmbedder = instantiate(chosen, device=workspace.device)
    if workspace.artifacts.builds:
        embedder.load()
    return embedder


def _partition(workspace: Workspace, name: str, feature_set: FeatureSet) -> Partition:
    partition = dominance(workspace, name, feature_set).partition
    try:
        class_sizes(partition, workspace.cfg.intervention.sizes)
    except ValueError as error:
        raise ConfigError(f"feature set {name!r}: {error}; lower partition.n_sigma or mds.min_pairs") from error
    return partition


def _intervened(
    workspace: Workspace,
    name: str,
    feature_set: FeatureSet,
    partition: Partition,
    reference: Reference,
    text: Tensor,
    image: Tensor,
    strengths: Sequence[Strength],
) -> Iterator[Row]:
    settings, device = workspace.cfg.intervention, workspace.device
    drawn = [draw_members(partition, settings.sizes, workspace.seed + seed) for seed in range(settings.seeds)]
    for members in ROWS:
        embeddings = [
            intervene_on_features(
                feature_set, text.to(device), image.to(device), own[members].to(device), strength.weight,
                workspace.cfg.features.normalize,
            ).cpu()
            for strength in strengths
            for own in drawn
        ]  # fmt: skip
        shaped = torch.stack(embeddings).view(len(strengths), len(drawn), *text.shape)
        yield Row(name, reference, members, len(drawn[0][members]), shaped)


def _draw(
    folder: Path,
    generator: Generator,
    prompt: str,
    rows: Sequence[Row],
    plain: dict[str, Tensor],
    strengths: Sequence[Strength],
    seeds: Sequence[int],
) -> None:
    """Generate the missing images, all seeds of a cell together; plain generation once per reference."""
    wanted = [(_plain(folder, name), embeddings[0]) for name, embeddings in plain.items()]
    wanted += [
        (_cell(folder, row, strength), row.embeddings[place])
        for row in rows
        for place, strength in enumerate(strengths)
        if strength.weight
    ]
    with progress_bar() as bar:
        task = bar.add_task("draw pictures", total=len(wanted) * len(seeds))
        for cell, embeddings in wanted:
            files = [cell.with_name(f"{cell.name}-{seed}.png") for seed in seeds]
            if not all(file.exists() for file in files):
                cell.parent.mkdir(parents=True, exist_ok=True)
                for file, picture in zip(files, generator.generate(prompt, embeddings, seeds), strict=True):
                    temporary = file.with_suffix(".tmp")
                    picture.save(temporary, format="PNG")
                    temporary.replace(file)
            bar.advance(task, len(seeds))


def _plain(folder: Path, reference: str) -> Path:
    return folder / "plain" / reference


def _cell(folder: Path, row: Row, strength: Strength) -> Path:
    """Path of a cell's images without `-<seed>.png`; if the reference has no weight, that of plain generation."""
    if not strength.weight:
        return _plain(folder, row.reference.name)
    return folder / row.feature_set / row.reference.name / f"{row.members}-{strength.shown:g}"


def _read(cell: Path, seeds: Sequence[int]) -> list[Image.Image]:
    return [Image.open(cell.with_name(f"{cell.name}-{seed}.png")).convert("RGB") for seed in seeds]


def _measure(
    folder: Path,
    embedder: Embedder,
    rows: Sequence[Row],
    references: Sequence[Reference],
    strengths: Sequence[Strength],
    seeds: Sequence[int],
    of_prompt: Tensor,
    nearest: dict[tuple[int, int], str],
) -> tuple[list[Cell], pd.DataFrame]:
    """Measure the images; return all cells, and the measures of plain generation by reference and seed."""
    with progress_bar() as bar:
        task = bar.add_task("measure pictures", total=(len(rows) * len(strengths) + len(references)) * len(seeds))
        embedded = {r.name: embedder.embed_images([r.picture]) for r in references}

        def measured(cell: Path, reference: Reference) -> list[dict[str, float]]:
            pictures = _read(cell, seeds)
            embeddings = embedder.embed_images(pictures)
            bar.advance(task, len(seeds))
            return [
                {
                    "similarity_reference": float(to_reference), "similarity_prompt": float(to_prompt),
                    "color_distance": color_distance(picture, reference.picture),
                    "edge_distance": edge_distance(picture, reference.picture),
                }
                for picture, to_reference, to_prompt in zip(
                    pictures, mean_cosine(embeddings, embedded[reference.name]), mean_cosine(embeddings, of_prompt),
                    strict=True,
                )
            ]  # fmt: skip

        plain = {r.name: measured(_plain(folder, r.name), r) for r in references}
        cells = []
        for row in rows:
            for place, strength in enumerate(strengths):
                values = (
                    measured(_cell(folder, row, strength), row.reference)
                    if strength.weight
                    else plain[row.reference.name]
                )
                near = nearest.get((id(row), place), "")
                cells += [
                    Cell(
                        row.feature_set, row.reference.name, row.members, row.features, strength.shown, strength.weight,
                        seed, **value, nearest=near if seed == seeds[0] else "",
                    )
                    for seed, value in zip(seeds, values, strict=True)
                ]  # fmt: skip
    base = [
        {"reference": name, "seed": s, **v}
        for name, values in plain.items()
        for s, v in zip(seeds, values, strict=True)
    ]
    return cells, pd.DataFrame(base)


def _grid_row(
    folder: Path,
    row: Row,
    strengths: Sequence[Strength],
    nearest: Nearest,
) -> GridRow:
    pictures = [_read(_cell(folder, row, strength), [0])[0] for strength in strengths]
    near = [nearest[id(row), place].picture for place in range(len(strengths))] if nearest else []
    return GridRow(row.members, row.features, pictures, near)


def _show(workspace: Workspace, path: Path) -> None:
    found, cells = (json.loads((path / f"{name}.json").read_text()) for name in ("effects", "cells"))
    strongest = strongest_reference(found, workspace.cfg.intervention.weight_on)
    for name in workspace.recipes:
        show_table(
            control_rows(found, cells, name, strongest),
            f"Change at strength {strongest:g} [95 %], {name}: “{workspace.cfg.prompt}”, {workspace.title}",
        )
    console.print(f"Figures 10 and 14, curves, cells, effects by reference: {path}/*.png, *.parquet")
