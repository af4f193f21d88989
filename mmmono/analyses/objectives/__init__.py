"""Objectives for pairs on a model's own embeddings: reconstruction, sharedness, retrieval and stability, over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.prompts import check_prompt
from mmmono.reporting.formats import names, random_remarks, with_half_width
from mmmono.reporting.result import Fields, Result, Rows

CLASSES = ("ImgD", "CrossD", "TextD")
OUTCOMES = {"r1": "R@1", "r10": "R@10", "zero_shot": "zero-shot accuracy"}  # of what is left without a class


@dataclass(frozen=True)
class Settings:
    """Settings of the section `objectives`.

    Attributes:
        n_seeds: trainings of each dictionary with further seeds.
        max_pairs: number of pairs, at most, that reconstruction and retrieval are measured on; more are sampled.
        fdr: false discovery rate at which a latent counts as shared.
        n_random: random sets of latents like each class.
        n_chance: matchings of shuffled pairs, for the agreement of seeds by chance.
        n_halves: random halvings of the groups, for the noise of R(d).
        max_groups: number of groups, at most, of which latents are matched on one pair each.
        prompt: text of a class for zero-shot classification, with `{}` for its name.
    """

    n_seeds: int
    max_pairs: int
    fdr: float
    n_random: int
    n_chance: int
    n_halves: int
    max_groups: int
    prompt: str

    def __post_init__(self) -> None:
        for name, least in (("n_seeds", 1), ("max_pairs", 2), ("n_random", 2), ("n_chance", 1), ("n_halves", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0 < self.fdr < 1:
            raise ValueError(f"fdr={self.fdr} is no false discovery rate: give a rate between 0 and 1")
        if self.max_groups < 3:
            raise ValueError(f"max_groups={self.max_groups} must be at least 3: correlations need some pairs")
        check_prompt(self.prompt)


def latent_rows(result: Result) -> Rows:
    """Reconstruction, sparsity, and number of shared latents."""
    return _rows(result, {"fvu": ("FVU", 3), "l0": ("L0", 1), "dead": ("dead", 2), "shared": ("shared", 0)})


def dominance_rows(result: Result) -> Rows:
    """Spread of R(d), beside that by chance, and shares of the classes in percent."""
    spread = {"spread": ("σ of R(d)", 3), "chance_spread": ("by chance", 3)}
    return _rows(result, spread | {f"{of}_share": (f"{result.modalities.said(of)} %", 0) for of in CLASSES})


def stability_rows(result: Result) -> Rows:
    """Agreement of seeds: correlation of matched latents beside chance, and of R(d) corrected for noise and chance."""
    shown = {"match": ("match r", 2), "chance_match": ("by chance", 2), "stability": ("stability", 2)}
    return [row for row in _rows(result, shown) if row["match r"]]


def retrieval_rows(result: Result) -> Rows:
    """Retrieval by codes and by reconstructions."""
    shown = {"codes_r1": "codes' R@1", "codes_r10": "codes' R@10", "r1": "R@1", "r10": "R@10"}
    return _rows(result, {measure: (title, 3) for measure, title in shown.items()})


def removal_rows(result: Result) -> Rows:
    """What R@1 loses without each class, and without random latents like it, in points."""
    rows = []
    for name, found in _summary(result):
        for of in CLASSES:
            if f"change_r1 {of}" in found:
                changes = {
                    f"change_r1 {of}": "Δ R@1",
                    f"random_change_r1 {of}": "random",
                    f"beyond_r1 {of}": "difference",
                }
                row = {"feature set": name, "without": result.modalities.said(of)}
                row |= _cells(found, {f"features {of}": ("latents", 0)})
                rows.append({**row, **_cells(found, {key: (title, 1) for key, title in changes.items()}, 100)})
    return rows


def zero_shot_rows(result: Result) -> Rows:
    """Zero-shot accuracy in percent, and what it loses without each class beyond random latents like it, in points."""
    shown = {"zero_shot": ("zero-shot %", 1)}
    shown |= {f"beyond_zero_shot {of}": (f"− {result.modalities.said(of)}", 1) for of in CLASSES}
    rows = [{"feature set": name, **_cells(found, shown, 100)} for name, found in _summary(result)]
    return rows if any(row["zero-shot %"] for row in rows) else []


def _rows(result: Result, shown: Mapping[str, tuple[str, int]]) -> Rows:
    return [{"feature set": name, **_cells(found, shown)} for name, found in _summary(result)]


def _summary(result: Result) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each feature set, with its rows of the summary by measure, or by measure and class."""
    rows = result.rows("summary")
    for name in names(rows):
        yield name, {f"{row['measure']} {row['of']}".strip(): row for row in rows if row["feature_set"] == name}


