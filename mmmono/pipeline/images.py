"""Images of a split's pairs, read in bulk for the analyses that show or embed them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image
from PIL.Image import open as open_image

from mmmono.core.artifacts import FinishedArtifacts, write_text_atomically
from mmmono.core.errors import ConfigError, DataError, MissingArtifactError
from mmmono.core.progress import progress_bar
from mmmono.core.saved import read_json_object
from mmmono.data import ImageTextPair, PairSource, SkippedPair
from mmmono.data.image_cache import ImageCache
from mmmono.features import Features
from mmmono.features.selection import Split
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.missing import missing_image
from mmmono.reporting.tables import console

FOLDER = "images"
REPORT = "missing_images.json"
T = TypeVar("T")
Item = ImageTextPair | SkippedPair
GIVE_UP = 64  # stop with an error after this many failures if no image was read before


def image_source(workspace: Workspace, split: Split) -> PairSource:
    """Return a split's source; a remote source gets an image cache under the artifacts root.

    Raises:
        ConfigError: images.cache is not a finite number, or negative.
    """
    gigabytes = workspace.settings.images.cache
    source = workspace.dataset.source(split)
    if not source.remote or not gigabytes:
        return source
    return ImageCache(source, workspace.artifacts.root / FOLDER, int(gigabytes * 1e9))


def finished_features(workspace: Workspace, split: Split) -> Features | None:
    """Return a split's features if they exist, else None; nothing is extracted."""
    root = FinishedArtifacts(workspace.artifacts.root)
    try:
        return Workspace(workspace.cfg, makes="", artifacts=root).features(split)
    except MissingArtifactError:
        return None


def known_locators(workspace: Workspace, split: Split) -> dict[str, str]:
    """Locators of the split's pairs in their source, by key; empty if its features do not exist."""
    features = finished_features(workspace, split)
    metadata = features.view.metadata() if features else None
    if metadata is None or not {"key", "locator"} <= set(metadata):
        return {}
    return dict(zip(metadata["key"], metadata["locator"], strict=True))


class SplitImages:
    """Images of a split by row.

    Unreadable images do not end an analysis: they are left out or shown as missing, and they are counted and reported.

    Args:
        workspace: provides the pairs.
        split: the split; its features are extracted first if they do not exist.

    Raises:
        ConfigError, DataError: the pairs have no images, or no keys to read them by.
    """

    def __init__(self, workspace: Workspace, split: Split) -> None:
        workspace.dataset.check_images(split)
        self._source = image_source(workspace, split)
        metadata = workspace.features(split).view.metadata()
        if "key" not in metadata:
            raise DataError(f"{workspace.features(split).store.path} has no keys: its images cannot be found again")
        self._keys = metadata["key"].tolist()
        self._locators = metadata["locator"].tolist() if "locator" in metadata else [""] * len(metadata)
        self._had: set[int] = set()
        self.missing: dict[int, str] = {}  # reason by row

    @property
    def attribution(self) -> str:
        """Who made the images; see `PairSource`."""
        return self._source.attribution

    def check(self) -> None:
        """Raise DataError if none of the first images can be read, as where a dataset does not say where they lie.

        They may lie on another machine: more than one is only asked for if that one cannot be read.
        """
        rows = range(min(GIVE_UP, len(self._keys)))
        first = self._source.fetch_many([(self._keys[row], self._locators[row]) for row in rows[:1]])
        if any(isinstance(item, SkippedPair) for item in first):
            for _, pair in self.pairs(rows):
                if pair is not None:
                    return

    def pairs(self, rows: Iterable[int], title: str | None = None) -> Iterator[tuple[int, ImageTextPair | None]]:
        """Yield each distinct row with its pair, in ascending order (that of the source); None if it is unreadable.

        Args:
            rows: rows of the split; −1 is ignored.
            title: title of a progress bar; None for no bar.

        Raises:
            DataError: none of the images requested so far could be read.
        """
        needed = sorted({int(row) for row in rows} - {-1})
        found = self._source.fetch_many([(self._keys[row], self._locators[row]) for row in needed])
        for row, item in zip(needed, _watched(self._counted(found, needed), title, len(needed)), strict=True):
            if isinstance(item, SkippedPair):
                self.missing[row] = item.reason
                if not self._had and len(self.missing) >= min(GIVE_UP, len(needed)):
                    raise DataError(f"not one of {len(self.missing)} images could be read: {item.reason}")
                yield row, None
            else:
                self.missing.pop(row, None)
                self._had.add(row)
                yield row, item

    def _counted(self, found: Iterator[Item], rows: list[int]) -> Iterator[Item]:
        """Yield the items; if the source fails after some images were read, yield the others as skipped."""
        given = 0
        try:
            for item in found:
                yield item
                given += 1
        except DataError as error:
            if not self._had:
                raise
            yield from (SkippedPair(self._keys[row], str(error)) for row in rows[given:])

    def shown(self, rows: Iterable[int], pixels: int = 224, title: str | None = None) -> dict[int, Image]:
        """Central squares of the rows' images, resized to `pixels`; a blank image for each one that cannot be read."""
        return {
            row: square(pair.image, pixels) if pair else missing_image(pixels) for row, pair in self.pairs(rows, title)
        }

    def report(self, directory: Path) -> None:
        """Record the missing images, if any, in the folder of a result."""
        if self.missing:
            reasons = Counter(self.missing.values())
            content = {
                "missing": len(self.missing),
                "asked": len(self.missing) + len(self._had),
                "reasons": dict(reasons.most_common(10)),
                "keys": [self._keys[row] for row in sorted(self.missing)[:100]],
            }
            write_text_atomically(directory / REPORT, json.dumps(content, indent=2) + "\n")


@contextmanager
def or_without(remedy: str) -> Iterator[None]:
    """Let the error that images are missing end with the setting that does without them, as `gender.shown=0 …`."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{error}; {remedy}") from error


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` consecutive items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _watched(items: Iterator[Item], title: str | None, total: int) -> Iterator[Item]:
    """Yield the items, with a progress bar if there is a title for it."""
    if title is None:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=title)


def print_missing(directory: Path) -> None:
    """Print the number of a result's missing images and the most frequent reason, if any are missing."""
    file = directory / REPORT
    if not file.exists():
        return
    report = read_json_object(file)
    reason = next(iter(report["reasons"]))
    console.print(
        f"{report['missing']} of {report['asked']} images could not be read and are left out or shown as missing "
        f"(first: {reason}); +force=true asks for them again",
        style="yellow",
        markup=False,
    )


def read_image(file: Path) -> Image:
    """Read an image that `save_image` wrote, as RGB."""
    with open_image(file) as image:
        return image.convert("RGB")


def save_image(image: Image, file: Path) -> None:
    """Write an image as PNG; an interruption leaves no incomplete file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    image.save(temporary, format="PNG")
    temporary.replace(file)
