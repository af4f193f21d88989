"""Consequences: what do the modalities lose in common without a class of features? (beyond Section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmmono.core.modality_names import ModalityNames
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.contrasts import LEVEL, Contrast
from mmmono.pipeline.prompts import check_prompt
from mmmono.reporting.formats import few_remarks, names, p_value, percent, points, random_remarks, with_effective
from mmmono.reporting.headings import heading
from mmmono.reporting.result import Fields, Result, Rows

MEASURES = {
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "zero_shot": "zero-shot",
    "gap": "gap",
    "contrastive_loss": "loss",
    "effective_rank": "rank",
}
RECALLS = tuple(measure for measure in MEASURES if measure[1:].isdigit())  # r1 and so on
SHARES = frozenset(
    {"zero_shot", *(way + recall for way in ("", "i2t_", "t2i_") for recall in RECALLS)}
)  # shown in percent
ALL = "all"  # the row with all features
ENDS = ("", "_low", "_high")  # of the names of the columns of an estimate with an interval
VERBS = {"drop": "−", "keep": "only"}


@dataclass(frozen=True)
class Settings:
    """Settings of the section `consequences`.

    Attributes:
        max_pairs: number of pairs, at most; more are sampled. Classes are removed on those of them, about half, that are in
            the groups by which no feature is classified.
        shares: shares of a class that are dropped, or kept alone; ascending, the last is 1.
        n_random: random sets like the class at every share, and draws of its features at shares below 1.
        top: single features that are shown, for each feature set.
        temperature: of the contrastive loss.
        prompt: text of a class for zero-shot classification, with `{}` for its name.
    """

    max_pairs: int
    shares: Sequence[float]
    n_random: int
    top: int
    temperature: float
    prompt: str

    def __post_init__(self) -> None:
        # Checks shares and draws itself; imported here, since it loads PyTorch.
        from mmmono.features.pair_retrieval import LEAST_TEMPERATURE
        from mmmono.modality.consequences import RemovalPlan

        if self.max_pairs < 2:
            raise ValueError(f"max_pairs={self.max_pairs} must be at least 2")
        if self.top < 0:
            raise ValueError(f"top={self.top} must be at least 0")
        if self.temperature < LEAST_TEMPERATURE:
            raise ValueError(f"temperature={self.temperature} must be at least {LEAST_TEMPERATURE}")
        check_prompt(self.prompt)
        RemovalPlan(self.shares, self.n_random)


def _name(row: dict[str, Any], random: bool, modalities: ModalityNames) -> str:
    """What was changed, such as `− ImgD`, `only random` or `all`."""
    of = "random" if random else modalities.said(str(row["of"]))
    return f"{VERBS[str(row['change'])]} {of}" if row["of"] else ALL


def retrieval_rows(result: Result, feature_set: str) -> Rows:
    """R@1 of both ways with all features, without each class and with each alone, and with random sets like it."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in result.rows("effects"):
        if row["feature_set"] == feature_set:
            found.setdefault((row["change"], row["of"], row["like"]), {})[row["measure"]] = row
    rows: Rows = []
    for by_measure in found.values():
        row = by_measure["r1"]
        rows.append(
            {
                "set": _name(row, bool(row["like"]), result.modalities),
                "features": row["features"],
                "energy %": percent(row.get("energy")),
                heading("i2t_r1", result.modalities): percent(by_measure["i2t_r1"]["value"]),
                heading("t2i_r1", result.modalities): percent(by_measure["t2i_r1"]["value"]),
                "R@1 − random [95 %]": points(row, "delta_random"),
            }
        )
    return rows