def _cells(found: Mapping[str, Any], shown: Mapping[str, tuple[str, int]], scale: float = 1.0) -> dict[str, str]:
    """Means with half of their intervals, by title; shares in percent; those by chance alone; empty if there is none."""
    cells = {}
    for measure, (title, digits) in shown.items():
        row = dict(found.get(measure, {"mean": None}))
        if measure.startswith("chance"):
            row["mean_high"] = None
        cells[title] = with_half_width(row, digits, 100 if measure.endswith("_share") else scale)
    return cells


def _fields(result: Result) -> Fields:
    [pairs] = result.rows("samples")
    return {
        "seeds": str(1 + result.recipe["objectives"]["n_seeds"]), "fdr": f"{result.recipe['objectives']['fdr']:g}",
        "compared": f"{pairs['pairs']} pairs",
    }  # fmt: skip


def _remarks(result: Result) -> Iterator[str]:
    [pairs] = result.rows("samples")
    labels = f"; zero-shot among {pairs['labels']} labels ({pairs['label']})" if pairs["labels"] else ""
    yield f"{pairs['pairs']} pairs in {pairs['groups']} groups{labels}; ± is half of the 95 % interval over seeds alone"
    yield (
        f"classes to remove are chosen on half of the groups, and removed on {pairs['removal_pairs']} pairs of the other "
        f"half, in {pairs['removal_groups']} groups"
    )
    seeds = {
        name: [row["seed"] for row in result.rows("seeds") if row["feature_set"] == name]
        for name in names(result.rows("seeds"))
    }
    for name, own in seeds.items():
        if len(own) == 1:
            yield f"{name}: seed {own[0]} alone, since it is not trained"
    stability = [row for row in result.rows("summary") if row["measure"] == "stability"]
    if noisy := [row["feature_set"] for row in stability if row["mean"] is None]:
        yield f"no stability of {', '.join(noisy)}: R(d) is too noisy under at least one seed"
    without = [row["feature_set"] for row in result.rows("seeds") if row["space"] == "features"]
    for name in dict.fromkeys(without):
        yield f"{name} has no decoder: R@k and zero-shot are of its codes"
    yield from random_remarks(result.recipe["random_sets"], result.rows("removals"))


_PLACE = {"feature_set": "name of the feature set: the objective"}
_WHERE = "in the space of the column space"

