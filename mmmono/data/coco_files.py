"""COCO's folders, and readers of annotation files in its format, as COCO publishes them or other tools export them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmmono.core.errors import DataError
from mmmono.core.files import user_path
from mmmono.core.text import message_of


@dataclass(frozen=True)
class CocoSplit:
    """Where the files of one split lie in a copy of COCO.

    Attributes:
        root: folder with `annotations/captions_<name><year>.json`, `<name><year>/*.jpg` and, for labels,
            `annotations/instances_<name><year>.json`.
        name: `train` or `val`.
        year: of the release.

    Raises:
        DataError: the folder lacks the split's images or captions.
    """

    root: str | Path
    name: str = "val"
    year: int = 2017

    def __post_init__(self) -> None:
        for needed in (self.annotations("captions"), self.images):
            if not needed.exists():
                raise DataError(
                    f"{needed} is not there: dataset.root must be COCO's folder, with annotations/captions_{self.folder}"
                    f".json and {self.folder}/*.jpg in it"
                )

    @property
    def folder(self) -> str:
        """Name of the folder of the images, such as `val2017`."""
        return f"{self.name}{self.year}"

    @property
    def images(self) -> Path:
        """Folder of the images."""
        return user_path(self.root) / self.folder

    def image(self, file: str) -> Path:
        """Return the path of an image; some tools repeat the split's folder in file names."""
        return self.images / file.removeprefix(f"{self.folder}/")

    def annotations(self, kind: str) -> Path:
        """Return the file of the `captions` or `instances`."""
        return user_path(self.root) / "annotations" / f"{kind}_{self.folder}.json"


@dataclass
class Captions:
    """Captions by image.

    Attributes:
        by_file: file name → captions, in the file's order.
        unlisted: image ids that have captions but are not in the list of images → number of captions.
    """

    by_file: dict[str, list[str]]
    unlisted: Counter[str] = field(default_factory=Counter)


def read_captions(path: Path) -> Captions:
    """Read the captions of the images that a file lists; captions that are not text are ignored.

    Raises:
        DataError: names the file and the field that is missing or has the wrong type.
    """
    content = _load(path)
    names = _file_names(content, path)
    captions = Captions({name: [] for name in names.values()})
    with_text = False
    for number, annotation in _items(content, "annotations", path):
        image = _id(annotation, "image_id", "annotations", number, path)
        with_text = with_text or "caption" in annotation
        if image not in names:
            captions.unlisted[image] += 1
        elif isinstance(caption := annotation.get("caption"), str):
            captions.by_file[names[image]].append(caption)
    if content["annotations"] and not with_text:
        raise DataError(f"{path}: no entry of annotations has a caption: is it a file of captions?")
    return captions


def read_labels(path: Path, captions: Path) -> dict[str, dict[str, str]]:
    """Return file name → category, and supercategory if known, of the image's largest instance that is not a crowd.

    Instances of unlisted images or categories are ignored; an instance without area has the area of its box.

    Args:
        path: a file of instances.
        captions: the file of captions; its list of images is used if `path` has none.

    Raises:
        DataError: names the file and the field that is missing or has the wrong type.
    """
    content = _load(path)
    names = _file_names(content, path) if "images" in content else _file_names(_load(captions), captions)
    categories: dict[str, dict[str, str]] = {}
    for number, category in _items(content, "categories", path):
        known = {"category": category.get("name"), "supercategory": category.get("supercategory")}
        if known["category"] is None:
            raise DataError(f"{path}: categories[{number}] has no name: export the annotations again")
        categories[_id(category, "id", "categories", number, path)] = {
            kind: str(name) for kind, name in known.items() if name is not None
        }
    largest: dict[str, tuple[float, str]] = {}
    for number, annotation in _items(content, "annotations", path):
        name = names.get(_id(annotation, "image_id", "annotations", number, path))
        category_id = _id(annotation, "category_id", "annotations", number, path)
        if name is None or category_id not in categories or annotation.get("iscrowd") in (1, "1"):
            continue
        area = _area(annotation)
        if name not in largest or area > largest[name][0]:
            largest[name] = (area, category_id)
    return {name: categories[category_id] for name, (_, category_id) in largest.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({message_of(error)}): download or export the annotations again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__} at its top, where COCO's format has an object with images and "
            "annotations: export it in that format"
        )
    return content


def _items(content: Mapping[str, Any], name: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the (index, entry) pairs of a required list."""
    entries = content.get(name)
    if not isinstance(entries, list):
        there = f"a {type(entries).__name__}" if name in content else "not there"
        raise DataError(f"{path}: the list {name} is {there}; it has {', '.join(map(str, content)) or 'nothing'}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {name}[{number}] is a {type(entry).__name__}, not an object")
        yield number, entry


def _file_names(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    names = {}
    for number, image in _items(content, "images", path):
        name = image.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise DataError(f"{path}: images[{number}] has no file_name that is text, but {str(name)[:40]!r}")
        names[_id(image, "id", "images", number, path)] = name
    return names


def _id(entry: Mapping[str, Any], field_name: str, name: str, number: int, path: Path) -> str:
    """Return an id as text: 7, 7.0, "7" and "0007" are the same id, since tools write all of these."""
    value = entry.get(field_name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = value.lstrip("0") or "0"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(
            f"{path}: {name}[{number}] has no {field_name} that is a number or text, but {str(value)[:40]!r}"
        )
    return str(value)


def _area(annotation: Mapping[str, Any]) -> float:
    """Return the annotation's area, else its box's width times height, else 0."""
    box = annotation.get("bbox")
    sides = box[2:4] if isinstance(box, list) and len(box) == 4 else [None]
    for numbers in ([annotation.get("area")], sides):
        if all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
            return float(math.prod(numbers))
    return 0.0
