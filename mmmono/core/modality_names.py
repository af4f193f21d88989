"""What the two sides of a pair are called wherever a user reads of them: image and text, unless the dataset says otherwise.

Inside the code, in files and in names of columns, the sides are always `image` and `text`, and the classes of features ImgD,
TextD and CrossD. What shows them to a user asks here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmmono.core.errors import ConfigError

SETTING = "dataset.modalities"
LONGEST = 16  # characters of a name, for which figures and tables have room
_PLURALS = {"image": "images", "text": "texts"}
_DOMINANT = {"image": "ImgD"}  # the paper's abbreviation; other classes have the whole name


@dataclass(frozen=True)
class ModalityNames:
    """Names of the two modalities, and what follows from them.

    Attributes:
        first: of the side that is `image` in the code.
        second: of the side that is `text` in the code.

    Raises:
        ConfigError: a name is empty, too long or no text, or both names or the classes named after them are the same.
    """

    first: str = "image"
    second: str = "text"

    def __post_init__(self) -> None:
        for name in (self.first, self.second):
            if not isinstance(name, str) or not any(letter.isalnum() for letter in name):
                raise ConfigError(f"{SETTING} has the name {name!r}: give words, such as [audio,text]")
            if len(name) > LONGEST or not name.isprintable():
                raise ConfigError(f"{SETTING} has the name {name!r}: give at most {LONGEST} characters in one line")
        if self.first.casefold() == self.second.casefold():
            raise ConfigError(f"{SETTING}=[{self.first},{self.second}] are one name: give two, such as [audio,text]")
        labels = [_dominant(self.first), _dominant(self.second), "CrossD", "dead"]
        if len({label.casefold() for label in labels}) < len(labels):
            raise ConfigError(
                f"{SETTING}=[{self.first},{self.second}] would give two classes one name, of {', '.join(labels)}: choose "
                "other names"
            )

    @classmethod
    def of(cls, setting: object) -> ModalityNames:
        """Names from the setting `dataset.modalities`; None, or no such setting, is image and text.

        Raises:
            ConfigError: they are not two names.
        """
        if setting is None:
            return cls()
        if isinstance(setting, str) or not isinstance(setting, Sequence) or len(setting) != 2:
            raise ConfigError(f"{SETTING}={setting} are not two names: give one for each side, such as [audio,text]")
        first, second = (name.strip() if isinstance(name, str) else name for name in setting)
        return cls(first, second)

    @property
    def classes(self) -> dict[str, str]:
        """Classes of live features by what they are called, such as AudioD: ImgD."""
        return {_dominant(self.first): "ImgD", _dominant(self.second): "TextD", "CrossD": "CrossD"}

    @property
    def fields(self) -> dict[str, str]:
        """What the words of the code are called, such as image: audio, images: audio samples, ImgD: AudioD."""
        return {
            "image": self.first, "images": _plural(self.first), "text": self.second, "texts": _plural(self.second),
            **{of: label for label, of in self.classes.items()},
        }  # fmt: skip

    @property
    def pair(self) -> str:
        """What a pair is of, such as `audio-text`."""
        return f"{self.first}-{self.second}"

    def said(self, word: str) -> str:
        """What a modality, many samples of it, or a class is called; any other word is returned as it is."""
        return self.fields.get(word, word)

    def way(self, way: str) -> str:
        """Arrow from one side to the other, such as a→t; `way` is i2t or t2i."""
        ends = [self.first, self.second] if way == "i2t" else [self.second, self.first]
        if self.first[0].casefold() != self.second[0].casefold():
            ends = [name[0] for name in ends]
        return "→".join(ends)

    def column(self, name: str) -> str:
        """What a saved table's column is called, such as auroc_audio; its parts are parted by `_`, `/` and blanks."""
        return "".join(self._part(part) for part in re.split(r"([_/ ])", name))

    def _part(self, part: str) -> str:
        return self.way(part) if part in ("i2t", "t2i") else self.said(part)


def _plural(name: str) -> str:
    return _PLURALS.get(name, f"{name} samples")


def _dominant(name: str) -> str:
    """Class of the features that a modality dominates: its words as one, each with a capital, and D."""
    joined = "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", name))
    return _DOMINANT.get(name, f"{joined}D")


IMAGE_AND_TEXT = ModalityNames()
