"""Comparison of dictionaries that were trained on the same features: reconstruction, sparsity, monosemanticity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmmono.core.artifacts import PARTIAL
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Fields, Result, Rows


@dataclass(frozen=True)
class Settings:
    """Settings of the section `sweep`.

    Attributes:
        embedder: embedder whose Mono is compared, such as `clip`; None for the one that most dictionaries were
            measured with.
    """

    embedder: str | None


def run_rows(result: Result) -> Rows:
    """Metrics of each dictionary, with the settings that differ between dictionaries.

    Settings of `training` and `trainer` are not shown; the length of a training is among the metrics.
    """
    settings = _differing(result.rows("settings"))
    rows: Rows = []
    for run in result.rows("runs"):
        dictionary, artifact, on_front = run.pop("dictionary"), run.pop("artifact"), run.pop("front")
        of_recipe = {key: run.pop(key) for key in ("k", "expansion")}
        own = {name: values.get(artifact) for name, values in settings.items()}
        rows.append({"dictionary": dictionary, **of_recipe, **own, **run, "Pareto": "×" if on_front else ""})
    known = [column for column in (rows[0] if rows else ()) if any(row[column] is not None for row in rows)]
    shown = [{column: "" if row[column] is None else row[column] for column in known} for row in rows]
    return headed(shown, result.modalities)


def _differing(settings: Rows) -> dict[str, dict[str, str]]:
    """Values by artifact of each setting that is to be shown: those without a column of their own that differ."""
    values: dict[str, dict[str, str]] = {}
    for row in settings:
        values.setdefault(row["setting"], {})[row["artifact"]] = row["value"]
    return {
        name: of
        for name, of in values.items()
        if len(set(of.values())) > 1 and name not in ("k", "expansion") and "." not in name
    }


def _fields(result: Result) -> Fields:
    return {"count": str(len(result.table("runs")))}


def _remarks(result: Result) -> Iterator[str]:
    if result.recipe["embedder"] is None:
        yield "no Mono: run experiments/interpretability.py -m with the same settings, and this again"
    if count := len(_unfinished(result)):
        yield f"{count} trainings are unfinished: the command that began them continues them"


def _unfinished(result: Result) -> list[Path]:
    """Folders of unfinished trainings of the same kinds of dictionaries on the same features."""
    dictionaries = result.folder.parents[1] / "dictionaries"
    stems = {row["artifact"].rpartition("-")[0] for row in result.rows("runs")}
    return [folder for stem in stems for folder in dictionaries.glob(f"{stem}-*{PARTIAL}")]


SWEEP = Analysis(
    name="sweep",
    section="",  # not a section of the report
    title="Dictionaries side by side",
    question=(
        "Which dictionaries reconstruct best with few active features, and which have the most monosemantic ones? Not in "
        "the paper."
    ),
    paper="beyond the paper",
    targets=("sweep",),
    version=5,
    settings=Settings,
    columns={
        "runs": {
            "dictionary": "name of the feature set, such as sae",
            "k": "number of active latents per sample, for kinds that fix it",
            "expansion": "number of features over the width of the embeddings",
            "steps": "training steps at the last validation",
            "fvu": "fraction of variance unexplained, mean over images and texts; none without a decoder",
            "l0": "mean number of active features per sample, mean over images and texts",
            "active": "features that are active on at least one sample, mean over images and texts",
            "dead_share": "share of features that are active on no sample, mean over images and texts",
            "loss": "loss at the last validation; none for dictionaries without a validation loss",
            "mono_corrected": "Mono of all features minus chance, mean over images and texts; none if it was not measured",
            "artifact": "folder of the dictionary",
            "front": "whether no other dictionary is as good in FVU and L0 and better in one (Pareto front)",
        },
        "settings": {
            "artifact": "folder of the dictionary",
            "setting": "name of the setting as on the command line, without that of its feature set",
            "value": "its value as text, as on the command line",
        },
    },
    tables=[TableView("sweep", "{count} dictionaries, means over {images} and {texts}", run_rows)],
    figures=[
        FigureView(
            "sweep",
            "FVU over L0 with the Pareto front, and, if measured, Mono minus chance over FVU; a dot each.",
        )
    ],
    fields=_fields,
    remarks=_remarks,
    features="sae",
)
