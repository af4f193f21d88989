"""Concepts in images and texts: is a concept, such as gender, carried by ImgD or TextD? (Section 4.1, Appendix A.4.1).

The paper compares female and male; any pair of concepts works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmmono.core.text import file_name
from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.formats import p_value, percent, points, random_remarks
from mmmono.reporting.published import published
from mmmono.reporting.result import Fields, Result, Rows

SPACES = ("features", "embeddings")
WORDS = 8  # shown of each bin of Table 6


@dataclass(frozen=True)
class Settings:
    """Settings of the section `gender`.

    Attributes:
        split: split whose pairs are labeled; `auto` means all pairs, or `dataset.split` if the dataset has native splits.
        confidence: least confidence of the labels of references.
        references: number of references of each concept in each draw.
        draws: number of random draws of references and features.
        space: where cosines are measured: of the features, or of the embeddings that they decode to.
        min_samples: least number of samples of each concept.
        top: number of most activated features of a sample, among which the share of a class is counted.
        shown: number of images in Figure 7; 0 leaves it out, so that no image is needed.
        bins: number of groups of texts in Table 6.
    """

    split: str
    confidence: float
    references: int
    draws: int
    space: str
    min_samples: int
    top: int
    shown: int
    bins: int

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"space={self.space} is none of {', '.join(SPACES)}")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence={self.confidence} must lie between 0 and 1")
        for name, least in (("references", 1), ("draws", 1), ("top", 1), ("shown", 0), ("bins", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")


def removal_rows(result: Result, feature_set: str) -> Rows:
    """Table 2 for one feature set."""
    paper, said = published("table2"), result.modalities.said
    rows: Rows = []
    for row in result.rows("table2"):
        if row["feature_set"] != feature_set:
            continue
        printed = paper.find(samples=row["samples"], removed=row["removed"], concept=row["concept"])
        rows.append(
            {
                "from": said(row["samples"]), "concept": row["concept"],
                "removed": f"{removed_name(row['removed'], said)} {row['neurons']}",
                "energy %": percent(row.get("energy")), "accuracy": percent(row["baseline"]),
                "drop [95 %]": points(row, "drop"),
                "beyond random": points(row, "beyond_random"),
                "p (Holm)": p_value(row["p_holm"]),
                "|beyond| <": percent(row["equivalence"]),
                "paper's drop": f"{100 * printed['drop']:.1f}" if printed else "",
            }
        )  # fmt: skip
    return rows


def paired_rows(result: Result, feature_set: str) -> Rows:
    """Each class's share of the difference between samples that differ only in the concept."""
    said = result.modalities.said
    return [
        {
            "samples": said(row["samples"]), "class": said(row["class"]), "share of difference": row["share"],
            "share of energy": row["energy"],
            "ratio": row["enrichment"], "from": row["enrichment_low"], "to": row["enrichment_high"],
        }
        for row in (result.rows("paired") if result.has("paired") else ())
        if row["feature_set"] == feature_set
    ]  # fmt: skip


def word_rows(result: Result, feature_set: str) -> Rows:
    """Table 6: words of a concept's texts, binned by their share of TextD; no rows if there are too few words."""
    scores = result.table("table6")
    words = scores[(scores["feature_set"] == feature_set) & (scores["count"] > 0)]
    return [
        {
            f"{result.modalities.said('TextD')} share": f"{low:.2f} to {high:.2f}",
            "most distinctive": ", ".join(part.nlargest(WORDS, "z")["word"]),
            "most frequent": ", ".join(part.nlargest(WORDS, "count")["word"]),
        }
        for (_, low, high), part in words.groupby(["group", "low", "high"])
    ]


def removed_name(removed: str, said: Callable[[str], str]) -> str:
    """What is removed, such as Random-ImgD, with its class called by its name."""
    return "-".join(map(said, removed.split("-")))


def fields(result: Result) -> Fields:
    """Names of the concepts, both as part of a file name, and the number of pairs in the paired test."""
    a, b = result.recipe["concept"]["a"], result.recipe["concept"]["b"]
    paired = result.rows("paired") if result.has("paired") else []
    pairs = paired[0]["pairs"] if paired else 0
    return {"a": a, "b": b, "concepts": file_name(f"{a}-{b}"), "pairs": str(pairs)}


def remarks(result: Result) -> Iterator[str]:
    """Say how many pairs were labeled, and by what."""
    concept, (counts,) = result.recipe["concept"], result.rows("labels")
    labeled = (
        f"{counts['a']} {concept['a']} and {counts['b']} {concept['b']}, of each group one with either label; "
        f"{counts['ambiguous']} ambiguous of {counts['of']} asked"
    )
    yield f"{labeled}; labels are what captions or a classifier say: see docs/ethics.md"
    yield (
        "95 % intervals over samples and references, not corrected; p: Holm's, over the comparisons of a feature set with "
        "random"
    )
    yield from random_remarks(result.recipe["random_sets"], result.rows("table2"))


def differences(result: Result) -> Iterator[tuple[str, str, str]]:
    """The concepts and their labels beside the paper's."""
    concept = result.recipe["concept"]
    here = f"{concept['a']} and {concept['b']}, by {result.recipe['labels']}"
    yield "concept (4.1)", "female and male, by an image classifier", here


