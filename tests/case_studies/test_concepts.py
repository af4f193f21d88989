"""Labels of concepts: by words, by a column, and by a small classifier of transformers' own class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.case_studies.concepts import CaptionWords, ConceptPair, ImageClassifier, LabelColumn, tokens
from mmmono.case_studies.words import distinctive_words
from mmmono.core.errors import ConfigError, ModelError

PAIR = ConceptPair("female", "male", ("woman", "female", "she"), ("man", "male", "he"))
COLORS = [(250, 10, 10), (10, 10, 250), (240, 20, 20), (20, 20, 240), (10, 250, 10)]


def images(rows: Sequence[int]) -> Iterator[Image.Image]:
    for row in rows:
        yield Image.new("RGB", (40, 30), COLORS[row])


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
    labels = CaptionWords().label(PAIR, pd.DataFrame({"caption": captions}), images)
    assert labels.a.tolist() == [True, False, False, False, False, False, True]
    assert labels.b.tolist() == [False, False, True, False, True, False, False]
    assert labels.ambiguous == 1
    assert set(labels.confidence) == {1.0}
    assert tokens("AdultFemale adult_male") == ["adult", "female", "adult", "male"]


def test_a_column_of_labels() -> None:
    metadata = pd.DataFrame({"caption": "x", "sex": ["female", "male", None, "female and male"]})
    labels = LabelColumn("sex").label(PAIR, metadata, images)
    assert (labels.a.tolist(), labels.b.tolist()) == ([True, False, False, False], [False, True, False, False])
    with pytest.raises(ConfigError, match=r"labels.column=gender is no column.*'sex'"):
        LabelColumn("gender").label(PAIR, metadata, images)


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
    pixels = processor(list(images(range(5))), return_tensors="pt").pixel_values
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(pixel_values=pixels, labels=torch.tensor([0, 1, 0, 1, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_classifier_of_transformers(classifier: Path) -> None:
    labels = ImageClassifier(str(classifier), batch_size=2).label(PAIR, pd.DataFrame({"caption": [""] * 5}), images)
    assert labels.a.tolist() == [True, False, True, False, False]
    assert labels.b.tolist() == [False, True, False, True, False]
    assert labels.ambiguous == 1
    model = ViTForImageClassification.from_pretrained(classifier)
    processor = ViTImageProcessor.from_pretrained(classifier)
    with torch.inference_mode():
        p = model(**processor(list(images(range(5))), return_tensors="pt")).logits.softmax(-1)
    np.testing.assert_allclose(labels.confidence, p[:, :2].amax(1), atol=1e-5)


def test_a_classifier_that_lacks_the_concept_or_does_not_exist(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ConceptPair("cat", "dog", ("cat",), ("dog",))
    with pytest.raises(ConfigError, match=r"no label for 'cat': it knows AdultFemale, AdultMale, Dog"):
        ImageClassifier(str(classifier)).label(pair, pd.DataFrame({"caption": [""]}), images)
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    with pytest.raises(ModelError, match=r"labels.model=nobody/nothing cannot be had"):
        ImageClassifier("nobody/nothing").label(pair, pd.DataFrame({"caption": [""]}), images)


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
