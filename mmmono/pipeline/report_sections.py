"""What the report shows of each section: which results it reads, and which tables and figures it makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmmono.core.artifacts import Artifact
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.results import ResultsOnDisk, set_names
from mmmono.pipeline.training import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting import rows as table_rows
from mmmono.reporting.published import published
from mmmono.reporting.report import ReportFigure, ReportSection, ReportTable
from mmmono.reporting.style import save_figure
from mmmono.reporting.training_figures import training_curves


@dataclass(frozen=True)
class Sources:
    """What sections are made from.

    Attributes:
        workspace: model, dataset and feature sets; it builds nothing.
        results: those on disk that belong to it.
        explorer: address of the feature explorer's page and the sets it shows.
        scratch: folder for figures that no result holds.
    """

    workspace: Workspace
    results: ResultsOnDisk
    explorer: tuple[str, Sequence[str]] | None
    scratch: Path

    def note(self, table: str) -> str | None:
        """How the setting of one of the paper's tables differs."""
        return published(table).difference(self.workspace.model.name, self.workspace.dataset_name)

    def feature_link(self, feature_set: str, feature: int) -> str:
        """Address of a feature in the explorer; empty where it is not shown there."""
        if self.explorer is None or feature_set not in self.explorer[1]:
            return ""
        return f"{self.explorer[0]}#{feature_set}/{feature}"


def sections(sources: Sources) -> list[ReportSection]:
    """All of them, in the order of the paper; those without results say which command makes them."""
    return [
        make(sources, ReportSection(number, title, about, command)) for number, title, about, command, make in _CONTENTS
    ]