def other_rows(result: Result, feature_set: str) -> Rows:
    """All other measures, in the same rows."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in result.rows("effects"):
        if row["feature_set"] == feature_set and row["measure"] in MEASURES and row["measure"] != "r1":
            place = (row["change"], row["of"], row["like"])
            shown = rows.setdefault(place, {"set": _name(row, bool(row["like"]), result.modalities)})
            value, title = row["value"], MEASURES[row["measure"]]
            shown[title] = percent(value) if row["measure"] in SHARES else "" if value is None else f"{value:.3g}"
    return list(rows.values())


def single_rows(result: Result, feature_set: str) -> Rows:
    """Features whose removal alone moves retrieval most; none that moves no query of the half that they are chosen by."""
    chosen = [row for row in result.rows("features") if row["feature_set"] == feature_set and _moves(row)]
    return [
        {
            "feature": row["feature"],
            "class": result.modalities.said(row["class"]),
            "MDS": row["mds"],
            "ΔMRR, chosen": f"{100 * row['selecting']:+.2f}",
            "ΔMRR, held out [95 %]": _fine_points(row, "held_out"),
            "ΔR@1": f"{100 * row['recall']:+.1f}",
        }
        for row in sorted(chosen, key=lambda row: int(row["place"]))
    ]


def _moves(row: dict[str, Any]) -> bool:
    """Whether a feature is among those of largest effect, and has any."""
    return row["place"] is not None and row["selecting"] != 0


def _fine_points(row: dict[str, float | None], key: str) -> str:
    value, low, high = ("" if row[key + end] is None else f"{100 * float(row[key + end] or 0):+.2f}" for end in ENDS)
    return f"{value} [{low}, {high}]" if low and high else value  # no bounds: too few groups


def _fields(result: Result) -> Fields:
    [pairs] = result.rows("samples")[:1]
    return {"measured": f"on {pairs['pairs']} pairs; classes by {pairs['classified_pairs']} others"}


def _standing(result: Result) -> Iterator[str]:
    """For each feature set, which classes' R@1 differs from that of random sets, by Holm's p over dropped or kept ones."""
    tested = [row for row in result.rows("effects") if row["measure"] == "r1" and row.get("p_holm") is not None]
    for name in names(tested):
        own = [(row["p_holm"], _name(row, False, result.modalities)) for row in tested if row["feature_set"] == name]
        there = [f"{of} (p {p_value(p)})" for p, of in own if p <= LEVEL]
        yield f"{name} {' and '.join(there) or f'none (p ≥ {p_value(min(own)[0])})'}"


def _remarks(result: Result) -> Iterator[str]:
    [pairs] = result.rows("samples")[:1]
    labels = f"; zero-shot among {pairs['labels']} labels ({pairs['label']})" if pairs["labels"] else ""
    groups = with_effective(pairs["groups"], pairs["effective_groups"])
    yield f"{pairs['pairs']} pairs in {groups}{labels}; R@k, zero-shot and MRR in %, their changes in points"
    chance = [f"{row['feature_set']} {100 * row['chance_r1']:.1f} %" for row in result.rows("samples")]
    if standing := ", ".join(_standing(result)):
        yield f"R@1 differs from that of random sets, by Holm's p over the classes dropped, or kept: {standing}"
        yield "intervals are over groups of pairs and random sets, and not corrected"
    yield f"R@1 by chance, since any target of the query's group is right: {', '.join(chance)}"
    yield (
        f"features are classified by {pairs['classified_pairs']} pairs in {pairs['classified_groups']} other groups, so "
        "that no class is removed on the pairs that it was chosen by"
    )
    there = {(row["feature_set"], bool(row["of"])) for row in result.rows("effects")}
    for row in result.rows("samples"):
        if (row["feature_set"], True) not in there:
            yield (
                f"{row['feature_set']}: nothing is removed, since no feature is in a class: none is activated by pairs of "
                f"{result.recipe['mds']['min_pairs']} of those {row['classified_groups']} groups: give more pairs, or lower "
                "mds.min_pairs"
            )
    single = [row for row in result.rows("features") if row["place"] is not None]
    moved = set(names(row for row in single if _moves(row)))
    for name in (name for name in names(single) if name not in moved):
        yield f"{name}: no single feature moves retrieval on the half of the queries that these are chosen by"
    agreements = [
        f"{row['feature_set']} {row['agreement']:.2f}" for row in result.rows("samples") if row["agreement"] is not None
    ]
    yield f"single features: their changes on two halves of the queries correlate: {', '.join(agreements) or 'none'}"
    yield from random_remarks(result.recipe["random_sets"], [r for r in result.rows("effects") if r["measure"] == "r1"])
    yield from few_remarks(result.recipe["consequences"]["n_random"], "random set", "consequences.n_random=10")


CONSEQUENCES = Analysis(
    name="consequences",
    section="+",
    title="What happens without a class",
    question=(
        "What do {images} and {texts} lose in common without {ImgD}, {TextD} or {CrossD}, more than without random "
        "features like them? IsoEnergy (arXiv 2602.06218) keeps the shared features alone. Not in the paper."
    ),
    paper="beyond 2.2",
    targets=("consequences", "section-2.2"),
    version=8,
    settings=Settings,
    columns={
        "effects": {
            "feature_set": "name of the feature set",
            "change": "drop: these features are removed; keep: all others are; empty: none",
            "of": "ImgD, TextD or CrossD, by the half of the groups that nothing is measured on; empty for all features",
            "like": "random: the mean over random sets like the class (effective rank: over five); empty: the class itself",
            "features": "number of features that are dropped or kept",
            "energy": "share of the energy Σ ‖z · atom‖² over both modalities that these features carry",
            "mismatch": "largest relative difference between what a random set is matched in and the class'; of random",
            "measure": "r1, r5, r10: R@k, mean of both ways; i2t_r1 to t2i_r10: one way; zero_shot: accuracy; gap: "
            "distance of the centroids; contrastive_loss: in nats; effective_rank: of both modalities' unit vectors",
            "value": "the measure; empty if it cannot be measured",
            "value_low": "lower end of its 95 % interval, over groups and random sets; none of the effective rank",
            "value_high": "upper end of the same",
            "delta_none": "value minus the one with all features",
            "delta_none_low": "lower end of its 95 % interval",
            "delta_none_high": "upper end of the same",
            "delta_random": "value minus the mean one of random sets like the class; empty if it holds all live features",
            "delta_random_low": "lower end of its 95 % interval, over groups and random sets as crossed factors",
            "delta_random_high": "upper end of the same",
            "p": "p-value of delta_random being 0",
            "p_holm": "the same, adjusted for the three classes (Holm 1979)",
        },
        "curves": {
            "feature_set": "name of the feature set",
            "change": "drop or keep",
            "of": "ImgD, TextD or CrossD, by the half of the groups that nothing is measured on",
            "like": "random: random sets like the features of the class; empty: features of the class",
            "share": "share of the class's features that are dropped, or kept alone; 0: none of them",
            "features": "their number",
            "energy": "share of the energy Σ ‖z · atom‖² over both modalities that they carry, on average over draws",
            "measure": "r1, zero_shot, gap or contrastive_loss",
            "value": "mean over draws",
            "value_low": "lower end of its 95 % interval, over groups and draws",
            "value_high": "upper end of the same",
            "delta": "value minus the one with all features",
            "delta_low": "lower end of its 95 % interval, over groups and draws",
            "delta_high": "upper end of the same",
            "band_low": "5th percentile of delta over draws",
            "band_high": "95th percentile of delta over draws",
        },
        "features": {
            "feature_set": "name of the feature set",
            "feature": "index of a feature that is live on the half of the groups by which features are classified",
            "class": "ImgD, TextD or CrossD, by the same half, on which nothing is measured",
            "mds": "R(d) of Eq. 1 on the same half, between 0 (text) and 1 (image)",
            "energy": "share of the energy Σ ‖z · atom‖² over both modalities that the feature carries",
            "change": "change of the mean reciprocal rank, both ways, without this feature; negative if retrieval suffers",
            "selecting": "the same on that half of these queries by which the features of largest effect are chosen",
            "held_out": "the same on the other half",
            "place": "place among the features of largest effect on the selecting half, from 0; empty beyond the first",
            "held_out_low": "lower end of the 95 % interval of held_out over groups; of those with a place",
            "held_out_high": "upper end of the same",
            "recall": "change of R@1, both ways, on the other half; of those with a place",
        },
        "samples": {
            "feature_set": "name of the feature set",
            "space": "what the features were removed from: embeddings, reconstruction or features (no decoder)",
            "pairs": "number of pairs that classes and features are removed on: those by which no feature is classified",
            "groups": "number of groups of these pairs",
            "effective_groups": "n² / Σ n_g² for n_g pairs of a group: as many groups of equal size say as much",
            "chance_r1": "R@1, mean of both ways, of targets in a random order: any target of the query's group is right",
            "classified_pairs": "number of pairs by which features are classified",
            "classified_groups": "number of groups of these pairs",
            "labels": "number of labels among which images are classified; 0 without",
            "label": "column of the metadata with the labels; empty without",
            "agreement": "correlation over features of what their removal changes on both halves of the queries",
        },
    },
    contrasts=[
        Contrast(
            "change beyond random",
            "effects",
            "delta_random",
            of=("change", "of"),
            family=("measure",),
            points={"measure": SHARES},
        )
    ],
    tables=[
        TableView(
            "consequences-{feature_set}", "Retrieval without a class, {feature_set} ({measured})", retrieval_rows
        ),
        TableView("consequences-{feature_set}-others", "What else changes, {feature_set} ({measured})", other_rows),
        TableView(
            "consequences-{feature_set}-features",
            "Single features that matter most, {feature_set} ({measured})",
            single_rows,
        ),
    ],
    drawing=2,
    figures=[
        FigureView(
            "retrieval",
            "Change of R@1 (mean of both ways) when a share of a class is dropped (above) or kept alone (below); 95 % "
            "intervals over groups and draws. Dashed with a band: random features like these, their mean and 90 % of them.",
        ),
        FigureView(
            "measures",
            "Change of each measure when a class is dropped (filled), or random features like it (open), by feature set; "
            "95 % intervals.",
        ),
        FigureView(
            "features",
            "Change of the mean reciprocal rank when one feature is removed, against its modality dominance score (above), "
            "and on one half of the queries against the other (below).",
        ),
    ],
    fields=_fields,
    remarks=_remarks,
    covers_all=True,
    embeds_labels=True,
)
