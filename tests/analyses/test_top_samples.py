"""What is shown of top samples: contact sheets and their table, from the saved tables and images alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt
from matplotlib.image import AxesImage
from PIL import Image

from mmmono.analyses.top_samples import TOP_SAMPLES, Settings
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

SHEETS = [("raw", 7, "TextD"), ("raw", 2, "ImgD"), ("raw", 5, "ImgD"), ("sae", 2, "CrossD")]
SHOWN = 2


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def result(folder: Path, show: list[int] | None = None) -> Result:
    """Three images and texts of each feature, of which two are to be shown; no text activates feature 5."""
    sheets: list[dict[str, object]] = []
    samples: list[dict[str, object]] = []
    (folder / "images").mkdir()
    for name, feature, members in SHEETS:
        texts = 0 if feature == 5 else 3
        sheets.append(
            {
                "feature_set": name, "feature": feature, "class": members, "mds": 0.25,
                "side": "negative" if feature == 7 else "positive", "images": 3, "texts": texts,
                "m": 3, "top_caption": f"{name} {feature} 0" if texts else None,
                "sheet": f"{name}-{members}-{feature}.png",
            }
        )  # fmt: skip
        for modality, count in (("image", 3), ("text", texts)):
            for rank in range(count):
                samples.append(
                    {
                        "feature_set": name, "feature": feature, "class": members, "samples": modality, "rank": rank,
                        "activation": 1.0 / (1 + rank), "row": 10 * feature + rank, "key": "k",
                        "caption": f"{name} {feature} {rank}",
                    }
                )  # fmt: skip
        for rank in range(SHOWN):
            row = 10 * feature + rank
            Image.new("RGB", (224, 224), (row, 0, 0)).save(folder / "images" / f"{row}.png")
    save_table(sheets, folder / "sheets", list(TOP_SAMPLES.columns["sheets"]))
    save_table(samples[::-1], folder / "samples", list(TOP_SAMPLES.columns["samples"]))
    recipe = {"sets": [{"name": "raw"}, {"name": "sae"}], "top_samples": {"show": show, "shown": SHOWN}}
    return Result(folder, recipe)


def shown(figure: Any) -> tuple[list[int], list[str]]:
    """Rows of the images, by their color, and captions of a contact sheet."""
    images = [image for axis in figure.axes for image in axis.get_children() if isinstance(image, AxesImage)]
    words = [text.get_text() for part in figure.subfigs for text in part.texts]
    return [int(image.get_array()[0, 0, 0]) for image in images], [w for w in words if w[:3] in ("raw", "sae")]


def test_sheets_are_drawn_from_the_tables_and_images(tmp_path: Path) -> None:
    drawn = dict(TOP_SAMPLES.draw(result(tmp_path)))
    assert list(drawn) == [
        "raw-TextD", "raw-TextD-7", "raw-ImgD", "raw-ImgD-2", "raw-ImgD-5", "sae-CrossD", "sae-CrossD-2",
    ]  # fmt: skip
    assert shown(drawn["raw-ImgD"]) == (
        [20, 21, 50, 51],
        [
            "raw feature 2: ImgD, MDS 0.25", "raw 2 0", "raw 2 1",
            "raw feature 5: ImgD, MDS 0.25",
        ],
    )  # fmt: skip
    assert shown(drawn["sae-CrossD-2"]) == ([20, 21], ["sae feature 2: CrossD, MDS 0.25", "sae 2 0", "sae 2 1"])
    titles = [text.get_text() for part in drawn["raw-TextD"].subfigs for text in part.texts]
    assert "raw feature 7: TextD, MDS 0.25, negative side" in titles
    notes = [text.get_text() for part in drawn["raw-ImgD"].subfigs for text in part.texts]
    assert [note for note in notes if "activates" in note] == ["no text activates it"]


def test_chosen_features_share_a_sheet(tmp_path: Path) -> None:
    drawn = dict(TOP_SAMPLES.draw(result(tmp_path, show=[7, 2, 5])))
    assert [name for name in drawn if name.count("-") == 1] == ["raw-chosen", "sae-chosen"]
    assert shown(drawn["raw-chosen"])[0] == [70, 71, 20, 21, 50, 51]


def test_captions_name_the_papers_figures(tmp_path: Path) -> None:
    of = result(tmp_path)
    for name, _ in TOP_SAMPLES.draw(of):
        (tmp_path / f"{name}.png").touch()
    captions = [caption.partition(":")[0] for _, caption in shown_figures(TOP_SAMPLES, of)]
    # Sheets of single features are for the table alone.
    assert captions == ["Figure 1, raw", "Figure 2, raw", "Figure 3, sae"]


def test_the_table_says_how_many_samples_were_found(tmp_path: Path) -> None:
    [(name, _, rows)] = shown_tables(TOP_SAMPLES, result(tmp_path))
    assert name == "top_samples"
    assert [(row["feature"], row["images"], row["texts"], row["top caption"]) for row in rows[1:3]] == [
        (2, "3 of 3", "3 of 3", "raw 2 0"),
        (5, "3 of 3", "0 of 3", "none"),
    ]


def test_a_result_without_sheets_shows_nothing(tmp_path: Path) -> None:
    of = result(tmp_path)
    save_table([], tmp_path / "sheets", list(TOP_SAMPLES.columns["sheets"]))
    assert list(TOP_SAMPLES.draw(of)) == []
    assert list(shown_tables(TOP_SAMPLES, of)) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"m": 0}, "m=0 must"),
        ({"shown": 21}, "shown=21 must lie"),
        ({"per_class": -1}, "per_class=-1 must"),
        ({"side": "negative"}, "side=negative is none of"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"m": 20, "shown": 6, "show": None, "per_class": 2, "deduplicate": True, "side": "dominant"}
    Settings(**right)
    with pytest.raises(ValueError, match=f"^{message}"):
        Settings(**{**right, **wrong})


def test_declared_columns_are_those_of_the_schema() -> None:
    from mmmono.analyses.top_samples.analysis import SCHEMA

    assert SCHEMA.names == list(TOP_SAMPLES.columns["samples"])
