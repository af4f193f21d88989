"""Measures of all generated images: likeness of content, colors and edges to the reference, and to the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.analyses.text_to_image.generating import GeneratedImages
from mmmono.analyses.text_to_image.intervening import GridCell
from mmmono.analyses.text_to_image.real_images import NearestPair
from mmmono.case_studies.control_effects import Cell
from mmmono.case_studies.image_measures import color_distance, edge_distance, mean_cosine
from mmmono.case_studies.references import Reference
from mmmono.core.progress import progress_bar
from mmmono.interpretability.embedders import Embedder

Values = dict[str, float]  # of each measure, by its name


class Judge:
    """Measure images with an embedder that is independent of the intervention.

    Args:
        embedder: embeds images as unit vectors.
        references: all references.
        of_prompt: embeddings of real images of what the prompt names.
    """

    def __init__(
        self, embedder: Embedder, references: Sequence[Reference], of_prompt: Float[Tensor, "images dim"]
    ) -> None:
        self._embedder = embedder
        self._references = {r.name: embedder.embed_images([r.image]) for r in references}
        self._of_prompt = of_prompt

    def measure(self, files: Sequence[Path], reference: Reference) -> list[Values]:
        """Measure images against a reference and the prompt; see `mmmono.case_studies.image_measures`."""
        images = [_read(file) for file in files]
        embeddings = self._embedder.embed_images(images)
        to_reference = mean_cosine(embeddings, self._references[reference.name]).tolist()
        to_prompt = mean_cosine(embeddings, self._of_prompt).tolist()
        return [
            {
                "similarity_reference": to_reference[place], "similarity_prompt": to_prompt[place],
                "color_distance": color_distance(image, reference.image),
                "edge_distance": edge_distance(image, reference.image),
            }
            for place, image in enumerate(images)
        ]  # fmt: skip


def measure(
    images: GeneratedImages,
    judge: Judge,
    cells: Sequence[GridCell],
    references: Sequence[Reference],
    nearest: Sequence[NearestPair] | None,
) -> tuple[list[Cell], pd.DataFrame]:
    """Measure all images.

    Args:
        images: the generated images.
        judge: measures them.
        cells: all cells.
        references: all references.
        nearest: the real pair nearest to each cell's embedding of the first seed; None if it is not in the joint space.

    Returns:
        One entry for each cell and seed, and the measures of plain generation with columns `reference` and `seed`.
    """
    with progress_bar() as bar:
        task = bar.add_task("measure images", total=len(references) + len(cells))
        plain: dict[str, list[Values]] = {}
        for reference in references:
            plain[reference.name] = judge.measure(images.plain(reference), reference)
            bar.advance(task)
        measured: list[Cell] = []
        for place, cell in enumerate(cells):
            values = plain[cell.reference.name]
            if cell.strength.weight:
                values = judge.measure(images.of(cell), cell.reference)
            measured += _rows(images, cell, values, nearest[place] if nearest else None)
            bar.advance(task)
    base = [
        {"reference": name, "seed": seed, **value}
        for name, values in plain.items()
        for seed, value in zip(images.seeds, values, strict=True)
    ]
    return measured, pd.DataFrame(base)


def _rows(images: GeneratedImages, cell: GridCell, values: Sequence[Values], nearest: NearestPair | None) -> list[Cell]:
    rows = []
    for seed, file, value in zip(images.seeds, images.of(cell), values, strict=True):
        near = nearest if seed == 0 else None
        rows.append(
            Cell(
                cell.feature_set, cell.reference.name, cell.members, cell.features, cell.energy,
                cell.mismatch, cell.strength.shown, cell.strength.weight, seed, **value, image=images.relative(file),
                nearest=near.caption if near else "", nearest_image=images.relative(near.file) if near else "",
            )
        )  # fmt: skip
    return rows


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")
