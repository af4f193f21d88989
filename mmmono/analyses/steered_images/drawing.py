"""Images that a generator draws from steered prompts, saved one by one, so that an interrupted run draws what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.case_studies.generators import Generator
from mmmono.core.progress import progress_bar
from mmmono.pipeline.images import save_image

GENERATED = "images"  # folder of the generated images
REAL = "real"  # folder of the real images on contact sheets

Moved = Callable[[Float[Tensor, "tokens dim"]], Float[Tensor, "tokens dim"]]


def at_own_length(moved: Moved) -> Moved:
    """Return what moves embeddings likewise, and then brings each back to the length that it had."""

    def rescaled(embeddings: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        before, after = embeddings, moved(embeddings)
        lengths = [torch.linalg.vector_norm(side, dim=-1, keepdim=True) for side in (before, after)]
        return after * (lengths[0] / lengths[1].clamp_min(torch.finfo(after.dtype).tiny))

    return rescaled


@dataclass(frozen=True)
class Prompts:
    """What is drawn.

    Attributes:
        texts: the prompts.
        embeddings: of each, as the generator takes it; see `Generator.encode`.
        seeds: number of images of each.
    """

    texts: Sequence[str]
    embeddings: Sequence[Float[Tensor, "tokens dim"]]
    seeds: int

    @classmethod
    def encoded(cls, generator: Generator, texts: Sequence[str], seeds: int, reference: Image.Image) -> Prompts:
        """Embed the prompts; some generators take the length of a real image's embedding for theirs."""
        return cls(texts, [generator.encode(text, reference)[0] for text in texts], seeds)


class DrawnImages:
    """Files of generated images: prompt by prompt, and seed by seed.

    Args:
        folder: folder of the result.
        prompts: what is drawn.
    """

    def __init__(self, folder: Path, prompts: Prompts) -> None:
        self.folder, self.prompts = folder, prompts

    def plain(self) -> list[Path]:
        """Files of what is drawn from the prompts as they are."""
        return self._files(self.folder / GENERATED / "plain")

    def of(self, feature_set: str, feature: int, strength: float) -> list[Path]:
        """Files of what is drawn with a steered feature."""
        return self._files(self.folder / GENERATED / feature_set / f"{feature}-{float(strength)!r}")

    def draw(self, generator: Generator, planned: Sequence[tuple[list[Path], Moved | None]], title: str) -> None:
        """Generate the missing images; equal seeds start from equal noise.

        Args:
            generator: the generator.
            planned: files, each with what steers the embedding of a prompt; None: nothing does.
            title: of the progress bar.

        Raises:
            ConfigError: the GPU runs out of memory.
        """
        seeds = self.prompts.seeds
        with progress_bar() as bar:
            task = bar.add_task(title, total=sum(len(files) for files, _ in planned))
            for files, moved in planned:
                for place, (text, embedding) in enumerate(
                    zip(self.prompts.texts, self.prompts.embeddings, strict=True)
                ):
                    own = files[place * seeds : (place + 1) * seeds]
                    if not all(file.exists() for file in own):
                        steered = embedding if moved is None else moved(embedding)
                        images = generator.generate(text, steered.expand(seeds, *steered.shape), range(seeds))
                        for file, image in zip(own, images, strict=True):
                            save_image(image, file)
                    bar.advance(task, seeds)

    def relative(self, file: Path) -> str:
        """Path of a file below the folder of the result, for tables."""
        return file.relative_to(self.folder).as_posix()

    def _files(self, folder: Path) -> list[Path]:
        return [
            folder / f"{prompt}-{seed}.png"
            for prompt in range(len(self.prompts.texts))
            for seed in range(self.prompts.seeds)
        ]
