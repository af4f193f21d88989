"""Control of text-to-image generation by classes of features (Section 4.3, Appendix A.4.3, Figures 10 and 14)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.formats import names, p_value, percent, random_remarks
from mmmono.reporting.result import Fields, Result, Rows

WeightOn = Literal["reference", "text"]
Sizes = Literal["equal", "whole"]


@dataclass(frozen=True)
class Strength:
    """A column of Figure 10.

    Attributes:
        shown: the swept strength.
        weight: weight of the reference that follows from it, 1 − α.
    """

    shown: float
    weight: float


@dataclass(frozen=True)
class Intervention:
    """Settings of the section `intervention`.

    Attributes:
        strengths: swept strengths, in [0, 1].
        weight_on: whether a strength is the weight of the reference (1 − α) or that of the text (α).
        sizes: number of changed features of each class: `equal` to the smallest class, or `whole` classes.
        seeds: images of each cell, each from its own noise.
    """

    strengths: Sequence[float]
    weight_on: WeightOn
    sizes: Sizes
    seeds: int

    def __post_init__(self) -> None:
        for name, known in (("weight_on", WeightOn), ("sizes", Sizes)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name}={getattr(self, name)} is none of {', '.join(get_args(known))}")
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} must be at least 1")
        if not self.strengths:
            raise ValueError("strengths=[] is empty: give some, such as [0,0.3,0.6]")
        for strength in self.strengths:
            if not 0 <= strength <= 1:
                raise ValueError(f"strengths has {strength:g}, which lies outside [0, 1]")
        if len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"strengths={list(self.strengths)} names one twice")

    @property
    def swept(self) -> list[Strength]:
        """The columns of Figure 10."""
        values = [float(strength) for strength in self.strengths]
        return [Strength(value, value if self.weight_on == "reference" else 1 - value) for value in values]


@dataclass(frozen=True)
class Measures:
    """Settings of the section `measures`.

    Attributes:
        prompt_images: real images that show what the prompt names: those whose captions are nearest to it.
        pool: captions among which these are searched.
    """

    prompt_images: int
    pool: int

    def __post_init__(self) -> None:
        for name in ("prompt_images", "pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Settings:
    """Settings of the configuration: two that are in no section of it, and two sections.

    Attributes:
        prompt: what the generator is to draw.
        references: reference images: files, keys of pairs or drawings of OpenMoji, each optionally with `@` and a style.
        intervention: which features are changed, and how much.
        measures: how generated images are compared with real ones.
    """

    prompt: str
    references: Sequence[str]
    intervention: Intervention
    measures: Measures

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError("references is empty: name a pair's key or an image's path")


def strongest(result: Result) -> float:
    """Strength at which the reference has its largest weight."""
    settings = result.recipe["intervention"]
    return float((max if settings["weight_on"] == "reference" else min)(settings["strengths"]))


def control_rows(result: Result, feature_set: str) -> Rows:
    """Change of each measure by class at the strength with the largest weight of the reference, over all references."""
    cells = [row for row in result.rows("cells") if row["feature_set"] == feature_set]
    sizes, energy = ({row["members"]: row[key] for row in cells} for key in ("features", "energy"))
    at = {"feature_set": feature_set, "reference": "all", "strength": strongest(result)}
    effects = [row for row in result.rows("effects") if all(row[key] == value for key, value in at.items())]
    rows: Rows = []
    for members in names(effects, "members"):
        own = [row for row in effects if row["members"] == members]
        moved = f"{members} {sizes[members]}" if members in sizes else members
        carried = percent(energy.get(members))
        rows.append(
            {"moved": moved, "energy %": carried, **{row["measure"].replace("_", " "): _change(row) for row in own}}
        )
    return rows


def _change(row: Mapping[str, Any]) -> str:
    if row["change_low"] is None or row["change_high"] is None:
        return f"{row['change']:+.3f}"
    tested = "" if row["p_holm"] is None else f", p {p_value(row['p_holm'])}"
    return f"{row['change']:+.3f} [{row['change_low']:+.3f}, {row['change_high']:+.3f}]{tested}"


def remarks(result: Result) -> Iterator[str]:
    """What the intervals are over, and what random features are."""
    seeds = result.recipe["intervention"]["seeds"]
    yield f"intervals: Student's t over {seeds} seeds, for these references; p: Holm's, over the differences at a strength"
    first = {(row["feature_set"], row["members"]): row for row in result.rows("cells")}
    yield from random_remarks(result.recipe["random_sets"], first.values())


def prompt_and_strength(result: Result) -> Fields:
    """The prompt and the strength, for titles and captions."""
    return {"prompt": result.recipe["prompt"], "strength": f"{strongest(result):g}"}


TEXT_TO_IMAGE = Analysis(
    name="text_to_image",
    section="4.3",
    title="Text to image",
    question="What does a reference image give to a generated one through each class of features?",
    paper="Figures 10, 14",
    targets=("section-4.3", "appendix-a.4"),
    version=6,
    settings=Settings,
    columns={
        "cells": {
            "feature_set": "name of the feature set",
            "reference": "name of the reference image",
            "members": "class of the changed features, Random-<class> or Random for random ones, or All live features",
            "features": "number of changed features",
            "energy": "share of the energy on images and texts, Σ ‖z · atom‖², that they carry; mean over seeds",
            "mismatch": "largest relative difference between what a random set is matched in and the class'; of Random",
            "strength": "swept strength: weight of the reference, or of the text (intervention.weight_on)",
            "weight": "weight of the reference, between 0 and 1",
            "seed": "seed of the noise and of the draw of the features",
            "similarity_reference": "cosine with the reference, in the independent embedder",
            "similarity_prompt": "mean cosine with real images of what the prompt names, in that embedder",
            "color_distance": "Jensen-Shannon distance of color histograms to the reference, between 0 and 1",
            "edge_distance": "Wasserstein distance of edge strengths to the reference, for gray values in [0, 1]",
            "image": "file of the generated image, below the folder of the result",
            "nearest": "caption of the real image nearest to the intervened embedding, for the first seed; else empty",
            "nearest_image": "file of that image, below the folder of the result; else empty",
        },
        "effects": {
            "feature_set": "name of the feature set",
            "reference": "name of the reference, or all for the mean over all references",
            "members": "a class, Random, All, or a difference of two of them",
            "strength": "swept strength: weight of the reference, or of the text (intervention.weight_on)",
            "measure": "a measure of the table cells",
            "change": "mean change of the measure relative to generation without intervention, from the same noise",
            "change_low": "lower end of its 95 % interval: Student's t over seeds, for these references",
            "change_high": "upper end of that interval",
            "p": "p-value of a difference of two classes being 0; none for a class",
            "p_holm": "the same, adjusted for all differences and measures of the strength and reference (Holm 1979)",
        },
        "references": {
            "reference": "name of the reference image",
            "image": "its file, below the folder of the result",
            "generator": "name of the generator that drew the images",
        },
    },
    contrasts=[
        Contrast(
            "difference of changes",
            "effects",
            "change",
            of=("members", "measure"),
            family=("reference", "strength"),
            requires="p",
        )
    ],
    tables=[
        TableView(
            "control-{feature_set}",
            "Change from plain generation at strength {strength} [95 %], {feature_set}, “{prompt}”",
            control_rows,
        )
    ],
    drawing=2,
    figures=[
        FigureView(
            "{feature_set}-figure10-{reference}",
            "Figures 10, 14, {feature_set}: “{prompt}” with features of {reference}.",
        ),
        FigureView(
            "{feature_set}-curves",
            "{feature_set}: what each class changes, mean over references; 95 % intervals over noise.",
        ),
    ],
    fields=prompt_and_strength,
    remarks=remarks,
    paper_setting=PaperSetting("figure10", model="clip_vit_h14", dataset="cc3m", chooses=("model", "features")),
    features="[raw,sae]",
    embeds_anew=True,
    split_setting="auto",
    weights={"generator.weights": "generator"},
)