def _dominance(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("mds")
    if result is None:
        return section
    table = ReportTable("mds", "Classes and moments of the scores", table_rows.dominance_rows(_read(result, "summary")))
    figure = ReportFigure(
        result.path / "mds.png",
        "Figure 4: modality dominance scores by class; the line is their mean, the dotted one the balance of ½.",
    )
    return replace(section, tables=[table], figures=[figure], made_by=[result])


def _ablation(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("ablation")
    if result is None:
        return section
    found, keep = _read(result, "table1"), bool(result.recipe["ablation"]["keep"])
    tables = [
        ReportTable(f"table1-{name}", f"Table 1, {name}", table_rows.ablation_rows(found, name, keep))
        for name in table_rows.names(found)
    ]
    caption = "Change of accuracy when a class of features is removed, beside as many random ones; 95 % intervals."
    figure = ReportFigure(result.path / "table1.png", caption)
    return replace(section, tables=tables, figures=[figure], made_by=[result], note=sources.note("table1"))


def _top_samples(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("top_samples")
    if result is None:
        return section
    sheets = _read(result, "sheets")
    numbers = {"ImgD": "Figure 1", "TextD": "Figure 2", "CrossD": "Figure 3", "chosen": "Chosen features"}
    figures = [
        ReportFigure(file, f"{number}, {name}: images and texts that activate these features most.")
        for members, number in numbers.items()
        for name in set_names(result.recipe["sets"])
        if (file := result.path / f"{name}-{members}.png").exists()
    ]
    links = {"feature": [sources.feature_link(row["feature set"], row["feature"]) for row in sheets]}
    tables = [ReportTable("top_samples", "Features shown", [dict(row) for row in sheets], links)] if sheets else []
    return replace(section, tables=tables, figures=figures, made_by=[result])


def _training(sources: Sources, section: ReportSection) -> ReportSection:
    workspace = sources.workspace
    there = [
        name
        for name, kind in workspace.recipes.items()
        if isinstance(kind, Trained) and name not in sources.results.untrained
    ]
    if not there:
        return section
    made_by = [workspace.dictionary(name) for name in there]
    histories = {
        name: pd.read_parquet(made.path / HISTORY_FILE) for name, made in zip(there, made_by, strict=True)
    }  # fmt: skip
    figures = []
    for name, history in histories.items():
        file, _ = save_figure(training_curves(history, name), sources.scratch / f"{name}-training")
        number = {"sae": "Figure 11", "ncl": "Figure 12"}.get(name, "As Figures 11 and 12")
        figures.append(ReportFigure(file, f"{number}, {name}: active dimensions over training."))
    table = ReportTable("training", "At the last validation", table_rows.training_rows(histories))
    return replace(section, tables=[table], figures=figures, made_by=made_by)


def _interpretability(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("interpretability")
    if result is None:
        return section
    model = sources.workspace.model.name
    tables = [
        ReportTable("table5", "Table 5: modality-specific monosemanticity, mean ± s.e. over features",
                    table_rows.modality_mono_rows(_read(result, "table5"), model)),
        ReportTable("table4", "Table 4: monosemanticity by class, mean ± s.e. over features",
                    table_rows.monosemanticity_rows(_read(result, "table4"))),
    ]  # fmt: skip
    captions = {
        "monosemanticity": "Figure 5: average monosemanticity of each feature set.",
        "modality_monosemanticity": "Figure 6: Visual Mono on images and Textual Mono on texts.",
        "over_training": "Figure 13: monosemanticity over training.",
    }
    figures = _figures(result, captions)
    return replace(section, tables=tables, figures=figures, made_by=[result], note=sources.note("table5"))


def _concepts(sources: Sources, section: ReportSection) -> ReportSection:
    by_concept: dict[str, Artifact] = {}
    for result in sources.results.of("gender"):
        by_concept.setdefault(json.dumps(result.recipe["concept"]), result)
    if not by_concept:
        return section
    tables, figures = [], []
    for result in by_concept.values():
        a, b = result.recipe["concept"]["a"], result.recipe["concept"]["b"]
        found, words = _read(result, "table2"), pd.read_parquet(result.path / "table6.parquet")
        paired = _read(result, "paired") if (result.path / "paired.json").exists() else []
        for name in table_rows.names(found):
            key = f"{a}-{b}-{name}"
            tables.append(
                ReportTable(f"table2-{key}", f"Table 2, {name}: {a} and {b}", table_rows.concept_rows(found, name))
            )
            if paired:
                title = f"{name}: {paired[0]['pairs']} pairs that differ in the concept alone"
                tables.append(ReportTable(f"paired-{key}", title, table_rows.paired_rows(paired, name)))
            tables.append(
                ReportTable(f"table6-{key}", f"Table 6, {name}: words of {b} texts", table_rows.word_rows(words, name))
            )
            captions = {
                f"{name}-table2": f"Table 2, {name}: fall of accuracy when a class is removed, beside random features.",
                f"{name}-figure7": f"Figure 7, {name}: {a} images by the share of ImgD among their top features.",
                f"{name}-table6": f"Table 6, {name}: words of {b} texts by the share of TextD.",
            }
            figures += _figures(result, captions)
    made_by = list(by_concept.values())
    return replace(section, tables=tables, figures=figures, made_by=made_by, note=sources.note("table2"))


def _adversarial(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("adversarial")
    if result is None:
        return section
    found, sets = _read(result, "table3"), set_names(result.recipe["sets"])
    measure = (
        "embedding-level success" if result.recipe["victim"]["victim"] == "clip_zero_shot" else "attack success rate"
    )
    tables = [
        ReportTable(f"table3-{name}", f"Table 3, {name}: {measure}", table_rows.adversarial_rows(found, name))
        for name in sets
    ]
    captions: dict[str, str] = {}
    for name in sets:
        captions[f"{name}-figure8"] = (
            f"Figure 8, {name}: pictures before, attacked and defended; distances over the steps."
        )
        captions[f"{name}-sizes"] = f"{name}: {measure} by the number of aligned features; 95 % intervals."
    figures = _figures(result, captions)
    return replace(section, tables=tables, figures=figures, made_by=[result], note=sources.note("table3"))


def _text_to_image(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("text_to_image")
    if result is None:
        return section
    found, cells = _read(result, "effects"), _read(result, "cells")
    strongest = table_rows.strongest_reference(found, result.recipe["intervention"]["weight_on"])
    tables, captions = [], {}
    for name in set_names(result.recipe["sets"]):
        title = f"Change against plain generation at strength {strongest:g} [95 %], {name}"
        tables.append(ReportTable(f"control-{name}", title, table_rows.control_rows(found, cells, name, strongest)))
        for file in sorted(result.path.glob(f"{name}-figure10-*.png")):
            reference = file.stem.removeprefix(f"{name}-figure10-")
            captions[file.stem] = f"Figures 10, 14, {name}: “{result.recipe['prompt']}” with features of {reference}."
        captions[f"{name}-curves"] = f"{name}: what each class changes, over references and noise; 95 % intervals."
    return replace(section, tables=tables, figures=_figures(result, captions), made_by=[result])


def _certainty(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("certainty")
    if result is None:
        return section
    table = ReportTable("certainty", "Beyond chance, and again?", table_rows.certainty_rows(_read(result, "summary")))
    caption = "Scores with 95 % intervals; pale features are not dominated beyond chance."
    return replace(
        section, tables=[table], figures=[ReportFigure(result.path / "certainty.png", caption)], made_by=[result]
    )


def _faithfulness(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("faithfulness")
    if result is None:
        return section
    titles = {"reconstruction": "Reconstruction and sparsity", "function": "What still works"}
    tables = [ReportTable(n, title, table_rows.faithfulness_rows(_read(result, n))) for n, title in titles.items()]
    return replace(section, tables=tables, made_by=[result])


def _validation(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.unrelated("validation")
    if result is None:
        return section
    rows = table_rows.validation_rows(pd.read_parquet(result.path / "summary.parquet"))
    table = ReportTable("validation", "Base setting, mean ± half of the 95 % t interval over seeds", rows)
    captions = {
        "validation": "All measures as one knob is turned: means and 95 % t intervals over seeds, dotted the base setting.",
        "validation-directions": "Cosines of the SAE's latents with the planted directions.",
        "validation-codes": "Correlation of each concept's codes with the feature that is nearest to it.",
        "validation-separation": "AUROC of image-only and text-only concepts against shared ones, by R(d).",
        "validation-gains": "Rank correlation of R(d) with the true gain of shared concepts.",
        "validation-energy": "The same by R(d) and by the ratio of energies, on the SAE.",
        "validation-partition": "Balanced accuracy of partitions of the SAE's latents.",
        "validation-false_discoveries": "Realized against nominal false discovery rates of the permutation null.",
        "validation-readings": "Readings of the paper on the SAE's latents, over the modality gap.",
    }
    return replace(section, tables=[table], figures=_figures(result, captions), made_by=[result])


def _read(result: Artifact, name: str) -> list[dict[str, Any]]:
    return json.loads((result.path / f"{name}.json").read_text())


def _figures(result: Artifact, captions: dict[str, str]) -> list[ReportFigure]:
    """Those of a result's figures that are there."""
    files = {name: result.path / f"{name}.png" for name in captions}
    return [ReportFigure(file, captions[name]) for name, file in files.items() if file.exists()]


Make = Callable[[Sources, ReportSection], ReportSection]

_CONTENTS: Sequence[tuple[str, str, str, str, Make]] = (
    ("2.1", "Modality dominance", "Which modality activates each feature more? Features above μ + σ are ImgD, below "
     "μ − σ TextD, the others CrossD.", "make section-2.1", _dominance),
    ("2.2", "Removing a class", "Does classifying images suffer from the loss of ImgD, and classifying texts from the "
     "loss of TextD, more than from the loss of as many random features?", "make section-2.2", _ablation),
    ("2.3", "What features are made of", "The images and texts that activate features of each class most.",
     "make section-2.3", _top_samples),
    ("3.1, A.1", "Dictionaries", "A TopK sparse autoencoder and a non-negative contrastive head, each shared by both "
     "modalities, trained until the active dimensions of neither fall any more.", "make appendix-a.1", _training),
    ("3.2", "Monosemanticity", "Are the samples that activate a feature alike, more than random ones? By EmbSim and "
     "WinRate (Eq. 5) as in the paper, and by MS beside them.", "make section-3", _interpretability),
    ("4.1", "Concepts in pictures and words", "Is a concept, such as gender, carried by the picture (ImgD) or by the "
     "words (TextD)?", "make section-4.1", _concepts),
    ("4.2", "Adversarial samples", "Which features must be aligned with a benign picture's for an attack to fail?",
     "make section-4.2", _adversarial),
    ("4.3", "Text to image", "What does a reference picture give to a generated one through each class of features?",
     "make section-4.3", _text_to_image),
    ("+", "How sure the classes are", "Which features are dominated beyond chance, and would other pairs, "
     "seeds or scores agree? Not in the paper.", "make section-2.1", _certainty),
    ("+", "What features keep", "What features and reconstructions keep of the embeddings they were made "
     "from. Not in the paper.", "make section-3", _faithfulness),
    ("+", "Does the method find what was put there?", "The same method on embeddings whose concepts are known. "
     "It does not depend on the model. Not in the paper.", "make validate", _validation),
)  # fmt: skip
