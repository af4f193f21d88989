"""Vocabulary, directions, choice and detection of names, against scikit-learn, scipy and known answers."""

from __future__ import annotations

import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import roc_auc_score

from mmmono.core.errors import ConfigError
from mmmono.interpretability.activity import ActivityRule
from mmmono.interpretability.detection import detection
from mmmono.interpretability.naming import distinct_words, mean_directions, nearest_words, without_gap, word_cosines
from mmmono.interpretability.shared_words import shared_words
from mmmono.interpretability.text_likeness import likeness
from mmmono.interpretability.vocabulary import caption_vocabulary, mentions, phrases_of, read_vocabulary, words_of

CAPTIONS = ["A black cat on a mat", "black cats: two", "the black cat, asleep", "a dog – no cat", "Ein großer Hund"]


def test_phrases_stand_in_the_caption_as_they_are_and_cross_no_punctuation() -> None:
    assert list(phrases_of("hand: dark-skinned man's hat", 2)) == [
        "hand", "dark-skinned", "dark-skinned man's", "man's", "man's hat", "hat",
    ]  # fmt: skip
    assert "dog no" not in list(phrases_of(CAPTIONS[3], 2))


def test_a_vocabulary_counts_groups_and_leaves_out_what_is_rare_common_or_a_stop_word() -> None:
    groups = np.array([0, 0, 1, 2, 3])
    found = caption_vocabulary(CAPTIONS, groups, longest=2, min_groups=2, max_share=0.8)
    assert found == ["cat", "black", "black cat"]  # 3 groups; 2 groups each, in alphabetical order
    assert caption_vocabulary(CAPTIONS, groups, min_groups=2, max_share=0.6) == ["black", "black cat"]
    assert caption_vocabulary(CAPTIONS, groups, min_groups=2, max_share=0.8, size=1) == ["cat"]
    assert "großer hund" in caption_vocabulary(CAPTIONS, groups, min_groups=1, max_share=0.8)


def test_mentions_are_those_of_scikit_learn() -> None:
    vocabulary = ["black cat", "cat", "dog", "cats", "kitten"]
    theirs = CountVectorizer(vocabulary=vocabulary, ngram_range=(1, 2), binary=True).transform(CAPTIONS)
    assert (mentions(CAPTIONS, vocabulary).toarray() == theirs.toarray()).all()
    assert mentions(["a cat and a cat"], ["Cat"]).toarray().tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file"), (b"", "is empty"), (b"cat\n\n...\n", "line 3 ('...') is no word"), (b"x" * 101, "line 1"),
    ],
)  # fmt: skip
def test_a_bad_vocabulary_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_vocabulary(file)
    assert message in str(error.value)
    assert f"names.vocabulary={file}" in str(error.value)


def test_a_vocabulary_file_may_have_a_byte_order_mark_blank_lines_and_repetitions(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeffcat\r\n\nblack  cat\ncat\n猫\n", encoding="utf-8")
    assert read_vocabulary(file) == ["cat", "black cat", "猫"]


def test_mean_directions_are_differences_of_members_and_others() -> None:
    rng = np.random.default_rng(0)
    embeddings, members = torch.from_numpy(rng.normal(size=(50, 6))), torch.from_numpy(rng.random((50, 4)) < 0.3)
    members[:, 2], members[:, 3] = False, True
    members[:2, 2] = True
    found = mean_directions(members, embeddings, least=3)
    for column in range(2):
        mine = members[:, column]
        difference = embeddings[mine].mean(0) - embeddings[~mine].mean(0)
        torch.testing.assert_close(found[column], (difference / difference.norm()).float())
    assert not found[2:].any()  # too few members, and no others


def test_the_gap_is_taken_out_of_atoms() -> None:
    content, gap = torch.eye(4)[:2]
    lean = without_gap(torch.stack([content + 3 * gap, content - gap]), gap + torch.ones(4), torch.ones(4))
    torch.testing.assert_close(lean, content.expand(2, 4))


def test_words_without_a_direction_are_no_names_and_assigned_names_are_distinct() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 0.0]])
    words = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    cosines = word_cosines(features, words)
    assert nearest_words(cosines, 3).tolist() == [[1, 2, -1], [1, 2, -1], [-1, -1, -1]]
    assert distinct_words(cosines).tolist() == [1, 2, -1]  # 1 + 0.68 is more than 0.995 + 0.6
    assert distinct_words(cosines[:, :2]).tolist().count(1) == 1


