"""Make the images: benign and contrast ones, attacked ones, and defended ones.

Each image is saved as soon as it is made, and none is made twice, so that an interrupted study goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from mmmono.analyses.adversarial.cases import Case, Defense
from mmmono.case_studies.adversarial.alignment import Alignment, Features, align
from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.case_studies.adversarial.outcomes import ATTACKED, BENIGN, CONTRAST, Condition
from mmmono.case_studies.adversarial.typography import typographic_image, with_text
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.core.progress import progress_bar
from mmmono.vlm import Encoder

Pixels = Callable[[Sequence[int]], Tensor]
Folders = Mapping[Condition, ConditionFolder]


@dataclass(frozen=True)
class Move:
    """An optimization of the images of all cases towards the features of other images.

    Attributes:
        folder: where the images are saved.
        start: returns the pixels of the images to start from, by the numbers of their cases.
        target: returns the pixels of the images to align to.
        features: computes features from pixels; differentiable.
        plan: number and size of the steps.
        chosen: indices of the features to align, one tensor per run; None for all features.
    """

    folder: ConditionFolder
    start: Pixels
    target: Pixels
    features: Features
    plan: Alignment
    chosen: Sequence[Tensor] | None = None


def save_given(cases: Sequence[Case], folders: Folders, encoder: Encoder) -> None:
    """Save benign and contrast images as the encoder sees them, unless they exist."""
    for number, case in enumerate(cases):
        folders[Condition(BENIGN)].keep(number, _seen(encoder, case.benign.image))
        contrast = case.contrast
        if contrast is None:
            contrast = typographic_image(case.request.text, encoder.preprocess(case.benign.image).shape[-1])
        folders[Condition(CONTRAST)].keep(number, _seen(encoder, contrast))


def attack(folders: Folders, embed: Features, plan: Alignment) -> Move:
    """Move benign images towards the contrast images, on all dimensions of the embedding."""
    benign, contrast = folders[Condition(BENIGN)], folders[Condition(CONTRAST)]
    return Move(folders[Condition(ATTACKED)], benign.pixels, contrast.pixels, embed, plan)


def defend(defense: Defense, folders: Folders, friendly: Pixels, embed: Features, plan: Alignment) -> Move:
    """Move attacked images towards friendly ones, on the defense's features."""

    def features(pixels: Tensor) -> Tensor:
        return defense.feature_set.encode(embed(pixels), "image")

    attacked = folders[Condition(ATTACKED)]
    return Move(folders[defense.condition], attacked.pixels, friendly, features, plan, defense.chosen)


def friendly_pixels(cases: Sequence[Case], encoder: Encoder, text: str) -> Pixels:
    """Return a function that gives the pixels of the benign images with a friendly text on them, between 0 and 1."""
    images = [with_text(_seen(encoder, case.benign.image), text) for case in cases]
    return lambda numbers: torch.stack([encoder.preprocess(images[number]) for number in numbers]).float() / 255


def carry_out(moves: Sequence[Move], cases: Sequence[Case], batch_size: int, device: str) -> None:
    """Align the images that are not on disk yet, batch by batch, and save them.

    Raises:
        ConfigError: the GPU runs out of memory.
        ModelError: the encoder passes no finite gradient to the pixels.
    """
    with progress_bar() as bar:
        task = bar.add_task("attack and defend", total=len(cases) * sum(move.plan.steps for move in moves))
        for move in moves:
            todo = move.folder.unmoved()
            bar.advance(task, (len(cases) - len(todo)) * move.plan.steps)
            for run, batch in _batches(cases, todo, batch_size):
                with enough_gpu_memory(f"lower adversarial.batch_size={batch_size}, and run the same again to go on"):
                    _carry_out(move, run, batch, device)
                bar.advance(task, len(batch) * move.plan.steps)


def _batches(cases: Sequence[Case], numbers: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the numbers in batches of one run each, with that run."""
    for run in sorted({case.run for case in cases}):
        own = [number for number in numbers if cases[number].run == run]
        for start in range(0, len(own), size):
            yield run, own[start : start + size]


def _carry_out(move: Move, run: int, batch: Sequence[int], device: str) -> None:
    """Align the images of a batch, and save them."""
    with torch.no_grad():
        target = move.features(move.target(batch).to(device))
    chosen = None if move.chosen is None else move.chosen[run].to(device)
    move.folder.keep_moved(batch, align(move.start(batch).to(device), target, move.features, move.plan, chosen))


def _seen(encoder: Encoder, image: Image) -> Image:
    """The image after the encoder's resizing and center crop."""
    return to_pil_image(encoder.preprocess(image))
