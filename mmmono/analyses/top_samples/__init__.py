"""Top samples: which images and texts activate each feature most? (Section 2.3, Figures 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Result, Rows

CAPTION_CHARACTERS = 40
FIGURES = {
    "ImgD": "Figure 1",
    "TextD": "Figure 2",
    "CrossD": "Figure 3",
    "chosen": "Figures 1 to 3, chosen features",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the section `top_samples`.

    Attributes:
        m: samples found for each feature and modality, at most.
        shown: how many of them a contact sheet shows.
        show: features on contact sheets; None or empty: some of each class, at random.
        per_class: how many features of each class are drawn at random.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        side: side of 0 that samples of signed features are taken from: `dominant`, the one with the larger energy Σ z²
            over images and texts, or `positive`. Non-negative features have only one.
    """

    m: int
    shown: int
    show: Sequence[int] | None
    per_class: int
    deduplicate: bool
    side: Literal["dominant", "positive"]

    def __post_init__(self) -> None:
        if self.m < 1:
            raise ValueError(f"m={self.m} must be at least 1")
        if not 1 <= self.shown <= self.m:
            raise ValueError(f"shown={self.shown} must lie between 1 and top_samples.m={self.m}")
        if self.per_class < 0:
            raise ValueError(f"per_class={self.per_class} must be at least 0")
        if self.side not in ("dominant", "positive"):
            raise ValueError(f"side={self.side} is none of dominant, positive")

    @property
    def sheets(self) -> bool:
        """Whether there are contact sheets."""
        return bool(self.show) or self.per_class > 0


def sheet_rows(result: Result) -> Rows:
    """Features on contact sheets, with how many of the m samples asked for activate each."""
    return headed(
        [
            {
                "feature_set": row["feature_set"], "feature": row["feature"], "class": row["class"], "mds": row["mds"],
                "side": row["side"],
                "images": f"{row['images']} of {row['m']}", "texts": f"{row['texts']} of {row['m']}",
                "top_caption": (row["top_caption"] or "none")[:CAPTION_CHARACTERS],
            }
            for row in result.rows("sheets")
        ],
        result.modalities,
    )  # fmt: skip


TOP_SAMPLES = Analysis(
    name="top_samples",
    section="2.3",
    title="What features are made of",
    question="Which {images} and {texts} activate features of each class most?",
    paper="Figures 1 to 3",
    targets=("section-2.3",),
    version=4,
    drawing=2,
    settings=Settings,
    columns={
        "samples": {
            "feature_set": "name of the feature set",
            "feature": "index of the feature",
            "class": "ImgD, TextD, CrossD or dead",
            "samples": "image or text",
            "rank": "rank of the sample by activation, from 0",
            "activation": "activation of the feature on the sample; negative if the negative side of the feature is shown",
            "row": "position of the pair in the split",
            "key": "key of the pair in the dataset; empty if the pairs have none",
            "caption": "caption of the pair",
        },
        "sheets": {
            "feature_set": "name of the feature set",
            "feature": "index of a feature that is on a contact sheet",
            "class": "ImgD, TextD, CrossD or dead",
            "mds": "R(d) of Eq. 1, between 0 (text) and 1 (image)",
            "side": "positive or negative: the side of 0 that the samples are taken from",
            "images": "number of images found that activate the feature, at most m",
            "texts": "number of texts found that activate the feature, at most m",
            "m": "number of samples asked for",
            "top_caption": "text that activates the feature most; empty if none does",
            "sheet": "file with the contact sheet of this feature alone",
        },
    },
    tables=[TableView("top_samples", "Features on contact sheets", sheet_rows)],
    figures=[
        FigureView(
            f"{{feature_set}}-{members}",
            f"{number}, {{feature_set}}: {{images}} and {{texts}} that activate these features most.",
        )
        for members, number in FIGURES.items()
    ],
    paper_setting=PaperSetting("figure1"),
    covers_all=True,
)
