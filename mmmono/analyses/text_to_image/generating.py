"""Generated images on disk, saved one by one, so that an interrupted run draws only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from mmmono.analyses.text_to_image.intervening import Encoded, GridCell
from mmmono.case_studies.generators import Generator
from mmmono.case_studies.references import Reference
from mmmono.core.progress import progress_bar
from mmmono.pipeline.images import save_image

GENERATED = "images"  # folder of the generated images
REFERENCES = "references"  # folder of the reference images


class GeneratedImages:
    """Images of all cells, and those of plain generation, which are shared by all cells without an intervention.

    Args:
        folder: folder of the result.
        seeds: number of seeds.
    """

    def __init__(self, folder: Path, seeds: int) -> None:
        self.folder = folder
        self.seeds = range(seeds)

    def plain(self, reference: Reference) -> list[Path]:
        """Files of the images generated from the prompt alone, one for each seed."""
        return self._files(self.folder / GENERATED / "plain", reference.name)

    def of(self, cell: GridCell) -> list[Path]:
        """Files of a cell's images, one for each seed; if the reference has no weight, those of plain generation."""
        if not cell.strength.weight:
            return self.plain(cell.reference)
        folder = self.folder / GENERATED / cell.feature_set / cell.reference.name
        return self._files(folder, f"{cell.members}-{float(cell.strength.shown)!r}")

    def _files(self, folder: Path, name: str) -> list[Path]:
        return [folder / f"{name}-{seed}.png" for seed in self.seeds]

    def relative(self, file: Path) -> str:
        """Path of a file below the folder of the result, for tables."""
        return file.relative_to(self.folder).as_posix()

    def generate(
        self, generator: Generator, prompt: str, encoded: Sequence[Encoded], cells: Sequence[GridCell]
    ) -> None:
        """Generate the missing images, all seeds of a cell together; plain ones once for each reference.

        Args:
            generator: the generator.
            prompt: prompt that T encodes.
            encoded: embeddings of the prompt beside each reference.
            cells: all cells.

        Raises:
            ConfigError: the GPU runs out of memory.
        """
        planned = [(self.plain(e.reference), e.text.expand(len(self.seeds), *e.text.shape)) for e in encoded]
        planned += [(self.of(cell), cell.embeddings) for cell in cells if cell.strength.weight]
        with progress_bar() as bar:
            task = bar.add_task("generate images", total=len(planned) * len(self.seeds))
            for files, embeddings in planned:
                if not all(file.exists() for file in files):
                    self._generate(generator, prompt, files, embeddings)
                bar.advance(task, len(self.seeds))

    def _generate(
        self, generator: Generator, prompt: str, files: list[Path], embeddings: Float[Tensor, "seeds tokens dim"]
    ) -> None:
        for file, image in zip(files, generator.generate(prompt, embeddings, self.seeds), strict=True):
            save_image(image, file)

    def save_reference(self, reference: Reference) -> str:
        """Save a reference image; return its path below the folder of the result."""
        file = self.folder / REFERENCES / f"{reference.name}.png"
        save_image(reference.image, file)
        return self.relative(file)
