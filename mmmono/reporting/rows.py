"""Format rows of results for display, the same on the terminal and in the report.

Formatted rows have the columns that fit, intervals as text, and the paper's published numbers if it has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mmmono.case_studies.control_effects import MEASURES
from mmmono.reporting.concept_figures import WORDS
from mmmono.reporting.headings import headed
from mmmono.reporting.published import published
from mmmono.reporting.validation_figures import PANELS

Rows = list[dict[str, object]]
Results = Sequence[Mapping[str, Any]]

# Columns of the summaries that fit a terminal of 80 characters.
DOMINANCE = ("feature_set", "features", "ImgD", "TextD", "CrossD", "dead", "mean", "std", "skewness", "gap")
CAPTION_CHARACTERS = 40
METRICS = ("mono", "embsim", "winrate", "embsim_pooled", "ms")


def dominance_rows(summary: Results) -> Rows:
    """Counts of the classes and moments of the scores (Section 2.1)."""
    return headed([{key: row[key] for key in DOMINANCE} for row in summary])


def certainty_rows(summary: Results) -> Rows:
    """Counts of significant features, and agreement across halves of the pairs, seeds and other scores."""
    return [
        {
            "feature set": row["feature_set"], "live": row["live"], "beyond chance": row["significant"],
            **{f"{name} confirmed": f"{row[f'{name}_significant']} of {row[name]}" for name in ("ImgD", "TextD")},
            "halves ρ": row["halves_rho"], "halves ARI": row["halves_ari"],
            "seeds ρ": row["seeds_rho"], "seeds ARI": row["seeds_ari"],
            "energy ρ": row["energy_rho"], "AUROC ρ": row["auroc_rho"],
        }
        for row in summary
    ]  # fmt: skip


def ablation_rows(table1: Results, feature_set: str, keep: bool) -> Rows:
    """Table 1 for one feature set; with `keep`, without the paper's numbers, which are for removal."""
    paper = published("table1")
    rows: Rows = []
    for row in table1:
        if row["feature_set"] != feature_set:
            continue
        printed = {} if keep else paper.find(samples=row["task"], deletion=row["deletion"], size_of=row["size_of"])
        delta = printed.get("delta")
        rows.append(
            {
                "task": row["task"],
                "kept" if keep else "deletion": row["deletion"],
                "neurons": row["neurons"],
                "accuracy": "none" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
                "Δ none [95 %]": points(row, "delta_none"),
                "Δ random [95 %]": points(row, "delta_random"),
                "paper": f"{printed['accuracy']:.3f}" if printed else "",
                "paper Δ": f"{100 * delta:+.1f}" if delta is not None else "",
            }
        )
    return rows


def monosemanticity_rows(table4: Results) -> Rows:
    """Table 4 by class: means over features with their standard errors."""
    return [
        {
            "feature set": row["feature_set"], "samples": row["samples"], "class": row["class"],
            "scored": f"{row['scored']} of {row['features']}",
            **{metric: with_error(row, metric) for metric in METRICS},
        }
        for row in table4
    ]  # fmt: skip


def modality_mono_rows(table5: Results, model: str) -> Rows:
    """Visual and Textual Mono (Table 5), with the paper's numbers for the model's family (CLIP or DeCLIP)."""
    paper = published("table5")
    family = "DeCLIP" if model.startswith("declip") else "CLIP"
    rows: Rows = []
    for row in table5:
        printed = paper.find(feature_set=row["feature_set"], model=family, samples=row["samples"])
        rows.append(
            {
                "feature set": row["feature_set"],
                "score": row["score"],
                **{metric: with_error(row, metric) for metric in ("mono", "embsim", "winrate", "ms")},
                "paper EmbSim": f"{printed['embsim']:.3f}" if printed else "",
                "paper WinRate": f"{printed['winrate']:.3f}" if printed else "",
            }
        )
    return rows


def faithfulness_rows(table: Results) -> Rows:
    """Reconstruction metrics or downstream metrics; empty cells for feature sets without a decoder."""
    return headed([{key: "" if value is None else value for key, value in row.items()} for row in table])


def sheet_rows(sheets: Results) -> Rows:
    """Features on contact sheets, with how many of the m samples asked for activate each."""
    return headed(
        [
            {
                "feature_set": row["feature_set"], "feature": row["feature"], "class": row["class"], "mds": row["mds"],
                "images": f"{row['images']} of {row['m']}", "texts": f"{row['texts']} of {row['m']}",
                "top_caption": (row["top_caption"] or "none")[:CAPTION_CHARACTERS],
            }
            for row in sheets
        ]
    )  # fmt: skip


def concept_rows(table2: Results, feature_set: str) -> Rows:
    """Table 2 for one feature set."""
    paper = published("table2")
    rows: Rows = []
    for row in table2:
        if row["feature_set"] != feature_set:
            continue
        printed = paper.find(samples=row["samples"], removed=row["removed"], concept=row["concept"])
        rows.append(
            {
                "from": row["samples"], "concept": row["concept"], "removed": f"{row['removed']} {row['neurons']}",
                "accuracy": f"{100 * row['baseline']:.1f}", "drop [95 %]": points(row, "drop"),
                "beyond random": points(row, "beyond_random"),
                "paper's drop": f"{100 * printed['drop']:.1f}" if printed else "",
            }
        )  # fmt: skip
    return rows


