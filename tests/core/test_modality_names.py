"""What the two sides of a pair are called."""

from __future__ import annotations

import pytest

from mmmono.core.errors import ConfigError
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames


def test_image_and_text_are_called_as_in_the_code() -> None:
    assert ModalityNames.of(None) == ModalityNames.of(["image", "text"]) == IMAGE_AND_TEXT
    assert all(word == said for word, said in IMAGE_AND_TEXT.fields.items())
    for word in ("val/image/active", "auroc_text_low", "i2t_r1", "feature"):
        assert IMAGE_AND_TEXT.column(word) == word.replace("i2t", "i→t")


@pytest.mark.parametrize(
    ("names", "classes", "ways", "many"),
    [
        (("audio", "text"), ("AudioD", "TextD"), ("a→t", "t→a"), "audio samples"),
        (("text", "audio"), ("TextD", "AudioD"), ("t→a", "a→t"), "texts"),
        (("point cloud", "image"), ("PointCloudD", "ImgD"), ("p→i", "i→p"), "point cloud samples"),
        (("audio", "Animation"), ("AudioD", "AnimationD"), ("audio→Animation", "Animation→audio"), "audio samples"),
        (("bild", "文章"), ("BildD", "文章D"), ("b→文", "文→b"), "bild samples"),
    ],
)
def test_what_follows_from_two_names(
    names: tuple[str, str], classes: tuple[str, str], ways: tuple[str, str], many: str
) -> None:
    called = ModalityNames(*names)
    assert (called.said("ImgD"), called.said("TextD"), called.said("CrossD")) == (*classes, "CrossD")
    assert called.classes == {classes[0]: "ImgD", classes[1]: "TextD", "CrossD": "CrossD"}
    assert (called.way("i2t"), called.way("t2i")) == ways
    assert (called.said("image"), called.said("text"), called.said("images")) == (*names, many)
    assert called.said("dead") == "dead"
    assert called.pair == "-".join(names)


def test_columns_are_called_by_their_parts() -> None:
    called = ModalityNames("audio", "text")
    assert called.column("val/image/active") == "val/audio/active"
    assert called.column("ImgD_confirmed") == "AudioD_confirmed"
    assert called.column("i2t_r10") == "a→t_r10"
    assert called.column("imagery") == "imagery"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("audio", "dataset.modalities=audio are not two names"),
        (["audio"], "are not two names: give one for each side"),
        (["a", "b", "c"], "are not two names"),
        (["", "text"], "has the name ''"),
        (["audio", "  "], "has the name ''"),
        (["audio", None], "has the name None"),
        ([3, "text"], "has the name 3"),
        (["—", "text"], "has the name '—'"),
        (["audio\n", "x\ny"], "at most 16 characters in one line"),
        (["a" * 17, "text"], "at most 16 characters"),
        (["Text", "text "], r"\[Text,text\] are one name"),
        (["cross", "text"], "would give two classes one name, of CrossD, TextD, CrossD, dead"),
        (["img", "image"], "would give two classes one name, of ImgD, ImgD, CrossD, dead"),
        (["point cloud", "point-cloud"], "would give two classes one name"),
        (["dea", "text"], "would give two classes one name"),
    ],
)
def test_what_are_no_two_names_is_an_error_in_one_line(setting: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        ModalityNames.of(setting)
    assert "\n" not in str(raised.value)
