"""Images of one condition on disk, written one by one, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from mmmono.case_studies.adversarial.alignment import Aligned
from mmmono.core.lines import append_lines, read_lines

IMAGES = "images"  # folder of a result that holds one folder for each condition


def image_file(folder: Path, number: int) -> Path:
    """Return the file of an image by its number."""
    return folder / f"{number:05d}.png"


class ConditionFolder:
    """Numbered images of one size, with the distances of optimized ("moved") images and the victim's answers.

    Args:
        path: the folder; created if missing.
        count: number of images in the complete folder.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._answers = path / "answers.jsonl"
        path.mkdir(parents=True, exist_ok=True)

    def _file(self, number: int) -> Path:
        return image_file(self.path, number)

    def _distances(self, number: int) -> Path:
        return self._file(number).with_suffix(".npy")

    def keep(self, number: int, image: Image.Image) -> None:
        """Write an image that was not optimized, unless it exists."""
        if not self._file(number).exists():
            _write(self._file(number), lambda path: image.save(path, format="PNG"))

    def keep_moved(self, numbers: Sequence[int], moved: Aligned) -> None:
        """Write optimized images; the distances, written last, mark an image as complete."""
        levels = moved.pixels.mul(255).round().to(torch.uint8).cpu()
        for number, pixels, distances in zip(numbers, levels, moved.distances.cpu().numpy(), strict=True):
            _write(self._file(number), _saver(pixels))
            _write(self._distances(number), partial(np.save, arr=distances))

    def unmoved(self) -> list[int]:
        """Numbers of the images that have not been optimized yet."""
        return [number for number in range(self.count) if not self._distances(number).exists()]

    def image(self, number: int) -> Image.Image:
        """Read an image as RGB."""
        with Image.open(self._file(number)) as file:
            return file.convert("RGB")

    def pixels(self, numbers: Sequence[int]) -> Float[Tensor, "images 3 height width"]:
        """Read images as a tensor with values in [0, 1]."""
        arrays = np.stack([np.asarray(self.image(number)) for number in numbers])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255

    def distances(self) -> Float[np.ndarray[Any, Any], "images steps"] | None:
        """Distance of each image before each step and after the last one; None unless all images were optimized."""
        if self.unmoved():
            return None
        return np.stack([np.load(self._distances(number)) for number in range(self.count)])

    def answers(self) -> dict[int, list[str]]:
        """The victim's answers so far, by number of the image."""
        return {line["image"]: line["answers"] for line in read_lines(self._answers)}

    def keep_answers(self, number: int, answers: Sequence[str]) -> None:
        """Append the victim's answers to one image."""
        append_lines(self._answers, [{"image": number, "answers": list(answers)}])


def _saver(pixels: Tensor) -> Callable[[Path], None]:
    return lambda path: to_pil_image(pixels).save(path, format="PNG")


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file atomically; the temporary name keeps the suffix, because numpy would append a missing one."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