OBJECTIVES = Analysis(
    name="objectives",
    section="+",
    title="Which objective, on these embeddings?",
    question=(
        "Dictionaries of several objectives, with several seeds: what do they reconstruct, which latents do {images} and "
        "{texts} share, what do they retrieve without {ImgD}, {CrossD} or {TextD}, and what do other seeds find again? "
        "Not in the paper."
    ),
    paper="beyond the paper",
    targets=("objectives",),
    compares_own_sets=True,
    version=5,
    reads=("sharedness",),
    more_seeds="objectives.n_seeds",
    settings=Settings,
    columns={
        "seeds": {
            **_PLACE,
            "seed": "seed of the training",
            "space": "what is compared in retrieval and zero-shot: embeddings, reconstruction or features (no decoder)",
            "fvu": "fraction of variance unexplained on the sampled pairs, mean of both modalities; none without a decoder",
            "l0": "mean number of active latents of an image or a text of the sampled pairs (objectives.max_pairs)",
            "dead": "share of latents that are active on no pair of the split, in either modality",
            "live": "number of latents that enough groups of pairs activate (mds.min_pairs)",
            "shared": "live latents with a q-value of sharedness up to objectives.fdr, against broken pairs",
            "spread": "σ of the live latents' R(d)",
            "chance_spread": "σ to expect if no latent preferred a modality: the sides of each group swapped at random",
            **{f"{of}_share": f"share of the live latents that is {of}" for of in CLASSES},
            "codes_r1": "R@1 by the codes' cosine among the sampled pairs, mean of both directions",
            "codes_r10": "R@10 by the codes' cosine",
            "codes_zero_shot": "accuracy of zero-shot classification by codes; none without labels",
            "r1": f"R@1 {_WHERE}",
            "r10": f"R@10 {_WHERE}",
            "zero_shot": f"accuracy of zero-shot classification {_WHERE}; none without labels",
        },
        "removals": {
            **_PLACE,
            "seed": "seed of the training",
            "of": "class whose latents are removed: ImgD, CrossD or TextD; one without latents is left out",
            "features": "number of these latents; they are classified on half of the groups, and removed on the other half",
            "energy": "share of the energy Σ ‖z · atom‖² over both modalities that they carry",
            "random_energy": "mean share of the energy that the random sets carry",
            "mismatch": "largest relative difference between what a random set is matched in and the class'",
            **{
                column: text
                for measure, title in OUTCOMES.items()
                for column, text in {
                    f"before_{measure}": f"{title} with all latents, on the pairs that the class is removed on",
                    measure: f"{title} without the class, {_WHERE}",
                    f"change_{measure}": f"{title} without the class minus that with all latents",
                    f"random_change_{measure}": "the same for random sets; empty if the class holds all live latents",
                    f"beyond_{measure}": f"change_{measure} minus random_change_{measure}",
                }.items()
            },
        },
        "agreement": {
            **_PLACE,
            "seed": "seed of one training",
            "other_seed": "seed of another one",
            "features": "number of latents that are live, as their matches are",
            "match": "mean correlation of live latents with their matches, within modalities, on scored pairs",
            "chance_match": "the same after matching on shuffled pairs",
            "rho": "rank correlation of R(d), both on all scored pairs",
            "chance_rho": "the same after matching on shuffled pairs",
            "ari": "adjusted Rand index of the classes",
            "chance_ari": "the same after matching on shuffled pairs",
            "across": "rank correlation of R(d) of one seed on half of the groups with that of the other seed on the rest",
            "chance_across": "the same after matching on shuffled pairs",
            "within": "rank correlation of R(d) between halves of the groups under one seed; none if not above chance",
        },
        "summary": {
            **_PLACE,
            "measure": "column of the table seeds, removals or agreement; or stability: (across − chance_across) / "
            "(within − chance_across), as of normal distributions: 0 as by chance, 1 as much as the noise of R(d) allows",
            "of": "class whose latents are removed; empty for columns of the other tables",
            "mean": "mean over seeds, or over pairs of seeds; of stability, from means over pairs of seeds: none if R(d) "
            "is too noisy under one of them",
            "mean_low": "lower end of the 95 % interval over seeds: t, or jackknife where pairs of seeds are compared",
            "mean_high": "upper end of the same; none with too few seeds, or if R(d) is too noisy under one of them",
            "seeds": "number of seeds",
        },
        "samples": {
            "pairs": "number of pairs that reconstruction and retrieval are measured on",
            "groups": "number of groups of these pairs",
            "removal_pairs": "number of them that classes are removed on: those by which no latent is classified",
            "removal_groups": "number of groups of these",
            "labels": "number of labels among which images are classified; 0 without",
            "label": "column of the metadata with the labels; empty without",
        },
    },
    tables=[
        TableView("objectives", "Latents of each objective, {seeds} seeds (shared: q ≤ {fdr})", latent_rows),
        TableView("objectives-dominance", "Modality dominance of these latents", dominance_rows),
        TableView("objectives-stability", "Agreement of {seeds} seeds", stability_rows),
        TableView("objectives-retrieval", "Retrieval among {compared} by codes and by reconstructions", retrieval_rows),
        TableView("objectives-classes", "R@1 without a class, in points", removal_rows),
        TableView("objectives-zero-shot", "Zero-shot, and without a class beyond random, in points", zero_shot_rows),
    ],
    figures=[
        FigureView(
            "objectives",
            "Reconstruction, dead and shared latents, spread of R(d) (tick: by chance), R@1 and stability: means and 95 % "
            "intervals over seeds.",
        ),
        FigureView(
            "objectives-classes",
            "Change of R@1 without the latents of each class (filled) and without random latents like them (open): means "
            "and 95 % intervals over seeds.",
        ),
    ],
    fields=_fields,
    remarks=_remarks,
    embeds_labels=True,
)
