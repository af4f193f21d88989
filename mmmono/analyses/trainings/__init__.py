"""Trainings: which differences of an analysis hold over dictionaries that were trained with other seeds?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mmmono.core.modality_names import ModalityNames
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.pipeline.contrasts import LEVEL, SCALES
from mmmono.reporting.formats import p_value
from mmmono.reporting.headings import heading
from mmmono.reporting.result import Fields, Result, Rows

if TYPE_CHECKING:
    from mmmono.features.selection import Split
    from mmmono.pipeline.workspace import Workspace

NUMBER = r"-?[\d.]+(e-?\d+)?"
PANELS = 15  # families in a figure, at most


@dataclass(frozen=True)
class Settings:
    """Settings of the section `trainings`.

    Attributes:
        n_seeds: trainings of each dictionary with further seeds.
    """

    n_seeds: int

    def __post_init__(self) -> None:
        if self.n_seeds < 1:
            raise ValueError(
                f"n_seeds={self.n_seeds} must be at least 1: one training says nothing about others; n_seeds=4 gives five"
            )


def _analyses() -> Sequence[Analysis]:
    from mmmono.analyses import ANALYSES  # not at the top: that module imports this one

    return ANALYSES


def analyzed(cfg: DictConfig) -> Analysis:
    """The analysis that `analysis=` chose."""
    return next(analysis for analysis in _analyses() if analysis.name == cfg.analysis)


def about_analysis(analysis: Analysis) -> dict[str, Any]:
    """Entry `about` of the recipe: the analysis whose differences are judged, and its versions."""
    return {"analysis": analysis.name, **analysis.versions}


def stands(row: dict[str, Any]) -> bool:
    """Whether a contrast holds over trainings."""
    return row["p_holm"] is not None and row["p_holm"] <= LEVEL


def in_words(text: str, modalities: ModalityNames) -> str:
    """Write `change=drop, of=TextD` as `drop TextD`, and `strength=8.0` as `strength 8.0`."""
    cells = [part.partition("=")[::2] for part in re.split(r", (?=\w+=)", text)]
    said = (f"{name} {value}" if re.fullmatch(NUMBER, value) else heading(value, modalities) for name, value in cells)
    return " ".join(words.replace("_", " ") for words in said if words)


def title_in_words(title: str, unit: str, modalities: ModalityNames) -> str:
    """Title of a contrast with its unit, and with modalities and classes called by their names."""
    return " ".join(map(modalities.said, title.split())) + (f" ({unit})" if unit else "")


def in_unit(row: dict[str, Any], column: str) -> str:
    """A number of a contrast in its unit; empty if there is none."""
    return "" if row[column] is None else f"{SCALES[row['unit']] * row[column]:.3g}"


def standing_rows(result: Result, feature_set: str) -> Rows:
    """The contrasts that hold over trainings, numbers that are not tested, and how many contrasts do not hold."""
    own = [row for row in result.rows("contrasts") if row["feature_set"] == feature_set]
    shown = [row for row in own if stands(row) or row["kind"] == "value"]
    rows: Rows = [
        {
            "what": title_in_words(row["contrast"], row["unit"], result.modalities),
            "of": " ".join(filter(None, (in_words(row[part], result.modalities) for part in ("family", "row")))),
            "mean [95 %]": _with_bounds(row), "from": in_unit(row, "lowest"), "to": in_unit(row, "highest"),
            "same side": f"{row['same_side']} of {row['trainings']}" if stands(row) else "",
            "p (Holm)": p_value(row["p_holm"]) if stands(row) else "",
        }
        for row in shown
    ]  # fmt: skip
    if count := len(own) - len(shown):
        rest = f"{count} {'other ' if shown else ''}contrast{' does' if count == 1 else 's do'} not stand"
        rows.append({"what": rest, **dict.fromkeys(("of", "mean [95 %]", "from", "to", "same side", "p (Holm)"), "")})
    return rows


def _with_bounds(row: dict[str, Any]) -> str:
    mean, low, high = (in_unit(row, f"mean{end}") for end in ("", "_low", "_high"))
    return f"{mean} [{low}, {high}]" if low else mean


def _fields(result: Result) -> Fields:
    return {"of": result.recipe["of"], "trainings": str(len(result.recipe["seeds"])), "panels": str(PANELS)}


def _remarks(result: Result) -> Iterator[str]:
    rows, seeds = result.rows("contrasts"), result.recipe["seeds"]
    tested = [row for row in rows if row["p_holm"] is not None]
    if tested:
        families = {(row["feature_set"], row["contrast"], row["family"]) for row in tested}
        there = sum(map(stands, tested))
        yield (
            f"{there} of {len(tested)} contrasts stand: Holm's p ≤ .05 within their family. By chance about "
            f"{LEVEL * len(families):.1f} of the {len(families)} families would have one"
        )
        if there < len(tested):
            yield (
                f"{len(tested) - there} do not: trainings disagree, or are too few, to say whether there is "
                "anything. That is no evidence of nothing; contrasts.parquet and the figures have them all"
            )
    elif not rows:
        yield "no contrast is in two trainings: the results have none, as where too few samples were found"
    yield (
        f"intervals (Student's t) and p-values are over {len(seeds)} trainings, seed={seeds[0]} to {seeds[-1]}; the seed "
        "also draws what the analysis draws, such as halves and random sets"
    )
    if any(row["kind"] == "ratio" for row in rows):
        yield "means of ratios are geometric, and 1 is no difference"
    yield (
        "that is for these pairs and this fit of the model; other pairs are not covered. What the analysis says of one "
        "training, such as that random sets have no good match, holds here too"
    )
    if len(seeds) == 2:
        yield "two trainings give intervals seven times as wide as five with the same scatter: trainings.n_seeds=4"


class _OverTrainings(Analysis):
    """Its pairs are those of the analysis whose differences are judged."""

    def split(self, workspace: Workspace) -> Split:
        """Split whose pairs its tables are of."""
        return analyzed(workspace.cfg).split(workspace)

    def is_current(self, recipe: Mapping[str, Any]) -> bool:
        """Whether a result is of the current versions, and of those of the analysis that it is about."""
        about = recipe.get("about", {})
        return super().is_current(recipe) and about in map(about_analysis, _analyses())

    def parts(self, workspace: Workspace) -> Iterable[tuple[str, Analysis, Workspace]]:
        """Return the analysis of each training whose results do not exist."""
        found: Iterable[tuple[str, Analysis, Workspace]] = self._module("analysis").lacking(workspace)
        return found


TRAININGS = _OverTrainings(
    name="trainings",
    section="+",
    title="What holds over trainings",
    question=(
        "Which differences that an analysis shows of one training do dictionaries trained with other seeds show, too? Not "
        "in the paper."
    ),
    paper="beyond the paper",
    targets=("trainings",),
    version=2,
    drawing=2,
    settings=Settings,
    more_seeds="trainings.n_seeds",
    columns={
        "contrasts": {
            "feature_set": "name of the feature set",
            "contrast": "what the number is, in the words that the analysis declares",
            "family": "what all comparisons of a family have in common, as column=value of the analysis' table",
            "row": "what the number is of, as column=value of the analysis' table",
            "kind": "difference (0 is nothing), ratio (1 is nothing) or value (not tested)",
            "unit": "unit in which the number is shown: points for shares, which are saved as they are; empty without one",
            "trainings": "number of trainings that have the number, at least 2",
            "mean": "mean over trainings; of ratios the geometric mean",
            "mean_low": "lower end of its 95 % interval, Student's t over trainings, of ratios of logarithms",
            "mean_high": "upper end of the same",
            "lowest": "smallest number of a training",
            "highest": "largest number of a training",
            "same_side": "number of trainings on the mean's side of 0, of ratios of 1",
            "p": "p-value of the mean being 0, of ratios 1; none for values",
            "p_holm": "the same, adjusted for the comparisons of the feature set, contrast and family (Holm 1979)",
            "compared": "number of these comparisons",
        },
        "values": {
            "feature_set": "name of the feature set",
            "contrast": "as in the table contrasts",
            "family": "as in the table contrasts",
            "row": "as in the table contrasts",
            "seed": "seed of the training",
            "value": "the number of this training",
            "unit": "as in the table contrasts",
        },
    },
    tables=[
        TableView(
            "trainings-{of}-{feature_set}",
            "What stands of {of}, {feature_set}, over {trainings} trainings",
            standing_rows,
        )
    ],
    figures=[
        FigureView(
            "{feature_set}-trainings",
            "{of}, {feature_set}: each training (dots), and their mean with its 95 % t interval over {trainings} trainings. "
            "Filled: Holm's p ≤ .05 in the family, which is a panel. Of more than {panels} those with the smallest p.",
        )
    ],
    fields=_fields,
    remarks=_remarks,
    one_for_each="of",
    embeds_labels=True,
    weights={"labels.model": "classifier", "victim.model": "victim", "generator.weights": "generator"},
)