def test_activity_is_of_the_strongest_share_on_the_side_with_more_energy() -> None:
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(rng.normal(size=(100, 1)))
    sparse = torch.zeros(100, 1)
    sparse[:3] = 1.0
    values = torch.cat([dense, sparse, -5 * dense.abs()], 1)
    rule = ActivityRule.of({"image": values, "text": values}, 0.1)
    assert rule.active(values, "image").sum(0).tolist() == [10, 3, 10]
    assert rule.sign.tolist()[1:] == [1.0, -1.0]
    assert rule.active(values, "text")[:, 2].equal(dense[:, 0].abs() >= dense[:, 0].abs().topk(10).values[-1])


def test_texts_are_alike_by_the_words_they_share() -> None:
    texts = ["A black CAT!", "dog 7", "…", "cat, cat & dog", "A black CAT!"]
    words, found, none = shared_words().comparable(["dog", "cat", "bird"], texts, [])
    expected = [[0, 2**-0.5, 0, 5**-0.5, 0], [3**-0.5, 0, 0, 2 * 5**-0.5, 3**-0.5]]
    np.testing.assert_allclose(likeness(words, torch.tensor([0, 1]), found), expected, atol=1e-6)
    assert not likeness(words, torch.tensor([2]), found).any()
    assert likeness(words, torch.tensor([1]), none).shape == (1, 0)


def test_no_two_words_count_as_the_same_however_many_there_are() -> None:
    """Hashed into some thousand dimensions, `elf` and `dark` would."""
    names = [f"word{i}" for i in range(1500)] + ["elf", "dark"]
    words, again = shared_words().comparable(names, names)
    assert (likeness(words, torch.arange(1502), again) == torch.eye(1502)).all()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("मेज़ पर लाल सेब", ["मेज़", "पर", "लाल", "सेब"]),
        ("மரத்தின் கீழ்", ["மரத்தின்", "கீழ்"]),
        ("می‌خواهم", ["می‌خواهم"]),
        (unicodedata.normalize("NFD", "Le bébé, l'été"), ["le", "bébé", "l'été"]),
        ("❤️ love 1️⃣ _re-do_", ["love", "1", "re-do"]),
    ],
)
def test_words_of_any_script_are_whole(caption: str, words: list[str]) -> None:
    assert words_of(caption) == [unicodedata.normalize("NFC", word) for word in words]
    assert set(phrases_of(caption, 1)) == set(words_of(caption))


