"""Removal ablation: does classification suffer when a class of features is removed? (Section 2.2, Table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.formats import few_remarks, p_value, percent, points, random_remarks
from mmmono.reporting.published import published
from mmmono.reporting.result import Fields, Result, Rows

PAPERS_LABEL = "supercategory"


@dataclass(frozen=True)
class Settings:
    """Settings of the section `ablation`.

    Attributes:
        split: pairs that are classified; `auto` takes all if the dataset's split is a hash, else the dataset's split.
        max_pairs: about how many pairs are used at most; of more, a sample stratified by label is.
        folds: how many of the five 80/20 splits are used; None: all with fewer than 5,000 pairs, else one.
        n_random: random sets of features for each class.
        keep: the reverse ablation: keep only the class.
        refit: fit the classifier anew without the features; if False, only test without them.
    """

    split: str
    max_pairs: int
    folds: int | None
    n_random: int
    keep: bool
    refit: bool

    def __post_init__(self) -> None:
        # Checks its own settings; imported here, since it loads PyTorch.
        from mmmono.modality.ablation import AblationSettings

        if self.max_pairs < 1:
            raise ValueError(f"max_pairs={self.max_pairs} must be at least 1")
        AblationSettings(1 if self.folds is None else self.folds, self.n_random)


def table1_rows(result: Result, feature_set: str) -> Rows:
    """Table 1 for one feature set, beside the paper's numbers; without them if the classes were kept, not removed."""
    paper, keep = published("table1"), bool(result.recipe["ablation"]["keep"])
    rows: Rows = []
    for row in result.rows("table1"):
        if row["feature_set"] != feature_set:
            continue
        printed = {} if keep else paper.find(samples=row["task"], deletion=row["deletion"], size_of=row["size_of"])
        delta = printed.get("delta")
        rows.append(
            {
                "task": result.modalities.said(row["task"]),
                "kept" if keep else "deletion": result.modalities.said(row["deletion"]),
                "neurons": row["neurons"],
                "energy %": percent(row.get("energy")),
                "accuracy": "none" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
                "Δ none [95 %]": points(row, "delta_none"),
                "Δ random [95 %]": points(row, "delta_random"),
                "p (Holm)": p_value(row["p_holm"]),
                "|Δ random| <": percent(row["equivalence"]),
                "paper": f"{printed['accuracy']:.3f}" if printed else "",
                "paper Δ": f"{100 * delta:+.1f}" if delta is not None else "",
            }
        )
    return rows


def _fields(result: Result) -> Fields:
    return {"changed": "kept alone" if result.recipe["ablation"]["keep"] else "removed"}


def _remarks(result: Result) -> Iterator[str]:
    [samples] = result.rows("samples")
    left_out = f", left out: {samples['left_out']} (fewer than 5 pairs)" if samples["left_out"] else ""
    yield (
        f"{samples['pairs']} pairs, {samples['labels']} labels ({samples['label']}){left_out}; "
        "95 % intervals over test samples and random sets, not corrected; p: Holm's, over the classes of a task"
    )
    yield from random_remarks(result.recipe["random_sets"], result.rows("table1"))
    yield from few_remarks(result.recipe["ablation"]["n_random"], "random set", "ablation.n_random=5")


def _differences(result: Result) -> Iterator[tuple[str, str, str]]:
    paper, label = published("table1"), result.recipe["label"]
    papers = f"{paper.setting}, supercategories"
    same = paper.difference(result.model, result.dataset) is None and label == PAPERS_LABEL
    yield "Table 1", papers, papers if same else f"{result.model}, {result.dataset}, {label}"


ABLATION = Analysis(
    name="ablation",
    section="2.2",
    title="Removing a class",
    question=(
        "Does classifying {images} suffer from the loss of {ImgD}, and classifying {texts} from the loss of {TextD}, more "
        "than from the loss of as many and as active random features?"
    ),
    paper="Table 1",
    targets=("section-2.2",),
    version=6,
    settings=Settings,
    columns={
        "table1": {
            "feature_set": "name of the feature set",
            "task": "what is classified: image or text",
            "deletion": "None, Random, or the class that was removed; with ablation.keep, what was kept",
            "size_of": "class whose size says how many features were removed",
            "neurons": "number of features removed; with ablation.keep, kept",
            "energy": "share of the activations' energy, Σ z² over the samples of the task, that the features carry",
            "mismatch": "largest relative difference between what a random set is matched in and the class'; of Random",
            "spread": "standard deviation of the accuracy over random sets",
            "accuracy": "test accuracy; mean over random sets of Random; empty if the class is, or holds all live features",
            "accuracy_low": "lower end of its 95 % interval: Wilson over test samples; of Random over random sets too",
            "accuracy_high": "upper end of the same",
            "delta_none": "accuracy minus the one with all features",
            "delta_none_low": "lower end of its 95 % interval over test samples, and over random sets if there are some",
            "delta_none_high": "upper end of the same",
            "delta_random": "accuracy minus the mean one with random features like those of the class removed (or kept)",
            "delta_random_low": "lower end of its 95 % interval over test samples and random sets, as crossed factors",
            "delta_random_high": "upper end of the same",
            "p": "p-value of delta_random being 0",
            "p_holm": "the same, adjusted for the classes of the feature set and task (Holm 1979)",
            "equivalence": "with confidence .95, |delta_random| is below this (two one-sided tests); missing if not < 1",
        },
        "samples": {
            "pairs": "number of pairs that were classified",
            "labels": "number of different labels",
            "label": "column of the metadata with the labels",
            "left_out": "labels that were left out, with fewer than five pairs each, joined by commas",
        },
    },
    contrasts=[
        Contrast(
            "change of accuracy beyond random", "table1", "delta_random", of=("deletion",), family=("task",), points={}
        ),
    ],
    tables=[TableView("table1-{feature_set}", "Table 1, {feature_set}", table1_rows)],
    drawing=2,
    figures=[
        FigureView(
            "table1",
            "Change of accuracy when a class of features is {changed}, beside random ones like them; 95 % intervals.",
        )
    ],
    fields=_fields,
    remarks=_remarks,
    published="table1",
    paper_setting=PaperSetting(
        "table1", model="clip_vit_h14", dataset="coco", chooses=("model", "dataset", "features")
    ),
    split_setting="ablation.split",
    differences=_differences,
)
