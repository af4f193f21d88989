"""Attacks and defenses: which features carry an attack on an image encoder? (Section 4.2, Table 3, Figure 8)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmmono.core.words import LETTERS
from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.formats import few_remarks, p_value, percent, points, random_remarks
from mmmono.reporting.published import published
from mmmono.reporting.result import Fields, Result, Rows

CONTRASTS = ("auto", "image", "typographic")


@dataclass(frozen=True)
class Benign:
    """Settings of the section `adversarial.benign`: the images before the attack.

    Attributes:
        images: image files, `openmoji:<hexcode>`, or keys of pairs; None to draw them.
        words: an image is drawn from pairs whose caption has one of these words, in lower case.
        count: number of images to draw.
        text: what the images show that have no caption.
    """

    images: Sequence[str] | None
    words: Sequence[str]
    count: int
    text: str | None

    def __post_init__(self) -> None:
        for word in self.words:
            if words_of(word) != [word]:
                raise ValueError(f"words has {word!r}, which no caption has: give single words in lower case")


def words_of(caption: str) -> list[str]:
    """The words of a caption that `Benign.words` are compared with."""
    return re.findall(rf"(?:_|{LETTERS})+", unicodedata.normalize("NFC", caption).lower())


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of the sections `adversarial.attack` and `adversarial.defense`.

    They are checked by `mmmono.case_studies.adversarial.alignment.Alignment`, which needs PyTorch.

    Attributes:
        steps: number of Adam steps.
        lr: learning rate, for pixels in [0, 1].
        epsilon: maximum change of a pixel; None for no limit.
    """

    steps: int
    lr: float
    epsilon: float | None


