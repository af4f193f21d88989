"""Conversion of a sample's files to image-text pairs: finds its image, captions and labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmmono.core.errors import ConfigError, DataError
from mmmono.data.captions import CaptionChoice, check_reading, choose_captions, label_or_empty, lines_of, text_or_empty
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, SkippedPair
from mmmono.data.tar import KeyEnd, Sample

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
_LINKS = "tar stores files in place of links with --dereference --hard-dereference"


@dataclass(frozen=True)
class SampleReading:
    """How the files of a sample become pairs.

    Args:
        image_keys: extensions of image files, in order of preference.
        caption_key: extension of the text file, or field of the .json, with the caption or captions. By default the
            fields `captions` and `caption` of the .json are tried first, as only they can hold several, then the .txt.
        captions: use the `first`, a `random` (always the same one) or `all` of an image's captions.
        label_keys: fields of the .json that are class labels.
        seed: of the random choice of captions.
        key_end: which dot of a file's name ends the key.
        caption_lines: each line of a text file is a caption, as CLIP_benchmark has those of retrieval; else all of it is
            one, as open_clip and img2dataset have it.

    Raises:
        ConfigError: a label has the name of a reserved column, or another setting is invalid.
    """

    image_keys: Sequence[str] = IMAGE_KEYS
    caption_key: str | None = None
    captions: CaptionChoice = "first"
    label_keys: Sequence[str] = ()
    seed: int = 0
    key_end: KeyEnd = "first_dot"
    caption_lines: bool = False

    def __post_init__(self) -> None:
        check_reading(self.captions, self.label_keys)
        if not self.image_keys:
            raise ConfigError("dataset.image_keys is empty: name the extensions of images, such as [jpg,png]")
        if self.key_end not in ("first_dot", "last_dot"):
            raise ConfigError(f"dataset.key_end={self.key_end} is none of first_dot, last_dot")
        # Tuples, whatever sequences were given: the fingerprint of a source is made from them.
        object.__setattr__(self, "image_keys", tuple(key.lower().lstrip(".") for key in self.image_keys))
        object.__setattr__(self, "label_keys", tuple(self.label_keys))

    def reads(self, extension: str) -> bool:
        """Whether the contents of files with this extension are needed."""
        texts = ("json", "txt" if self.caption_key is None else self.caption_key.lower().lstrip("."))
        return extension in self.image_keys or extension in texts

    def image(self, sample: Sample) -> bytes | None:
        """Return the bytes of the sample's image file; None if it has none."""
        return next((sample.files[key] for key in self.image_keys if key in sample.files), None)

    def pairs(self, key: str, sample: Sample, locator: str) -> Iterator[ImageTextPair | SkippedPair]:
        """Yield the pairs of a sample; a `SkippedPair` with the reason if its files cannot be used.

        Raises:
            IncompleteError: the sample has no image file or no caption.
        """
        data = self.image(sample)
        swallowed = self._swallowed(sample, alone=data is None)
        if data is None and not swallowed:
            raise IncompleteError(self._no_image(sample))
        if data is not None:
            yield from self._read(key, sample, data, locator)
        for name in swallowed:
            yield SkippedPair(
                f"{key}.{name}",
                "names are cut at their first dot, so several images are one sample: set dataset.key_end=last_dot",
            )

    def _read(self, key: str, sample: Sample, data: bytes, locator: str) -> Iterator[ImageTextPair | SkippedPair]:
        fields, unreadable = _json_object(sample.files.get("json"))
        chosen = choose_captions(key, self._all_captions(sample, fields), self.captions, self.seed)
        if not chosen:
            if unreadable:
                yield SkippedPair(key, "unreadable .json")
                return
            raise IncompleteError(self._no_caption(sample))
        if unreadable and self.label_keys:
            yield SkippedPair(key, "unreadable .json")
            return
        try:
            image = decode_image(data)
        except DataError as error:
            yield SkippedPair(key, str(error) if data else "empty image file")
            return
        labels = {name: text for name in self.label_keys if (text := label_or_empty(fields.get(name)))}
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, locator, data)

    def _all_captions(self, sample: Sample, fields: dict[str, Any]) -> list[str]:
        """Return the sample's captions; by default the .txt is read only if the .json has none."""
        if self.caption_key is not None:
            file = sample.files.get(self.caption_key.lower().lstrip("."))
            if file is not None and self.caption_key.lower().lstrip(".") != "json":
                return self._of_file(file)
            return _texts(fields.get(self.caption_key))
        for value in (fields.get("captions"), fields.get("caption")):
            if captions := _texts(value):
                return captions
        return self._of_file(sample.files.get("txt"))

    def _of_file(self, file: bytes | None) -> list[str]:
        return _texts(lines_of(file) if self.caption_lines and file is not None else file)

    def _swallowed(self, sample: Sample, alone: bool) -> list[str]:
        """Return extensions of images that belong to other samples but share this key, cut at a wrong dot.

        An image such as `seg.png` beside the main image belongs to the sample. One whose name before the extension ends
        in a number, or that has a caption of its own, does not; nor does any if there is no main image.
        """
        found = []
        for extension in sample.names:
            stem, dot, last = extension.rpartition(".")
            if not dot or last not in self.image_keys or extension in self.image_keys:
                continue
            has_caption = any(name != extension and name.startswith(f"{stem}.") for name in sample.names)
            if alone or has_caption or stem.rpartition(".")[2].isdigit():
                found.append(extension)
        return found

    def _no_image(self, sample: Sample) -> str:
        special = next((sample.special[key] for key in self.image_keys if key in sample.special), None)
        if special is not None:
            return f"its image is {special}: {_LINKS}"
        return f"no image among {_listed(sample)} (dataset.image_keys names the extensions of images)"

    def _no_caption(self, sample: Sample) -> str:
        special = next((what for extension, what in sample.special.items() if self.reads(extension)), None)
        if special is not None:
            return f"its caption is {special}: {_LINKS}"
        return f"no caption in {_listed(sample)} (dataset.caption_key names the text file or the field of the .json)"


class IncompleteError(Exception):
    """A sample has no image file or no caption; the message says which."""


def _texts(value: object) -> list[str]:
    """Return the captions in a .json value (one caption or a list), without empty ones and non-text."""
    values: Sequence[object] = value if isinstance(value, list) else [value]
    return [text for one in values if (text := text_or_empty(one))]


def _listed(sample: Sample) -> str:
    names = sorted(f".{name}" for name in sample.names)
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _json_object(data: bytes | None) -> tuple[dict[str, Any], bool]:
    """Return the object in a .json file, and whether the file is broken."""
    if data is None:
        return {}, False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}, True
    return (value if isinstance(value, dict) else {}), False
