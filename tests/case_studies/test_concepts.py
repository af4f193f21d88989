"""Labels of concepts: by words, by a column, and by a small classifier of transformers' own class."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.case_studies.classifier import ImageClassifier
from mmmono.case_studies.concepts import CaptionWords, ConceptLabels, ConceptPair, LabelColumn, tokens
from mmmono.case_studies.words import distinctive_words
from mmmono.core.errors import ConfigError, ModelError

PAIR = ConceptPair("female", "male", ("woman", "female", "she"), ("man", "male", "he"))
COLORS = [(250, 10, 10), (10, 10, 250), (240, 20, 20), (20, 20, 240), (10, 250, 10)]


def images(rows: Sequence[int]) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), COLORS[row]) for row in rows]


def nobody(_: ImageClassifier) -> np.ndarray[Any, Any]:
    raise AssertionError("no classifier is asked")


def test_words_are_whole_words() -> None:
    captions = [
        "A woman runs",
        "man's hat",
        "A MAN sits",
        "the woman and the man",
        "he-man",
        "snowman in Germany",
        "She",
    ]
    labels = CaptionWords().label(PAIR, pd.DataFrame({"caption": captions}), nobody)
    assert labels.a.tolist() == [True, False, False, False, False, False, True]
    assert labels.b.tolist() == [False, False, True, False, True, False, False]
    assert labels.ambiguous == 1
    assert set(labels.confidence) == {1.0}
    assert tokens("AdultFemale adult_male") == ["adult", "female", "adult", "male"]


def test_words_of_other_languages_and_numbers_are_whole_words() -> None:
    assert tokens("Ein kleines MÄDCHEN, die Väter") == ["ein", "kleines", "mädchen", "die", "väter"]
    assert tokens("l'élève: garçon 3 Женщина") == ["l'élève", "garçon", "3", "женщина"]
    assert tokens("Ma\u0308dchen") == ["mädchen"]  # two code points, as some file systems and editors write it
    pair = ConceptPair("girl", "boy", ("mädchen",), ("junge",))
    labels = CaptionWords().label(pair, pd.DataFrame({"caption": ["Das Mädchen", "Jünger", "der Junge"]}), nobody)
    assert (labels.a.tolist(), labels.b.tolist()) == ([True, False, False], [False, False, True])


def test_vowel_signs_tell_words_apart() -> None:
    """In Devanagari, boy and girl differ in a sign that is no letter for Python."""
    pair = ConceptPair("girl", "boy", ("लड़की",), ("लड़का",))
    assert pair.matches("एक लड़की खेल रही है") == (True, False)
    assert pair.matches("एक लड़का खेल रहा है") == (False, True)


def test_a_column_of_numbers() -> None:
    pair = ConceptPair("old", "new", ("1",), ("0",))
    labels = LabelColumn("old").label(pair, pd.DataFrame({"caption": "x", "old": [0, 1, 10]}), nobody)
    assert (labels.a.tolist(), labels.b.tolist()) == ([False, True, False], [True, False, False])
    pair = ConceptPair("old", "new", ("1.0",), ("0.0",))
    labels = LabelColumn("old").label(pair, pd.DataFrame({"caption": "x", "old": [0.0, 1.0, np.nan]}), nobody)
    assert (labels.a.tolist(), labels.b.tolist()) == ([False, True, False], [True, False, False])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Woman", "'Woman', which no text has: give single words in lower case, here woman"),
        ("ice cream", "'ice cream', which no text has: .*, here ice, cream"),
        ("", "'', which no text has: give single words in lower case$"),
    ],
)
def test_words_that_are_none_are_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConceptPair("a", "b", ("girl", word), ("boy",))
    with pytest.raises(ConfigError, match=f"^words_b has {message}"):
        ConceptPair("a", "b", ("girl",), ("boy", word))


def test_a_column_of_labels() -> None:
    metadata = pd.DataFrame({"caption": "x", "sex": ["female", "male", None, "female and male"]})
    labels = LabelColumn("sex").label(PAIR, metadata, nobody)
    assert (labels.a.tolist(), labels.b.tolist()) == ([True, False, False, False], [False, True, False, False])
    with pytest.raises(ConfigError, match=r"labels.column=gender is no column.*'sex'"):
        LabelColumn("gender").label(PAIR, metadata, nobody)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT that was taught, in a second, that red is AdultFemale, blue AdultMale and green a dog."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    names = {0: "AdultFemale", 1: "AdultMale", 2: "Dog"}
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    pixels = processor(images(range(5)), return_tensors="pt").pixel_values
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(pixel_values=pixels, labels=torch.tensor([0, 1, 0, 1, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_classifier_of_transformers(classifier: Path) -> None:
    labeler = ImageClassifier(str(classifier), batch_size=2)
    labeler.check(PAIR)

    def classify(asked: ImageClassifier) -> np.ndarray[Any, Any]:
        asked.load("cpu")
        rows = np.concatenate([asked.probabilities(images([0, 1, 2])), asked.probabilities(images([3, 4]))])
        return np.concatenate([rows, np.full((1, 3), np.nan)])  # and one that is missing

    labels = labeler.label(PAIR, pd.DataFrame({"caption": [""] * 6}), classify)
    assert labels.a.tolist() == [True, False, True, False, False, False]
    assert labels.b.tolist() == [False, True, False, True, False, False]
    assert (labels.ambiguous, labels.missing) == (1, 1)
    model = ViTForImageClassification.from_pretrained(classifier)
    processor = ViTImageProcessor.from_pretrained(classifier)
    with torch.inference_mode():
        p = model(**processor(images(range(5)), return_tensors="pt")).logits.softmax(-1)
    np.testing.assert_allclose(labels.confidence, [*p[:, :2].amax(1), 0], atol=1e-5)


def test_long_images_are_classified_in_little_memory(classifier: Path, tmp_path: Path) -> None:
    """A processor that crops the centre from the shortest side on would make 65000 x 1 pixels 2080000 x 32."""
    copy = shutil.copytree(classifier, tmp_path / "copy")
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(copy)
    labeler = ImageClassifier(str(copy))
    labeler.load("cpu")
    sides = Image.new("RGB", (65000, 1), "white")
    sides.paste(COLORS[0], (32000, 0, 33000, 1))
    found = labeler.probabilities([sides, Image.new("RGB", (64, 32), COLORS[0])])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    with pytest.raises(ConfigError, match=r"labels.batch_size=0 must be at least 1"):
        ImageClassifier(str(copy), batch_size=0)


def test_a_classifier_that_lacks_the_concept_or_does_not_exist(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ConceptPair("cat", "dog", ("cat",), ("dog",))
    with pytest.raises(ConfigError, match=r"no label for 'cat': it knows AdultFemale, AdultMale, Dog"):
        ImageClassifier(str(classifier)).check(pair)
    with pytest.raises(ModelError, match=r"labels.model=.* \(the folder has no config.json\)"):
        ImageClassifier(str(tmp_path)).check(pair)
    with pytest.raises(ModelError, match=r"it is no folder, and no id on the hub"):
        ImageClassifier("/no/such/folder").check(pair)
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    with pytest.raises(ModelError, match=r"labels.model=nobody/nothing cannot be had .*use labels=words"):
        ImageClassifier("nobody/nothing").check(pair)


def test_log_odds_are_monroes() -> None:
    """Eq. 15, 16 and 22 of Monroe, Colaresi and Quinn 2008, written out for one word."""
    groups = [["ball ball game", "the player"], ["smile home", "home ball"]]
    scores = {(s.group, s.word): s for s in distinctive_words(groups, left_out=("player",), prior=10)}
    assert (1, "the") not in scores
    assert (0, "player") not in scores
    counts = {"ball": (2, 1), "game": (1, 0), "smile": (0, 1), "home": (0, 2)}
    sizes = (3, 4)
    for word, (here, there) in counts.items():
        alpha = 10 * (here + there) / sum(sizes)
        omega = [(y + alpha) / (n + 10 - y - alpha) for y, n in zip((here, there), sizes, strict=True)]
        z = (np.log(omega[0]) - np.log(omega[1])) / np.sqrt(1 / (here + alpha) + 1 / (there + alpha))
        assert scores[0, word].z == pytest.approx(z)
        assert scores[1, word].z == pytest.approx(-z)
        assert (scores[0, word].count, scores[0, word].elsewhere) == (here, there)
    assert distinctive_words([["ball"], ["ball"]]) == []


def test_a_group_gives_one_sample_to_each_concept() -> None:
    groups = np.array([7, 7, 7, 2, 2, 5, 5, 9])
    a = np.array([1, 0, 1, 0, 0, 1, 0, 0], bool)
    b = np.array([0, 1, 0, 1, 1, 0, 0, 0], bool)
    labels = ConceptLabels(a, b, np.ones(8), ambiguous=0).first_of_groups(groups)
    assert np.flatnonzero(labels.a).tolist() == [0, 5], "a second variant of one drawing would be its nearest reference"
    assert np.flatnonzero(labels.b).tolist() == [1, 3], "the other concept of the same drawing is what is compared"


def test_no_sample_of_a_concept_is_no_error() -> None:
    none = np.zeros(3, bool)
    labels = ConceptLabels(none, ~none, np.ones(3), ambiguous=0).first_of_groups(np.arange(3))
    assert not labels.a.any()
    assert labels.b.all()