def test_one_long_caption_makes_the_others_no_longer() -> None:
    captions = [f"cat {number}" for number in range(1000)] + ["cat " * 5000]
    tracemalloc.start()
    words, texts = shared_words().comparable(["cat"], captions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6, "every text took as much memory as the longest one"
    assert likeness(words, torch.tensor([0]), texts)[0, -1] == 1


def test_texts_without_any_word_are_alike_to_nothing() -> None:
    words, texts = shared_words().comparable(["…"], ["!", ""])
    assert likeness(words, torch.tensor([0]), texts).tolist() == [[0.0, 0.0]]


def test_auroc_and_chance_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    similarity = torch.from_numpy(rng.normal(size=(5, 120)).round(1))
    active = torch.from_numpy(rng.random((120, 3)) < 0.4)
    name_of, groups = torch.tensor([0, 3, -1]), np.arange(120) // 2
    found = detection(similarity, active, name_of, groups, [0, 1, 2, 4])
    table = np.array([[roc_auc_score(active[:, f], similarity[n]) for n in range(5)] for f in range(2)])
    assert found.auroc[:2].tolist() == pytest.approx([table[0, 0], table[1, 3]])
    assert found.chance[:2].tolist() == pytest.approx([table[0, [1, 2, 4]].mean(), table[1, [0, 1, 2, 4]].mean()])
    assert found.better[1] == (table[1, [0, 1, 2, 4]] >= table[1, 3]).mean()
    assert found.auroc[2].isnan()
    assert found.p_value[2].isnan()


def test_a_rare_feature_is_not_tested() -> None:
    active = torch.zeros(100, 2, dtype=torch.bool)
    active[:18, 0] = True  # nine groups
    active[:20, 1] = True
    found = detection(torch.rand(1, 100), active, torch.tensor([0, 0]), np.arange(100) // 2, [])
    assert found.auroc.isnan().tolist() == [True, False]


@pytest.mark.parametrize(("auroc", "size"), [(0.5, 1), (0.5, 4), (0.8, 1), (0.8, 4), (0.95, 1)])
def test_intervals_cover_and_tests_err_as_they_say(auroc: float, size: int) -> None:
    """Normal scores; in groups they correlate by 0.6, and are active together."""
    rng = np.random.default_rng(0)
    groups = np.arange(800) // size
    share = 0.6 if size > 1 else 0.0
    members = (rng.random((800 // size, 400)) < 0.1)[groups]
    noise = [rng.normal(size=(n, 400)) for n in (800 // size, 800)]
    scores = noise[0][groups] * share**0.5 + noise[1] * (1 - share) ** 0.5 + members * norm.ppf(auroc) * 2**0.5
    found = detection(torch.from_numpy(scores.T), torch.from_numpy(members), torch.arange(400), groups, [])
    low, high = found.interval()
    assert float(((low <= auroc) & (auroc <= high)).double().mean()) >= 0.93
    rejected = float((found.p_value <= 0.05).double().mean())
    assert rejected <= 0.08 if auroc == 0.5 else rejected > 0.9


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_names_at_chance_rarely_hold_where_groups_are_of_very_unequal_size(share: float) -> None:
    """Emoji in groups of those alike but for skin and gender. By the number of groups, it was .09 and .10."""
    rng = np.random.default_rng(2)
    sizes = np.array([1] * 317 + [6] * 14 + [18] * 15 + [78])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    members = (rng.random((len(sizes), 600)) < share)[groups] & (rng.random((len(groups), 600)) < 0.8)
    scores = 0.9 * rng.normal(size=(600, len(sizes)))[:, groups] + 0.4 * rng.normal(size=(600, len(groups)))
    found = detection(torch.from_numpy(scores), torch.from_numpy(members), torch.arange(600), groups, [])
    tested = found.p_value[~found.auroc.isnan()]
    assert float((tested <= 0.05).double().mean()) < 0.075
    assert float((tested <= 0.01).double().mean()) < 0.02


@pytest.mark.parametrize("size", [1, 4])
def test_names_that_are_no_better_than_related_ones_do_not_hold(size: int) -> None:
    """Forty other names and half of the features' own follow what all features have in common; the right ones more."""
    rng = np.random.default_rng(1)
    groups = np.arange(1600) // size
    common, own = (rng.normal(size=(1600 // size, n))[groups] for n in (1, 400))
    fires = common * 0.3**0.5 + own * 0.7**0.5
    members = fires > np.quantile(fires, 0.9, axis=0)
    told = np.where(np.arange(400) < 200, 0, own)
    names = np.concatenate([common + told, np.repeat(common, 40, 1)], 1) + rng.normal(size=(1600, 440))
    found = detection(torch.from_numpy(names.T), torch.from_numpy(members), torch.arange(400), groups, range(400, 440))
    assert float(found.chance.min()) > 0.55
    rejected = (found.p_value <= 0.05).double()
    assert float(rejected[:200].mean()) <= 0.08
    assert float(rejected[200:].mean()) > 0.9
    assert float(found.better[200:].max()) <= 0.05


def test_a_name_that_no_caption_has_is_not_certain_to_be_at_chance() -> None:
    """All similarities are equal: the AUROC is ½ without scatter, and still not known exactly."""
    active = torch.zeros(200, 1, dtype=torch.bool)
    active[:40] = True
    found = detection(torch.zeros(2, 200), active, torch.tensor([0]), np.arange(200), [1])
    low, high = found.interval()[:, 0].tolist()
    assert low < 0.49
    assert high > 0.51
    assert found.p_value[0] == pytest.approx(0.5)
