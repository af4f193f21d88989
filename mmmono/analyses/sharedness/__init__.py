"""Sharedness: do the image and the text of a pair activate a feature together? (beyond Section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.analyses.mds import SCORES
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Fields, Result, Rows

_SHOWN = {
    "median_sharedness": "median sharedness",
    "co_firing_ratio": "co-firing / chance",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the section `sharedness`.

    Attributes:
        fdr: false discovery rate at which a feature counts as shared.
    """

    fdr: float

    def __post_init__(self) -> None:
        if not 0 < self.fdr < 1:
            raise ValueError(f"fdr={self.fdr} is no false discovery rate: give a rate between 0 and 1")


def summary_rows(result: Result) -> Rows:
    """How many features of each class are shared beyond broken pairs."""
    return headed(
        [
            {
                "feature_set": row["feature_set"], "class": row["class"], "features": row["features"],
                "shared": f"{row['shared']} of {row['features']}",
                **{title: row[name] for name, title in _SHOWN.items()},
            }
            for row in result.rows("summary")
        ],
        result.modalities,
    )  # fmt: skip


def _fields(result: Result) -> Fields:
    return {"fdr": f"{result.recipe['sharedness']['fdr']:g}"}


SHAREDNESS = Analysis(
    name="sharedness",
    section="+",
    title="Sharedness",
    question=(
        "Do {image} and {text} of a pair activate a feature together, more than sides that do not belong together? The "
        "modality dominance score does not say: on real features it hardly changes when pairs are broken. Not in the paper."
    ),
    paper="beyond 2.1",
    targets=("section-2.1",),
    reads=("sharedness",),
    settings=Settings,
    columns={
        "scores": {
            **{name: SCORES[name] for name in ("feature_set", "feature", "class", "mds")},
            "sharedness": "correlation across pairs of firing (sparse features) or of activations (dense ones)",
            "low": "lower end of the 95 % interval of the sharedness",
            "high": "upper end of the 95 % interval of the sharedness",
            "p_value": "one-sided p-value of a positive association against broken pairs",
            "q_value": "p-value adjusted for the number of live features (Benjamini and Hochberg)",
            "sparse": "whether the feature is silent in at least half of the images and of the texts",
            "co_firing": "number of groups in which both sides activate the feature",
            "expected": "that number in expectation if pairs are broken",
            "image_firing": "number of groups whose images activate the feature",
            "text_firing": "number of groups whose texts activate the feature",
            "correlation": "correlation of the activations, also of sparse features",
            "phi": "correlation of firing, also of dense features",
        },
        "summary": {
            "feature_set": "name of the feature set",
            "class": "ImgD, TextD, CrossD, or live for all of them",
            "pairs": "number of pairs",
            "groups": "number of groups of pairs, which are the units of the test",
            "features": "number of features in the class",
            "shared": "features among them with a q-value below sharedness.fdr",
            "median_sharedness": "their median sharedness",
            "sparse": "sparse features among them",
            "co_firing_ratio": "median ratio of observed to expected co-firing of the sparse ones; none without them",
        },
    },
    tables=[TableView("sharedness", "Features shared beyond broken pairs (q ≤ {fdr})", summary_rows)],
    figures=[
        FigureView(
            "sharedness",
            "Beside Figure 4: modality dominance score and sharedness of each feature, by class; pale features are not "
            "shown to be shared beyond broken pairs.",
        )
    ],
    fields=_fields,
    covers_all=True,
    histograms=("scores/sharedness",),
)
