"""Figures 1 to 3: contact sheets of features, drawn from the table of samples and the saved images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from mmmono.core.saved import read_frame
from mmmono.core.text import file_name
from mmmono.reporting.contact_sheets import FeatureCard, contact_sheet
from mmmono.reporting.result import Result

IMAGES = "images"  # folder with the images on contact sheets, `<row>.png`: their central squares


def sheet_of(feature_set: str, members: str, feature: int) -> str:
    """Name of the contact sheet of a single feature, without suffix."""
    return file_name(f"{feature_set}-{members}-{feature}")


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw a contact sheet of the features of each feature set and class (or of the chosen ones), and of each alone."""
    sheets: dict[str, list[FeatureCard]] = {}
    chosen = bool(result.recipe["top_samples"]["show"])
    for row in result.rows("sheets"):
        card = _card(result, row)
        sheets.setdefault(f"{card.feature_set}-{'chosen' if chosen else card.members}", []).append(card)
    for name, cards in sheets.items():
        yield name, contact_sheet(cards)
        for card in cards:
            yield sheet_of(card.feature_set, card.members, card.feature), contact_sheet([card])


def _card(result: Result, sheet: Mapping[str, Any]) -> FeatureCard:
    """Build the card of a feature; the table of samples is long, and only the rows of this feature are read."""
    shown = result.recipe["top_samples"]["shown"]
    filters = [("feature_set", "==", sheet["feature_set"]), ("feature", "==", sheet["feature"]), ("rank", "<", shown)]
    samples = read_frame(result.folder / "samples.parquet", filters=filters).sort_values("rank", kind="stable")
    images, texts = (samples[samples["samples"] == modality] for modality in ("image", "text"))
    return FeatureCard(
        feature_set=sheet["feature_set"],
        feature=sheet["feature"],
        members=sheet["class"],
        mds=sheet["mds"],
        images=[(_image(result, row), value) for row, value in zip(images["row"], images["activation"], strict=True)],
        captions=list(zip(texts["caption"], texts["activation"], strict=True)) if len(texts) else [],
        asked=shown,
        negative=sheet["side"] == "negative",
        modalities=result.modalities,
    )


def _image(result: Result, row: int) -> Image.Image:
    with Image.open(result.folder / IMAGES / f"{row}.png") as image:
        return image.copy()
