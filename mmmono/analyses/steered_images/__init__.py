"""Steering a generator: what does it draw from a text one of whose features is set? (beyond Section 4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.steering_columns import columns_of_classes, columns_of_features
from mmmono.pipeline.steering_settings import STEERED, SteeringSettings
from mmmono.reporting.result import Fields, Result
from mmmono.reporting.steering_tables import class_means


@dataclass(frozen=True)
class Settings(SteeringSettings):
    """Settings of the section `steered_images`.

    Attributes:
        how, strengths, images, k, show, per_class: see `SteeringSettings`.
        prompts: what is to be drawn, at least two texts.
        seeds: images of each prompt, each from its own noise, which is the same at all strengths.
        controls: random features that are steered beside each feature, see `random_sets`.
        keep_length: whether a steered embedding is brought back to the length of the prompt's: generators are trained on
            embeddings of one length, and a large strength makes vectors several times as long.
    """

    prompts: Sequence[str]
    seeds: int
    controls: int
    keep_length: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "controls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        prompts = list(self.prompts)
        if len(prompts) < 2 or not all(prompt.strip() for prompt in prompts):
            raise ValueError(f"prompts={prompts} must be two texts at least: intervals are over them")
        if self.show is None and not self.per_class:
            raise ValueError("per_class=0 steers nothing: give a number of features of each class, or show")
        if self.show is not None and not self.show:
            raise ValueError("show=[] steers nothing: name features, or leave it out for random ones of each class")


def _fields(result: Result) -> Fields:
    return {"how": STEERED[result.recipe["steered_images"]["how"]]}


def _remarks(result: Result) -> Iterator[str]:
    said, settings = result.modalities.fields, result.recipe["steered_images"]
    for row in result.rows("samples"):
        match = "" if result.recipe["random_sets"] == "size" else f" ({_matched(result, row)})"
        yield (
            f"{row['feature_set']}: {row['features']} features, {row['controls']} random ones beside them{match}; "
            f"{row['prompts']} prompts, {row['seeds']} {said['images']} of each, drawn by {row['generator']}"
        )
    yield (
        f"move: how much more the {said['images']} drawn activate the feature, 1 as the {settings['k']} that activate it "
        "most; others: the same while random features like it are steered; stay: cosine of what else they activate before "
        "and after, each minus the mean before"
    )
    yield (
        f"likeness: cosine with the {said['images']} that activate the feature most minus that of what is drawn from the "
        f"{said['text']} as it is, by embedder={result.recipe['judge']}{_dependent(result)}; means over features"
    )


def _matched(result: Result, row: dict[str, Any]) -> str:
    return f"{result.recipe['random_sets']} within {row['mismatch']:.0%} of theirs"


def _dependent(result: Result) -> str:
    return "" if result.recipe["independent"] else ", which is no independent judge: the model has the same image tower"


STEERED_IMAGES = Analysis(
    name="steered_images",
    section="+",
    title="Steering a generator",
    question=(
        "What does a generator draw from a prompt when one of its features is set? Does it look more like the {images} that "
        "activate the feature, more than when random features are set, and does everything else stay? Not in the paper."
    ),
    paper="beyond 4.3",
    settings=Settings,
    columns={
        "features": columns_of_features(
            "steered_images",
            "prompts",
            move="mean activation on the generated images minus that without steering, over the reference",
            control="the same of this feature while random features like it are steered",
            stay="cosine of the other features' mean activations on the images before and after, each minus the mean over "
            "prompts before; mean over prompts; empty with fewer than 5 other features",
        )
        | {
            "likeness": "mean cosine with the real images that activate the feature most, in the independent embedder, "
            "minus that without steering; mean over prompts",
            "likeness_control": "the same while random features like it are steered",
            "likeness_beyond": "likeness minus likeness_control",
            "likeness_beyond_low": "lower end of its 95 % interval over prompts",
            "likeness_beyond_high": "upper end of the same",
            "likeness_q_value": "p-value of likeness_beyond being 0, adjusted over features",
        },
        "summary": columns_of_classes({"likeness": "mean likeness", "likeness_control": "mean likeness_control"}),
        "images": {
            "feature_set": "name of the feature set",
            "feature": "index of the steered feature",
            "class": "ImgD, TextD or CrossD",
            "mds": "R(d) of Eq. 1",
            "prompt": "what is to be drawn",
            "strength": "strength of the steering; empty for the text as it is",
            "seed": "seed of the noise",
            "activation": "activation of the feature on the image, over its reference",
            "likeness": "mean cosine with the real images that activate the feature most, in the independent embedder",
            "image": "file of the image, below the folder of the result",
        },
        "most": {
            "feature_set": "name of the feature set",
            "feature": "index of the steered feature",
            "rank": "rank among the real images that activate it most, from 0",
            "row": "position of the pair in the split",
            "activation": "activation of the feature on the image, over its reference",
            "image": "file of the image, below the folder of the result",
        },
        "controls": {
            "feature_set": "name of the feature set",
            "feature": "index of the steered feature",
            "control": "index of a random feature that is steered beside it",
            "energy": "energy Σ ‖z · atom‖² of the feature on images, as a share of that of all features",
            "control_energy": "that of the random feature",
        },
        "samples": {
            "feature_set": "name of the feature set",
            "generator": "name of the generator",
            "features": "number of features that were steered",
            "controls": "number of random features that were steered beside them",
            "prompts": "number of prompts",
            "seeds": "images of each prompt",
            "images": "number of real images that activations are compared with, one of each group",
            "mismatch": "largest relative difference between a steered feature and a random one beside it in what they are "
            "matched in, see random_sets",
        },
    },
    tables=[
        TableView(
            "steered-images-{feature_set}",
            "Steerability of a generator, {feature_set}",
            partial(class_means, more={"likeness": "likeness", "its others": "likeness_control"}),
        )
    ],
    drawing=2,
    figures=[
        FigureView(
            "steered_images",
            "How far generated {images} follow a feature that is {how}: its activation on them (above; dotted: when random "
            "features like it are), their likeness to {images} that activate it, and how much of what else they activate "
            "stays (below). Means over features, bands: half of the features.",
        ),
        FigureView(
            "{feature_set}-sheet-{feature}",
            "What is drawn when feature {feature} of {feature_set} is {how}: as it is, and at each strength, in units of "
            "the mean activation on the {images} that activate it most (above). Below each: its activation.",
        ),
    ],
    fields=_fields,
    remarks=_remarks,
    version=4,
    embeds_anew=True,
    weights={"generator.weights": "generator"},
)