@dataclass(frozen=True)
class Settings:
    """Settings of the section `adversarial`.

    Attributes:
        requests: file with the requests; None for the harmless ones that are shipped.
        contrast: what an image is attacked with: `image` (of the request), `typographic` (the request's text), or
            `auto` (the image if the request has one).
        friendly_text: text on the benign images to which the defense aligns.
        runs: number of runs; each pairs the requests with other benign images and draws other features.
        sizes: numbers of aligned features, as shares of the smallest class.
        all_features: whether a further defense aligns all features.
        batch_size: number of images aligned at a time.
        shown: number of requests in Figure 8.
        benign: images before the attack.
        attack, defense: how pixels are optimized.
    """

    requests: str | None
    contrast: str
    friendly_text: str
    runs: int
    sizes: Sequence[float]
    all_features: bool
    batch_size: int
    shown: int
    benign: Benign
    attack: AlignmentSettings
    defense: AlignmentSettings

    def __post_init__(self) -> None:
        for name in ("runs", "batch_size", "shown"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.contrast not in CONTRASTS:
            raise ValueError(f"contrast={self.contrast} is none of {', '.join(CONTRASTS)}")
        if not self.sizes or not all(0 < size <= 1 for size in self.sizes):
            raise ValueError(f"sizes={list(self.sizes)} must be shares of the smallest class, in (0, 1]")


def measure(result: Result) -> Fields:
    """Name of the success measure, which depends on the victim: see docs/ethics.md."""
    return {"measure": result.recipe["victim"]["measure"]}


def outcome_rows(result: Result, feature_set: str) -> Rows:
    """Table 3 for one feature set, and the conditions without a defense."""
    paper = published("table3")
    rows: Rows = []
    for row in result.rows("table3"):
        if row["feature_set"] not in ("", feature_set):
            continue
        printed = paper.find(aligned=row["aligned"])
        rate = "–" if row["rate"] is None else f"{100 * row['rate']:.1f}"  # no answer had a verdict
        # There is no interval with a single request.
        margin = ["–" if row[key] is None else f"{row[key]:+.2f}" for key in ("margin", "margin_low", "margin_high")]
        rows.append(
            {
                "aligned": f"{row['aligned']} {row['features']}" if row["features"] else row["aligned"],
                "energy %": percent(row.get("energy")), "trials": row["trials"], "unparseable": row["unparseable"],
                "success % [95 %]": f"{rate} [{100 * row['rate_low']:.1f}, {100 * row['rate_high']:.1f}]",
                "below random": points(row, "below_random"), **_comparison(row),
                "margin": f"{margin[0]} [{margin[1]}, {margin[2]}]",
                "paper": f"{100 * printed['rate']:.1f}" if printed else "",
            }
        )  # fmt: skip
    return rows


def _comparison(row: Mapping[str, Any]) -> dict[str, str]:
    """What may be concluded from the comparison with random features; empty where there is none."""
    p, within, seen = (row[key] for key in ("p_holm", "equivalence", "detectable"))
    return {
        "p (Holm)": p_value(p),
        "|below| <": "" if within is None else f"{100 * within:.0f}",
        "seen from": "" if seen is None else f"{100 * seen:.0f}",
    }


def remarks(result: Result) -> Iterator[str]:
    """What the intervals are over, what was compared, and what random features are."""
    yield f"{measure(result)['measure']}: what may be concluded from it is in docs/ethics.md"
    rows = result.rows("table3")
    images = max((row["images"] for row in rows), default=0)
    requests = max((row["requests"] for row in rows), default=0)
    over = "over requests and benign images" if images > 1 else "over requests, for the one benign image alone"
    yield (
        f"95 % intervals {over}; p: Holm's, over the comparisons of a feature set; |below| <: shown with confidence .95, "
        "in points; seen from: a difference that would be found with a power of .8; empty: only one of more than 100"
    )
    yield from few_remarks(requests, "request", "adversarial.requests takes a file with more")
    if images > 1:  # of one it is said above
        yield from few_remarks(images, "benign image", "adversarial.benign.count=8 and adversarial.runs=2 have more")
    yield from random_remarks(result.recipe["random_sets"], rows)


CONDITION = {
    "aligned": "class that a defense aligns, Random-<class>, Random or All; without a defense: benign, contrast, attacked",
    "feature_set": "name of the defense's feature set; empty without a defense",
    "features": "number of aligned features",
}

ADVERSARIAL = Analysis(
    name="adversarial",
    section="4.2",
    title="Adversarial samples",
    question="Which features of an attacked image must be aligned with a benign one's for the attack to fail?",
    paper="Table 3, Figure 8",
    targets=("section-4.2", "appendix-a.4"),
    version=9,
    settings=Settings,
    columns={
        "table3": {
            **CONDITION,
            "share": "share of the smallest class that so many features are, of adversarial.sizes; none for All",
            "energy": "share of the activations' energy on images, Σ z², that the aligned features carry; mean over runs",
            "mismatch": "largest relative difference between what a random set is matched in and the class'; of Random",
            "requests": "number of requests",
            "images": "number of benign images",
            "trials": "number of answers with a verdict",
            "successes": "number of successful attempts among them",
            "unparseable": "number of answers without a verdict",
            "rate": "successes / trials",
            "rate_low": "lower end of the rate's 95 % interval (Wilson, by effective sample size)",
            "rate_high": "upper end of that interval",
            "below_random": "rate with random features like these aligned, minus the rate here, paired by request and image",
            "below_random_low": "lower end of its 95 % interval over requests and benign images",
            "below_random_high": "upper end of that interval",
            "p": "p-value of below_random being 0",
            "p_holm": "the same, adjusted for all of these comparisons of the feature set (Holm 1979)",
            "equivalence": "with confidence .95, |below_random| is below this (two one-sided tests); missing if not < 1",
            "detectable": "|below_random| that would be found to differ from 0 with a power of .8; missing if above 1",
            "margin": "cosine of image and request's concept minus that of image and benign caption; mean",
            "margin_low": "lower end of its 95 % interval over requests and benign images",
            "margin_high": "upper end of that interval",
            "distance_before": "mean distance to the alignment's target before the first step",
            "distance_after": "mean distance to it after the last step",
        },
        "distances": {
            **CONDITION,
            "step": "number of optimization steps so far",
            "distance": "mean distance to the alignment's target over images",
        },
        "cases": {
            "image": "number of the image in each folder images/<condition>",
            "run": "number of the run",
            "request": "the request as put to the victim",
            "concept": "what the request is about",
            "benign": "caption of the benign image",
        },
    },
    contrasts=[Contrast("success below random", "table3", "below_random", of=("share", "aligned"), points={})],
    tables=[TableView("table3-{feature_set}", "Table 3, {feature_set}: {measure}", outcome_rows)],
    drawing=2,
    figures=[
        FigureView(
            "{feature_set}-figure8",
            "Figure 8, {feature_set}: images before, attacked and defended; distances over the steps.",
        ),
        FigureView(
            "{feature_set}-sizes", "{feature_set}: {measure} by the number of aligned features; 95 % intervals."
        ),
    ],
    fields=measure,
    remarks=remarks,
    published="table3",
    paper_setting=PaperSetting("table3"),
    features="raw",
    embeds_anew=True,
    split_setting="auto",
    weights={"victim.model": "victim"},
)
