"""Steering a vision-language model: what does it say of an image with a feature of its tokens set? (beyond Section 4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.steering_columns import columns_of_classes, columns_of_features
from mmmono.pipeline.steering_settings import STEERED, UNITS, SteeringSettings
from mmmono.reporting.result import Fields, Result, Rows
from mmmono.reporting.steering_tables import class_means

WIDEST = 60  # characters of an answer in the table


@dataclass(frozen=True)
class Settings(SteeringSettings):
    """Settings of the section `steered_answers`.

    Attributes:
        how, strengths, images, k: see `SteeringSettings`.
        show: features, all of which have a name; None: those of each class whose names hold best.
        per_class: how many of each class.
        names: what features of one feature set are called, such as `12:dog`; exactly these are steered. None: what `names`
            of the same model, dataset and features found.
        question: what the model is asked of each image.
        lead: how the answer begins whose likely end is looked at; may be empty.
        asked: number of images that it is asked about, at most one of each group.
    """

    names: Sequence[str] | None
    question: str
    lead: str
    asked: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.question.strip():
            raise ValueError("question= is empty: ask something, such as 'What is in this image?'")
        if self.asked < 2:
            raise ValueError(f"asked={self.asked} must be at least 2: intervals are over images")
        if self.show is not None and not self.show:
            raise ValueError("show=[] steers nothing: name features, or leave it out for those whose names hold best")
        if self.names is None:
            if self.show is None and not self.per_class:
                raise ValueError("per_class=0 steers nothing: give a number of features of each class, show or names")
            return
        if self.show is not None:
            raise ValueError(
                f"names={list(self.names)} says which features are steered: leave steered_answers.show out"
            )
        parted = [entry.partition(":") for entry in self.names]
        wrong = any(not feature.isdecimal() or not name.strip() for feature, _, name in parted)
        if wrong or len(set(self.named.values())) < max(2, len(parted)):
            raise ValueError(
                f"names={list(self.names)} must call two features at least by their own names: [12:dog,37:sea]"
            )

    @property
    def named(self) -> dict[int, str]:
        """What `names` calls features, by their index; empty if it is None."""
        parted = (entry.partition(":") for entry in self.names or ())
        return {int(feature): name.strip() for feature, _, name in parted}


def answer_rows(result: Result, feature_set: str) -> Rows:
    """What the model says of the first image as it is, and with each feature at the largest strength."""
    unit = UNITS[result.recipe["steered_answers"]["how"]]
    rows = [row for row in result.rows("answers") if row["feature_set"] == feature_set and row["place"] == 0]
    strongest = max((row["strength"] for row in rows if row["strength"] is not None), default=None)
    plain = next((row for row in rows if row["strength"] is None), None)
    shown: Rows = [] if plain is None else [_answer("", "", "as it is", plain["answer"])]
    return shown + [
        _answer(row["feature"], row["name"], f"{unit} {row['strength']:g}", row["answer"])
        for row in rows
        if row["strength"] == strongest
    ]


def _answer(feature: object, name: str, steered: str, answer: str) -> dict[str, object]:
    return {"feature": feature, "name": name, "steered": steered, "answer": shorten(answer, WIDEST, placeholder=" …")}


def _fields(result: Result) -> Fields:
    settings = result.recipe["steered_answers"]
    return {"how": STEERED[settings["how"]], "question": settings["question"]}


def _remarks(result: Result) -> Iterator[str]:
    said = result.modalities.fields
    for row in result.rows("samples"):
        way = "in the joint space" if row["joint"] else "as they are"
        silent = f"; {row['silent']} more, which no image activates, were left out" if row["silent"] else ""
        yield (
            f"{row['feature_set']}: {row['features']} named features; {row['asked']} {said['images']}, whose visual tokens "
            f"are steered {way}{silent}"
        )
    settings = result.recipe["steered_answers"]
    if settings["how"] != "scale":
        yield f"ref.: mean activation on the {settings['k']} {said['images']} that activate the feature most"
    yield (
        "move: mean log-probability of the name's tokens as the answer, minus that without steering, in nats; others: the "
        "same while the other features are steered; stay: cosine of the other names' log-probabilities before and after, "
        f"each minus the mean over {said['images']} before; none with fewer than 5 other names"
    )


STEERED_ANSWERS = Analysis(
    name="steered_answers",
    section="+",
    title="Steering a vision-language model",
    question=(
        "What does a vision-language model say of {images} when one feature of their visual tokens is set? Does the name of "
        "the feature get likelier, more than when other features are set, and do other names stay? Not in the paper."
    ),
    paper="beyond 4.3",
    settings=Settings,
    columns={
        "features": columns_of_features(
            "steered_answers",
            "images",
            move="mean log-probability of the tokens of its name as the answer, minus that without steering, in nats",
            control="the same of this name while other features are steered",
            stay="cosine of the other names' log-probabilities before and after, each minus the mean over images before; "
            "mean over images; empty with fewer than 5 other names",
        )
        | {"name": "what the feature is called"},
        "summary": columns_of_classes(),
        "answers": {
            "feature_set": "name of the feature set",
            "feature": "index of a feature that is steered",
            "name": "what it is called",
            "strength": "strength of the steering; empty if nothing is steered",
            "place": "number of the image, from 0",
            "row": "position of its pair in the split",
            "log_probability": "mean log-probability of the tokens of the name as the answer, in nats",
            "answer": "what the model says",
            "image": "file of the image, below the folder of the result",
        },
        "samples": {
            "feature_set": "name of the feature set",
            "features": "number of features that were steered",
            "asked": "number of images that the model was asked about",
            "images": "number of images that reference activations are of, one of each group",
            "silent": "named features that none of these images activates, which were left out",
            "joint": "1 if tokens were steered in the joint space, through the tower's projection; 0 if as they are",
        },
    },
    tables=[
        TableView("steered-answers-{feature_set}", "Steerability of answers, {feature_set}", class_means),
        TableView("answers-{feature_set}", "“{question}”, the first {image}, {feature_set}", answer_rows),
    ],
    drawing=2,
    figures=[
        FigureView(
            "steered_answers",
            "How much likelier the name of a feature gets as the answer to “{question}” when the feature is {how} in all "
            "visual tokens (above; dotted: when other features are), and how much the likelihood of other names stays "
            "(below). Means over features, bands: half of the features.",
        )
    ],
    fields=_fields,
    remarks=_remarks,
    version=4,
    embeds_anew=True,
    weights={"victim.model": "vision-language model"},
)