def paired_rows(paired: Results, feature_set: str) -> Rows:
    """Each class's share of the difference between samples that differ only in the concept."""
    return [
        {
            "samples": row["samples"], "class": row["members"], "share of difference": row["share"],
            "share of energy": row["energy"],
            "ratio": row["enrichment"], "from": row["enrichment_low"], "to": row["enrichment_high"],
        }
        for row in paired
        if row["feature_set"] == feature_set
    ]  # fmt: skip


def word_rows(table6: pd.DataFrame, feature_set: str) -> Rows:
    """Table 6: words of a concept's texts, binned by their share of TextD."""
    if table6.empty:  # too few words to tell any apart
        return []
    words = table6[(table6["feature_set"] == feature_set) & (table6["count"] > 0)]
    return [
        {
            "TextD share": f"{low:.2f} to {high:.2f}",
            "most distinctive": ", ".join(part.nlargest(WORDS, "z").word),
            "most frequent": ", ".join(part.nlargest(WORDS, "count").word),
        }
        for (_, low, high), part in words.groupby(["group", "low", "high"])
    ]


def adversarial_rows(table3: Results, feature_set: str) -> Rows:
    """Table 3 for one feature set, and the conditions without a defense."""
    paper = published("table3")
    rows: Rows = []
    for row in table3:
        if row["feature_set"] not in ("", feature_set):
            continue
        printed = paper.find(aligned=row["aligned"])
        # There is no interval with a single request.
        margin = ["–" if row[key] is None else f"{row[key]:+.2f}" for key in ("margin", "margin_low", "margin_high")]
        rows.append(
            {
                "aligned": f"{row['aligned']} {row['features']}" if row["features"] else row["aligned"],
                "trials": row["trials"], "unparseable": row["unparseable"],
                "success % [95 %]": f"{100 * row['rate']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
                "below random": points(row, "below_random"),
                "margin": f"{margin[0]} [{margin[1]}, {margin[2]}]",
                "paper": f"{100 * printed['rate']:.1f}" if printed else "",
            }
        )  # fmt: skip
    return rows


def strongest_reference(effects: Results, weight_on: str) -> float:
    """Strength with the largest weight of the reference: the maximum if `weight_on="reference"`, else the minimum."""
    strengths = [float(effect["strength"]) for effect in effects]
    return max(strengths) if weight_on == "reference" else min(strengths)


def control_rows(effects: Results, cells: Results, feature_set: str, strength: float) -> Rows:
    """Change of each measure by class at one strength, over all references (Section 4.3)."""
    sizes = {cell["members"]: cell["features"] for cell in cells if cell["feature_set"] == feature_set}
    own = [
        effect
        for effect in effects
        if effect["feature_set"] == feature_set and effect["reference"] == "all" and effect["strength"] == strength
    ]
    rows: Rows = []
    for members in names(own, "members"):
        line = {effect["measure"]: effect for effect in own if effect["members"] == members}
        moved = f"{members} {sizes[members]}" if members in sizes else members
        rows.append({"moved": moved, **{m.replace("_", " "): _change(line[m]) for m in MEASURES}})
    return rows


def _change(effect: Mapping[str, Any]) -> str:
    if effect["low"] is None or pd.isna(effect["low"]):
        return f"{effect['change']:+.3f}"
    return f"{effect['change']:+.3f} [{effect['low']:+.3f}, {effect['high']:+.3f}]"


def validation_rows(summary: pd.DataFrame) -> Rows:
    """Recovery of synthetic concepts in the base setting: mean ± half-width of the 95 % t interval over seeds."""

    def cell(row: Any) -> str:
        if pd.isna(row.mean):
            return ""
        return f"{row.mean:.3f}" if pd.isna(row.high) else f"{row.mean:.3f} ± {(row.high - row.low) / 2:.3f}"

    base = summary[summary["knob"] == ""]
    return [
        {"feature set": str(name), **{PANELS[str(row.measure)]: cell(row) for row in part.itertuples()}}
        for name, part in base.groupby("feature_set", sort=False)
    ]


def training_rows(histories: Mapping[str, pd.DataFrame]) -> Rows:
    """Metrics at the last validation of each dictionary, one column per dictionary."""
    last = {name: history.iloc[-1] for name, history in histories.items()}
    metrics = names([{"metric": key} for row in last.values() for key in row.index if key.startswith("val/")], "metric")
    rows: Rows = [{"metric": "steps", **{name: int(row["step"]) for name, row in last.items()}}]
    return rows + [
        {
            "metric": key.removeprefix("val/"),
            **{name: float(row[key]) if key in row else "" for name, row in last.items()},
        }
        for key in metrics
    ]


def names(rows: Iterable[Mapping[str, Any]], key: str = "feature_set") -> list[str]:
    """Distinct values of a column, in order of appearance."""
    return list(dict.fromkeys(str(row[key]) for row in rows))


def with_error(row: Mapping[str, Any], metric: str) -> str:
    """Format a mean with its standard error; `none` if there is no mean."""
    if row[metric] is None:
        return "none"
    error = row[f"{metric}_se"]
    return f"{row[metric]:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def points(row: Mapping[str, Any], key: str) -> str:
    """Format a difference of accuracies with its interval in percentage points; empty without an interval."""
    value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None or pd.isna(value):
        return ""
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
