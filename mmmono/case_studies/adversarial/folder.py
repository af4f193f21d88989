"""Pictures of one condition on disk, kept one by one, so that what was made is not made again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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


class PictureFolder:
    """Numbered pictures of one size, with their distances where they were moved, and a victim's answers to them.

    Args:
        path: the folder; made if it is not there.
        count: how many pictures it holds in the end.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._answers = path / "answers.jsonl"
        path.mkdir(parents=True, exist_ok=True)

    def _file(self, number: int, suffix: str) -> Path:
        return self.path / f"{number:05d}{suffix}"

    def keep(self, number: int, picture: Image.Image) -> None:
        """Write a picture that was not moved, unless it is there."""
        if not self._file(number, ".png").exists():
            _write(self._file(number, ".png"), lambda path: picture.save(path, format="PNG"))

    def keep_moved(self, numbers: Sequence[int], moved: Aligned) -> None:
        """Write moved pictures; their distances come last and say that all of it is there."""
        levels = moved.pixels.mul(255).round().to(torch.uint8).cpu()
        for number, pixels, distances in zip(numbers, levels, moved.distances.cpu().numpy(), strict=True):
            _write(self._file(number, ".png"), _saver(pixels))
            _write(self._file(number, ".npy"), lambda path, d=distances: np.save(path, d))  # type: ignore[misc]

    def unmoved(self) -> list[int]:
        """Numbers of the pictures that are still to be moved."""
        return [number for number in range(self.count) if not self._file(number, ".npy").exists()]

    def picture(self, number: int) -> Image.Image:
        """One picture."""
        with Image.open(self._file(number, ".png")) as file:
            return file.convert("RGB")

    def pixels(self, numbers: Sequence[int]) -> Float[Tensor, "pictures 3 height width"]:
        """Some pictures, between 0 and 1."""
        arrays = np.stack([np.asarray(self.picture(number)) for number in numbers])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255

    def distances(self) -> Float[np.ndarray[Any, Any], "pictures steps"] | None:
        """Distance of every picture before each step and after the last one; None where pictures were not moved."""
        if self.unmoved():
            return None
        return np.stack([np.load(self._file(number, ".npy")) for number in range(self.count)])

    def answers(self) -> dict[int, list[str]]:
        """The victim's answers to the pictures that it was shown."""
        return {line["picture"]: line["answers"] for line in read_lines(self._answers)}

    def keep_answers(self, number: int, answers: Sequence[str]) -> None:
        """Write the answers to one picture."""
        append_lines(self._answers, [{"picture": number, "answers": list(answers)}])


def _saver(pixels: Tensor) -> Callable[[Path], None]:
    return lambda path: to_pil_image(pixels).save(path, format="PNG")


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """A file that is whole when it is there; the temporary name keeps the suffix, which numpy would else append."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
