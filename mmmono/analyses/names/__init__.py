"""Names: what is this feature, and does its name tell where it is active? (beyond Section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Fields, Result, Rows

SHOWN = 5  # names of a class in the table

SIDES = ("image", "text")
SOURCES = ("vocabulary", "judge")  # of names


@dataclass(frozen=True)
class Settings:
    """Settings of the section `names`.

    Attributes:
        vocabulary: `captions`, the captions' own words and phrases, or a text file with a word or phrase a line.
        phrase: words in a phrase of the captions, at most.
        min_groups: groups of pairs whose captions have a word, at least.
        max_share: share of the groups that may have it, at most.
        size: words and phrases of the captions, at most, the most frequent ones.
        embeddings: where words lie: by the model's text tower (`model`), or where the pairs lie whose caption has the word
            (`captions`); `auto`: by the model, unless the embeddings were there before it, as of dataset=store.
        directions: where features lie: at the samples that activate them (`samples`), or at their decoder atoms (`atoms`) if
            they have any.
        candidates: nearest words among which the name is chosen.
        unique: whether no two features of a set have the same name.
        image_text: metadata column that says what an image shows.
        active_share: the strongest samples that count as active, as a share of a modality.
        max_pairs: pairs that names are chosen by, and pairs that they are tested on, at most.
        fdr: false discovery rate among the features with a name.
        samples: with a judge, samples of either kind that it sees of a feature.
        judged: with a judge, features of a set that it is asked about, at most; None for all.
    """

    vocabulary: str
    phrase: int
    min_groups: int
    max_share: float
    size: int
    embeddings: Literal["auto", "model", "captions"]
    directions: Literal["samples", "atoms"]
    candidates: int
    unique: bool
    image_text: str
    active_share: float
    max_pairs: int
    fdr: float
    samples: int
    judged: int | None

    def __post_init__(self) -> None:
        for name in ("phrase", "min_groups", "size", "candidates", "max_pairs", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.judged is not None and self.judged < 1:
            raise ValueError(f"judged={self.judged} must be at least 1, or null for all features")
        for name in ("max_share", "active_share", "fdr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share: give a number between 0 and 1")
        for name, known in (("embeddings", ("auto", "model", "captions")), ("directions", ("samples", "atoms"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)} is none of {', '.join(known)}")


def summary_rows(result: Result) -> Rows:
    """How many features of each class have a name that holds, and how well names detect them."""
    return headed(
        [
            {
                "feature_set": row["feature_set"], "class": row["class"],
                "named": f"{row['named']} of {row['tested']} tested",
                **{
                    _on(result, side): ""
                    if row[f"auroc_{side}"] is None
                    else f"{row[f'auroc_{side}']:.3f} ({row[f'chance_{side}']:.3f})"
                    for side in SIDES
                },
            }
            for row in result.rows("summary")
        ],
        result.modalities,
    )  # fmt: skip


def name_rows(result: Result, feature_set: str) -> Rows:
    """The names of each class that detect their feature best, with the words nearest to it on either side."""
    rows = [row for row in result.rows("names") if row["feature_set"] == feature_set]
    best = [row for of in ("ImgD", "TextD", "CrossD") for row in best_names(rows, of)[:SHOWN]]
    return [
        {
            "feature": row["feature"], "class": result.modalities.said(row["class"]), "name": row["name"],
            **{_on(result, side): with_bounds(row, f"auroc_{side}") for side in SIDES},
            f"nearest among {result.modalities.said('images')}": _first(row["image_words"]),
            f"among {result.modalities.said('texts')}": _first(row["text_words"]),
        }
        for row in best
    ]  # fmt: skip


def _on(result: Result, side: str) -> str:
    """Heading of the AUROC on a side."""
    return f"AUROC on {result.modalities.said(f'{side}s')}"


def judge_rows(result: Result) -> Rows:
    """How often a judge's name wins against that of the vocabulary, by class; none without a judge."""
    if not result.has("judged"):
        return []
    found: dict[tuple[str, str], list[dict[str, dict[str, Any]]]] = {}
    by_feature: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in result.rows("judged"):
        by_feature.setdefault((row["feature_set"], row["feature"]), {})[row["by"]] = row
    for (feature_set, _), rows in by_feature.items():
        for of in (rows["judge"]["class"], "live"):
            found.setdefault((feature_set, of), []).append(rows)
    order = ["ImgD", "TextD", "CrossD", "live"]
    sets = list(dict.fromkeys(feature_set for feature_set, _ in found))
    shown = sorted(found, key=lambda place: (sets.index(place[0]), order.index(place[1])))
    return headed([_judged_row(*place, found[place]) for place in shown], result.modalities)


