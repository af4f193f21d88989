"""Material Design Icons with their names: black signs of 24 × 24 units from a Python package.

Icons: Material Design Icons (pictogrammers.com), Apache-2.0, from `material-design-icons-pack`, rendered with `resvg-py`.
Captions: words of their names. Categories: Unicode's, where an emoji has the same name.

A name is a thing followed by what is done to it: `account-arrow-down-outline`. Icons of one thing are nearly the same
drawing, and they are one group (`IconPairs.group`), found without looking at pixels:

1. Words that modify are taken from the end of the name: style (`outline`), frame (`box`), a sign in a corner (`plus`),
   direction (`left`) and level (`2`).
2. If a beginning of what is left is the name of an icon, the shortest such is the family: `account-tie` is of `account`.
3. Families that share a drawing, as `heart` and `cards-heart` do, are one.
4. An icon or a family whose caption is an emoji's name is in the emoji's group, so that no caption is divided either.

Icons that share a frame around another thing, as `information-box` and `alert-box` do, are nearly the same in two groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from mmmono.core.errors import DataError
from mmmono.core.extras import need
from mmmono.data.captions import image_key
from mmmono.data.openmoji import OpenMojiPairs
from mmmono.data.vector_drawings import VectorDrawings

PACKAGE = "material-design-icons-pack"
STYLES = frozenset({"outline", "variant"})  # words about how a thing is drawn; captions go without them
# What may follow a thing in a name, by kind: style and frame, a sign in a corner or a stroke through all, direction, level.
MODIFIERS = STYLES.union(
    ("bold", "thick", "thin", "filled", "rounded"),
    ("box", "circle", "square", "rectangle", "hexagon", "octagon", "rhombus", "decagram", "octagram"),
    ("alert", "auto", "check", "minus", "multiple", "off", "on", "plus", "remove"),
    ("left", "right", "up", "down", "top", "bottom", "start", "center", "end", "side", "front", "back", "in", "out"),
    ("inside", "outside", "forward", "backward", "horizontal", "vertical", "clockwise", "counterclockwise"),
    ("ascending", "descending", "low", "medium", "high", "empty", "quarter", "half", "full"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)


class IconPairs(VectorDrawings):
    """All Material Design Icons but those that their makers gave up, which are brands' logos; black on white.

    Args:
        size, part_size, limit, seed: see `VectorDrawings`.
        captions: the thing and what is done to it, without style (`first`); this or the whole name (`random`); or one pair
            for each (`all`).

    Raises:
        DataError: the packages of the `demo` extra are not installed.
    """

    name = "icons"
    attribution = "Material Design Icons by Pictogrammers (pictogrammers.com), Apache-2.0"
    grouping = 1
    example = "names such as horse or chess-pawn"

    def packages(self) -> list[Any]:
        """Version of the package, and what identifies the emoji that groups and labels are from."""
        need("dataset=icons", "material_design_icons_pack", "resvg_py", error=DataError)
        return [version(PACKAGE), self._emoji.fingerprint()]

    @cached_property
    def _emoji(self) -> OpenMojiPairs:
        return OpenMojiPairs()

    @cached_property
    def _drawings(self) -> dict[str, str]:
        """Name → SVG, in alphabetical order."""
        import material_design_icons_pack as pack

        found = [icon for icon in vars(pack).values() if type(icon) is type(pack.ABACUS)]
        return {icon.slug: icon.svg for icon in sorted(found, key=lambda icon: icon.slug) if not icon.deprecated}

    @cached_property
    def keys(self) -> list[str]:
        """Names of all icons, in order."""
        return list(self._drawings)

    @cached_property
    def _families(self) -> dict[str, str]:
        """Name → family."""
        return families(self._drawings)

    def __contains__(self, key: str) -> bool:
        """Whether a pair has this key."""
        return image_key(key) in self._drawings

    def captions_of(self, key: str) -> list[str]:
        """Captions of an icon; none if there is no such icon."""
        return captions_of(key) if key in self._drawings else []

    def labels(self, key: str) -> dict[str, str]:
        """Unicode's category of the emoji of that name, and the style if an icon differs in that alone; empty if unknown."""
        code = self._emoji_of(key)
        labels = {"category": self._emoji.labels(code)["category"]} if code and self._emoji.labels(code) else {}
        plain = key.removesuffix("-outline")
        if plain in self._drawings and f"{plain}-outline" in self._drawings:
            labels["style"] = "filled" if key == plain else "outline"
        return labels

    def svg(self, key: str) -> str:
        """An icon as SVG."""
        return self._drawings[key]

    def group(self, key: str) -> str:
        """Group of the emoji of the same name, else the icon's family."""
        name = image_key(key)
        code = self._emoji_of(name)
        return self._emoji.group(code) if code else self._families.get(name, name)

    def _emoji_of(self, name: str) -> str | None:
        """Hexcode of the emoji that is called like an icon or like its family; None if there is none."""
        for called in (name, self._families.get(name, name)):
            if (code := self._emoji_names.get(captions_of(called)[0])) is not None:
                return code
        return None

    @cached_property
    def _emoji_names(self) -> dict[str, str]:
        return self._emoji.names()


def captions_of(name: str) -> list[str]:
    """Captions of an icon: its name without words of style, and the whole name if that is another one."""
    words = name.split("-")
    if len(words) > 1 and words[0] in ("alpha", "numeric"):
        words[0] = {"alpha": "letter", "numeric": "number"}[words[0]]
    plain = [word for word in words if word not in STYLES] or words
    return list(dict.fromkeys((" ".join(plain), " ".join(words))))


def families(drawings: dict[str, str]) -> dict[str, str]:
    """Return the family of each icon; see the module.

    Args:
        drawings: name → SVG.
    """
    by_name = {name: _shortest(_unmodified(name), drawings) for name in drawings}
    first: dict[str, str] = {}  # path → family
    joined: dict[str, str] = {}  # family → an earlier one with a drawing of it

    def root(family: str) -> str:
        while family in joined:
            family = joined[family]
        return family

    for name, svg in drawings.items():
        family = root(by_name[name])
        other = root(first.setdefault(re.sub(r' id="[^"]*"', "", svg), family))
        if family != other:
            joined[family] = other
    return {name: root(family) for name, family in by_name.items()}


def _unmodified(name: str) -> list[str]:
    words = name.split("-")
    while len(words) > 1 and (words[-1] in MODIFIERS or words[-1].isdigit()):
        words.pop()
    return words


def _shortest(words: Sequence[str], names: dict[str, str]) -> str:
    beginnings = ("-".join(words[:count]) for count in range(1, len(words)))
    return next((name for name in beginnings if name in names), "-".join(words))