GENDER = Analysis(
    name="gender",
    section="4.1",
    title="Concepts in images and texts",
    question="Is a concept, such as gender, carried by the {image} ({ImgD}) or by the {text} ({TextD})?",
    paper="Table 2, Figure 7, Table 6",
    targets=("section-4.1", "appendix-a.4"),
    version=8,
    drawing=3,
    settings=Settings,
    columns={
        "table2": {
            "feature_set": "name of the feature set",
            "samples": "modality of the classified samples, from which features were removed",
            "concept": "true concept of the classified samples",
            "removed": "ImgD or TextD, whose features were removed; Random-<class> or Random: random ones like them",
            "neurons": "number of features removed",
            "energy": "share of the activations' energy, Σ z² over the samples, that they carry; mean over draws",
            "mismatch": "largest relative difference between what a random set is matched in and the class'; of Random",
            "baseline": "accuracy with all features, between 0 and 1; mean over draws",
            "baseline_low": "lower end of its 95 % interval over samples and references",
            "baseline_high": "upper end of its 95 % interval over samples and references",
            "drop": "fall of the accuracy without the features; mean over draws",
            "drop_low": "lower end of its 95 % interval over samples and references",
            "drop_high": "upper end of its 95 % interval over samples and references",
            "beyond_random": "drop minus that of random features like them in the same draws; none for Random",
            "beyond_random_low": "lower end of its 95 % interval over samples and references",
            "beyond_random_high": "upper end of its 95 % interval over samples and references",
            "p": "p-value of beyond_random being 0",
            "p_holm": "the same, adjusted for all of these comparisons of the feature set (Holm 1979)",
            "equivalence": "with confidence .95, |beyond_random| is below this (two one-sided tests); missing if not < 1",
        },
        "paired": {
            "feature_set": "name of the feature set",
            "samples": "modality of the samples",
            "class": "class of features: ImgD, TextD or CrossD",
            "share": "share of the class in the squared difference between samples that differ only in the concept",
            "energy": "share of the class in the squared norm of the activations",
            "enrichment": "share divided by energy",
            "enrichment_low": "lower end of its 95 % jackknife interval over pairs of samples",
            "enrichment_high": "upper end of its 95 % jackknife interval over pairs of samples",
            "pairs": "number of pairs of samples that differ only in the concept",
        },
        "figure7": {
            "feature_set": "name of the feature set",
            "rank": "place of the image in the figure, from left to right",
            "row": "row of the image in the split; images/<row>.png shows it",
            "share": "share of ImgD among the image's most activated features",
        },
        "table6": {
            "feature_set": "name of the feature set",
            "low": "lowest share of TextD in the group of texts",
            "high": "highest share of TextD in the group of texts",
            "group": "index of the group of texts, by share of TextD",
            "word": "the word in lower case",
            "count": "occurrences in the group",
            "elsewhere": "occurrences in the other groups",
            "z": "log-odds ratio of the word against the other groups, divided by its standard error",
        },
        "groups": {
            "feature_set": "name of the feature set",
            "group": "index of the group of texts, by share of TextD",
            "low": "lowest share of TextD in the group",
            "high": "highest share of TextD in the group",
            "texts": "number of texts",
        },
        "labels": {
            "a": "number of samples of the first concept",
            "b": "number of samples of the second concept",
            "confident": "samples of either that may be references",
            "ambiguous": "pairs without a label, because both concepts fit, or a classifier is sure of neither",
            "missing": "pairs without a label, because their image is missing",
            "of": "number of images asked; of each group, one with either label counts",
        },
    },
    contrasts=[
        Contrast("times its share of energy", "paired", "enrichment", ("samples", "class"), kind="ratio"),
        Contrast(
            "accuracy lost beyond random", "table2", "beyond_random", of=("samples", "concept", "removed"), points={}
        ),
    ],
    tables=[
        TableView("table2-{concepts}-{feature_set}", "Table 2, {feature_set}: {a} and {b}", removal_rows),
        TableView(
            "paired-{concepts}-{feature_set}",
            "Paired test, {feature_set}: {pairs} pairs that differ in the concept alone",
            paired_rows,
        ),
        TableView("table6-{concepts}-{feature_set}", "Table 6, {feature_set}: words of {b} {texts}", word_rows),
    ],
    figures=[
        FigureView(
            "{feature_set}-table2",
            "Table 2, {feature_set}: {a} and {b}; fall of accuracy when a class is removed, beside random features.",
        ),
        FigureView(
            "{feature_set}-figure7",
            "Figure 7, {feature_set}: {a} {images} by the share of {ImgD} among their most activated features.",
        ),
        FigureView("{feature_set}-table6", "Table 6, {feature_set}: words of {b} {texts} by the share of {TextD}."),
    ],
    fields=fields,
    remarks=remarks,
    published="table2",
    paper_setting=PaperSetting("table2"),
    features="sae",
    one_for_each="concept",
    split_setting="gender.split",
    weights={"labels.model": "classifier"},
    differences=differences,
)
