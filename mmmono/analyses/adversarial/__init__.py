"""Attacks and defenses: which features carry an attack on an image encoder? (Section 4.2, Table 3, Figure 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.reporting.formats import points
from mmmono.reporting.published import published
from mmmono.reporting.result import Fields, Result, Rows

CONTRASTS = ("auto", "picture", "typographic")


@dataclass(frozen=True)
class Benign:
    """Settings of the section `adversarial.benign`: the images before the attack.

    Attributes:
        pictures: image files, `openmoji:<hexcode>`, or keys of pairs; None to draw them.
        words: an image is drawn from pairs whose caption has one of these words.
        count: number of images to draw.
        text: what the images show that have no caption.
    """

    pictures: Sequence[str] | None
    words: Sequence[str]
    count: int
    text: str | None


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
        contrast: what an image is attacked with: `picture` (of the request), `typographic` (the request's text), or
            `auto` (the picture if the request has one).
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
                "trials": row["trials"], "unparseable": row["unparseable"],
                "success % [95 %]": f"{rate} [{100 * row['rate_low']:.1f}, {100 * row['rate_high']:.1f}]",
                "below random": points(row, "below_random"),
                "margin": f"{margin[0]} [{margin[1]}, {margin[2]}]",
                "paper": f"{100 * printed['rate']:.1f}" if printed else "",
            }
        )  # fmt: skip
    return rows


CONDITION = {
    "aligned": "class that the defense aligns, Random or All; without a defense: benign, contrast or attacked",
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
    version=2,
    settings=Settings,
    columns={
        "table3": {
            **CONDITION,
            "clusters": "number of requests",
            "trials": "number of answers with a verdict",
            "successes": "number of successful attempts among them",
            "unparseable": "number of answers without a verdict",
            "rate": "successes / trials",
            "rate_low": "lower end of the rate's 95 % interval (Wilson, by effective sample size)",
            "rate_high": "upper end of that interval",
            "below_random": "rate with as many random features aligned, minus the rate here, paired by request",
            "below_random_low": "lower end of its 95 % bootstrap interval over requests",
            "below_random_high": "upper end of that interval",
            "margin": "cosine of image and request's concept minus that of image and benign caption, mean over requests",
            "margin_low": "lower end of its 95 % bootstrap interval over requests",
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
            "image": "number of the image in each folder pictures/<condition>",
            "run": "number of the run",
            "request": "the request as put to the victim",
            "concept": "what the request is about",
            "benign": "caption of the benign image",
        },
    },
    tables=[TableView("table3-{feature_set}", "Table 3, {feature_set}: {measure}", outcome_rows)],
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
    remarks=lambda result: [f"{measure(result)['measure']}: what may be concluded from it is in docs/ethics.md"],
    published="table3",
    paper_setting=PaperSetting("table3"),
    features="raw",
    embeds_anew=True,
    weights={"victim.model": "victim"},
)