def _judged_row(feature_set: str, of: str, features: list[dict[str, dict[str, Any]]]) -> dict[str, object]:
    """One row of that table: counts, and the mean difference of both names' AUROCs with its interval over features."""
    import numpy as np

    from mmmono.core.statistics import t_mean  # not at the top, because it loads SciPy

    both = [rows for rows in features if all(rows[source]["auroc"] is not None for source in SOURCES)]
    means = {source: sum(rows[source]["auroc"] for rows in both) / max(1, len(both)) for source in SOURCES}
    difference = ""
    if both:
        estimate = t_mean(np.array([rows["judge"]["auroc"] - rows["vocabulary"]["auroc"] for rows in both]))
        bounds = estimate.of_shares(len(both), limit=1.0).interval()
        difference = f"{estimate.value:+.3f}" + (f" [{bounds.low:+.3f}, {bounds.high:+.3f}]" if bounds.bounded else "")
    return {
        "feature_set": feature_set, "class": of, "asked": len(features),
        "replies with a name": sum(rows["judge"]["name"] != "" for rows in features),
        "judge wins": sum(bool(rows["judge"]["wins"]) for rows in features),
        "same name": sum(rows["judge"]["name"] == rows["vocabulary"]["name"] != "" for rows in features),
        "AUROC, vocabulary": f"{means['vocabulary']:.3f}" if both else "",
        "AUROC, judge": f"{means['judge']:.3f}" if both else "", "difference [95 %]": difference,
    }  # fmt: skip


def best_names(rows: Rows, members: str) -> Rows:
    """Rows of a class whose names hold, each name once, those with the highest lower end of the interval first."""
    found: dict[str, dict[str, Any]] = {}
    mine = [row for row in rows if row["class"] == members and row["named"]]
    for row in sorted(mine, key=lambda row: -row[f"auroc_{side_of(row)}_low"]):
        found.setdefault(row["name"], row)
    return list(found.values())


def side_of(row: dict[str, Any]) -> str:
    """Side on which a name is judged: that of its class; of CrossD the one with the larger lower end."""
    if row["class"] != "CrossD":
        return "image" if row["class"] == "ImgD" else "text"
    return max(SIDES, key=lambda side: row[f"auroc_{side}_low"] or 0.0)


def _first(words: str) -> str:
    """The nearest word of a list."""
    return words.split(", ")[0]


def with_bounds(row: dict[str, Any], key: str) -> str:
    """Format an estimate with its interval; empty if there is none."""
    if row[key] is None:
        return ""
    return f"{row[key]:.2f} [{row[f'{key}_low']:.2f}, {row[f'{key}_high']:.2f}]"


def _embedder(result: Result) -> str:
    name = str(result.recipe["embedder"]).rpartition("-")[0]
    return name if result.recipe["independent"] else f"{name}, not independent of {result.model}"


def _fields(result: Result) -> Fields:
    judge = result.recipe.get("judge", {}).get("model", "")
    return {"embedder": _embedder(result), "fdr": f"{result.recipe['names']['fdr']:g}", "judge": judge}


def _remarks(result: Result) -> Iterator[str]:
    images = result.modalities.said("images")
    yield f"AUROC on held-out pairs, and in parentheses that of the names of other features; {images} by their captions"
    from mmmono.interpretability.detection import LEAST_ACTIVE  # not at the top, because it loads PyTorch

    for row in result.rows("summary"):
        if row["class"] == "live" and row["tested"] < row["features"]:
            yield (
                f"{row['feature_set']}: {row['features'] - row['tested']:,} of {row['features']:,} live features are not "
                f"tested: they have no name, or fewer than {LEAST_ACTIVE} groups of held-out pairs activate them (or do "
                "not) on the side of their class. That says nothing of these features; more pairs would"
            )
    if not result.recipe["independent"]:
        yield f"the embedder is not independent of the model ({_embedder(result)}): embedder=words is"
    elif _embedder(result) == "words":
        yield "embedder=words knows no synonyms; a sentence encoder does: embedder=offline or paper"


