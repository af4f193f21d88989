"""Dataset options of drawings from Python packages: `dataset=openmoji`, `dataset=icons` and both, `dataset=drawings`."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.data import DrawingPairs, IconPairs, OpenMojiPairs, PairSource
from mmmono.data.captions import CaptionChoice
from mmmono.data.openmoji import Style, check_style
from mmmono.features.selection import Split
from mmmono.pipeline.datasets import Dataset


@dataclass(kw_only=True, frozen=True)
class _Drawn(Dataset):
    """Base class of options whose drawings are rendered from packages.

    Attributes:
        size: width and height of the rendered drawings, in pixels.
        captions: the first, one at random, or all of a drawing's captions.
    """

    size: int = 224
    captions: CaptionChoice = "first"

    @property
    def native_splits(self) -> bool:
        """False: split by a hash of the group, whose drawings differ in skin tone, gender, style or a sign alone."""
        return False


@dataclass(kw_only=True, frozen=True)
class OpenMoji(_Drawn):
    """`dataset=openmoji`: emoji drawings with captions.

    Attributes:
        style: drawings in color, their lines alone, or both; see `OpenMojiPairs`.
    """

    style: Style = "color"

    def __post_init__(self) -> None:
        check_style(self.style)
        super().__post_init__()

    def source(self, split: Split) -> PairSource:
        """Return the source of all drawings."""
        return OpenMojiPairs(size=self.size, captions=self.captions, limit=self.limit, style=self.style)


@dataclass(kw_only=True, frozen=True)
class Icons(_Drawn):
    """`dataset=icons`: Material Design Icons with their names."""

    def source(self, split: Split) -> PairSource:
        """Return the source of all icons."""
        return IconPairs(size=self.size, captions=self.captions, limit=self.limit)


@dataclass(kw_only=True, frozen=True)
class Drawings(_Drawn):
    """`dataset=drawings`: emoji drawings, then Material Design Icons."""

    def source(self, split: Split) -> PairSource:
        """Return the source of all drawings and icons."""
        return DrawingPairs(size=self.size, captions=self.captions, limit=self.limit)
