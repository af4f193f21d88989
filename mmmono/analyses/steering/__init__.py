"""Steering: which images do texts find when one of their features is set? (beyond Section 4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.pipeline.steering_columns import columns_of_classes, columns_of_features
from mmmono.pipeline.steering_settings import STEERED, SteeringSettings
from mmmono.reporting.result import Fields, Result
from mmmono.reporting.steering_tables import class_means

FEWEST = 6  # features that are steered: two of each class


@dataclass(frozen=True)
class Settings(SteeringSettings):
    """Settings of the section `steering`.

    Attributes:
        how, strengths: see `SteeringSettings`; 0 removes the feature, unless `how` is `add`.
        images: number of images that are searched, at most one of each group.
        k: number of images that each text finds.
        queries: number of texts, at most one of each group.
        max_features: features that are steered, at most, drawn at random, of each class as many if it has them; None: all
            live ones, which takes a time that grows with the square of their number.
        query: text on contact sheets; None: one of the texts, at random.
        show: features on contact sheets; None: random ones of each class.
        per_class: how many of each class.
        shown: images of a row of a contact sheet.
    """

    queries: int
    max_features: int | None
    query: str | None
    shown: int

    def __post_init__(self) -> None:
        for name, least in (("queries", 3), ("shown", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.max_features is not None and self.max_features < FEWEST:
            raise ValueError(
                f"max_features={self.max_features} must be at least {FEWEST}, two of each class, or null: each is a control "
                "of the others"
            )
        if self.query is not None and not self.query.strip():
            raise ValueError("query= is empty: give a text, or null")
        if self.query is not None and not self.sheets:
            raise ValueError(
                "query= is a text for contact sheets, and per_class=0 makes none: raise it, give show=, or no query="
            )
        super().__post_init__()

    @property
    def sheets(self) -> bool:
        """Whether there are contact sheets, for which images are read."""
        return bool(self.show) or self.per_class > 0


def _fields(result: Result) -> Fields:
    return {"how": STEERED[result.recipe["steering"]["how"]]}


def _remarks(result: Result) -> Iterator[str]:
    said = result.modalities.fields
    for row in result.rows("samples"):
        silent = (
            f"; {row['silent']} live features that no {said['image']} activates are left out" if row["silent"] else ""
        )
        yield (
            f"{row['feature_set']}: {row['queries']} {said['texts']} find {result.recipe['steering']['k']} of "
            f"{row['images']} {said['images']}{silent}"
        )
        if row["steered"] < row["active"]:
            yield (
                f"{row['feature_set']}: {row['steered']:,} of {row['active']:,} such features are steered, of each class as "
                "many at random (steering.max_features)"
            )
    yield (
        f"move: how much more the {said['images']} found activate the feature, 1 as those that activate it most; others: "
        "the same while other features are steered; stay: cosine of what else they activate; means over features"
    )


STEERING = Analysis(
    name="steering",
    section="+",
    title="Steering retrieval",
    question=(
        "Which {images} do {texts} find when one of their features is set? Do they activate it, more than when other "
        "features are set, and does everything else stay? Not in the paper."
    ),
    paper="beyond 4.3",
    targets=("steering",),
    settings=Settings,
    columns={
        "features": columns_of_features(
            "steering",
            "texts",
            move="mean activation on the images found minus that before, over the reference",
            control="the same of this feature while other features are steered",
            stay="cosine of the other features' mean activations on the images found before and after, each minus its mean "
            "over all images; mean over texts",
        ),
        "summary": columns_of_classes(),
        "shown": {
            "feature_set": "name of the feature set",
            "feature": "index of a feature on a contact sheet",
            "class": "ImgD, TextD, CrossD or dead",
            "mds": "R(d) of Eq. 1",
            "query": "the text",
            "strength": "strength of the steering; empty for the text as it is",
            "most": "1 for the images that activate the feature most, which no text found; else 0",
            "rank": "rank of the image, from 0",
            "row": "position of the pair in the split",
            "activation": "activation of the feature on the image, over its reference",
        },
        "samples": {
            "feature_set": "name of the feature set",
            "queries": "number of texts",
            "images": "number of images among which they find some, one of each group",
            "steered": "number of features that were steered",
            "active": "live features that some image activates, from which these were drawn (steering.max_features)",
            "silent": "live features that no image activates",
        },
    },
    contrasts=[
        Contrast(
            "move beyond steering others", "summary", "move", of=("class",), family=("strength",), minus="control"
        ),
    ],
    tables=[TableView("steering-{feature_set}", "Steerability, {feature_set}", class_means)],
    drawing=2,
    figures=[
        FigureView(
            "steering",
            "How far the {images} found follow a feature that is {how} (above; dotted: when other features are), and how "
            "much of what else they activate stays (below). Means over features, bands: half of the features.",
        ),
        FigureView(
            "{feature_set}-sheet-{feature}",
            "Images that a text finds when feature {feature} of {feature_set} is {how}: as it is, and at each strength, in "
            "units of the mean activation on the images that activate it most (above). Below each image: its activation.",
        ),
    ],
    fields=_fields,
    remarks=_remarks,
    covers_all=True,
)