def _detection_columns() -> dict[str, str]:
    columns: dict[str, str] = {}
    for side in SIDES:
        by = f"the {side}s' captions" if side == "image" else "the texts"
        columns |= {
            f"auroc_{side}": f"AUROC of active against inactive held-out {side}s, by the likeness of {by} to the name",
            f"auroc_{side}_low": f"lower end of its 95 % interval, by groups of {side}s",
            f"auroc_{side}_high": f"upper end of its 95 % interval, by groups of {side}s",
            f"chance_{side}": "mean AUROC of other features' names in its place; if they are fewer than 50, of words too",
            f"better_{side}": "share of these names that detect the feature at least as well",
            f"active_{side}": f"number of active held-out {side}s",
        }
    return columns


NAMES = Analysis(
    name="names",
    section="+",
    title="Names of features",
    question=(
        "What is a feature, and can its name be trusted? Each feature's nearest words, and whether the name tells, on pairs "
        "that it was not chosen by, which samples activate the feature. Not in the paper."
    ),
    paper="beyond 2.3",
    targets=("names",),
    version=4,
    settings=Settings,
    columns={
        "names": {
            "feature_set": "name of the feature set",
            "feature": "index of the feature",
            "class": "ImgD, TextD, CrossD or dead",
            "name": "the word or phrase that is its name; empty if there is none",
            "named": "whether the name holds: its q-value is at most names.fdr",
            "by": "where the name is from, vocabulary or judge; only with a judge",
            "image_words": "words nearest to it among images, nearest first",
            "text_words": "words nearest to it among texts, nearest first",
            **_detection_columns(),
            "p_value": "one-sided p-value of an AUROC above chance, on the side of the class; of CrossD on either side; 1 "
            "where more than 5 % of other names detect the feature at least as well; doubled where a judge named it, too",
            "q_value": "p-value adjusted for the number of features of the set (Benjamini and Hochberg)",
        },
        "summary": {
            "feature_set": "name of the feature set",
            "class": "ImgD, TextD, CrossD, or live for all of them",
            "features": "number of features in the class",
            "tested": "number of them with a name and enough held-out samples to test it",
            "named": "number of them whose name holds",
            **{f"auroc_{side}": f"mean AUROC on {side}s of those tested there" for side in SIDES},
            **{f"chance_{side}": f"mean AUROC on {side}s of other features' names" for side in SIDES},
        },
        "judged": {
            "feature_set": "name of the feature set",
            "feature": "index of a feature that the judge was asked about; only with a judge",
            "class": "ImgD, TextD or CrossD",
            "by": "where the name is from: vocabulary or judge",
            "name": "the name; empty if there is none",
            "auroc": "its AUROC on the side of the class, of CrossD the mean of both sides; empty if it was not tested",
            **{f"auroc_{side}": f"its AUROC on held-out {side}s; empty if it was not tested there" for side in SIDES},
            "wins": "whether it is the feature's name: the larger AUROC wins, of equal ones the vocabulary's",
        },
    },
    contrasts=[
        Contrast("names that hold", "summary", "named", of=("class",), kind="value"),
        Contrast("AUROC on images above others", "summary", "auroc_image", of=("class",), minus="chance_image"),
        Contrast("AUROC on texts above others", "summary", "auroc_text", of=("class",), minus="chance_text"),
    ],
    tables=[
        TableView("names", "Features whose name holds (q ≤ {fdr}); embedder {embedder}", summary_rows),
        TableView("names-{feature_set}", "Names of {feature_set} that hold best, by class", name_rows),
        TableView("names-judge", "Names by the judge {judge} against those of the vocabulary", judge_rows),
    ],
    figures=[
        FigureView(
            "names",
            "How well its name detects each feature on held-out {images} and {texts} (AUROC, ½ by chance), by class. Pale: "
            "not shown to be better than chance and than other names; unnamed. At the left or lower edge: too rare among "
            "{texts} or {images} to be tested.",
        ),
        FigureView(
            "best_names",
            "The names of each class that detect their features best on held-out pairs, with 95 % intervals; blue: {ImgD}, "
            "orange: {TextD}, gray: {CrossD}; black: the names of other features in their place. They are the best of many, "
            "which the intervals do not allow for.",
        ),
    ],
    fields=_fields,
    remarks=_remarks,
    covers_all=True,
    embeds_anew=True,
    histograms=("names/auroc_image", "names/auroc_text"),
)
