"""Sections of the report: the results that each reads, and the tables and figures that it shows of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmmono.core.artifacts import Artifact
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.report_basis import DECLIP, PAPERS_OWN, basis_of, origin, papers_own
from mmmono.pipeline.results import ResultsOnDisk, rule_in_words, set_names
from mmmono.pipeline.training import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting import rows as table_rows
from mmmono.reporting.published import published
from mmmono.reporting.report import ReportFigure, ReportSection, ReportTable
from mmmono.reporting.style import save_figure
from mmmono.reporting.training_figures import training_curves


@dataclass(frozen=True)
class Sources:
    """Inputs of the sections.

    Attributes:
        workspace: model, dataset and feature sets; it builds nothing.
        results: results on disk that belong to the workspace.
        explorer: URL of the feature explorer and names of its feature sets; None if there is no explorer.
        scratch: folder for figures that are not part of a result.
        command: arguments of `make <target>` that select this model and dataset.
    """

    workspace: Workspace
    results: ResultsOnDisk
    explorer: tuple[str, Sequence[str]] | None
    scratch: Path
    command: str = ""

    def latest(self, analysis: str) -> Artifact | None:
        """Latest result of an analysis; in the paper's main setting, preferably on the model the paper used for it."""
        theirs = None
        if papers_own(self.workspace) and analysis in PAPERS_OWN:
            theirs = self.results.elsewhere(analysis, *PAPERS_OWN[analysis])
        return theirs or self.results.latest(analysis)

    def note(self, table: str, result: Artifact) -> str | None:
        """Describe how the setting of a table of the paper differs from a result's; None if it does not."""
        model, dataset = origin(result) or (self.workspace.model.name, self.workspace.dataset_name)
        return published(table).difference(model, dataset)

    def feature_link(self, feature_set: str, feature: int) -> str:
        """URL of a feature in the explorer; empty if the explorer does not show it."""
        if self.explorer is None or feature_set not in self.explorer[1]:
            return ""
        return f"{self.explorer[0]}#{feature_set}/{feature}"


def sections(sources: Sources) -> list[ReportSection]:
    """Make all sections, in the paper's order; sections without results have only their command."""
    return [
        _founded(sources, analysis, make(sources, ReportSection(number, title, about, command + sources.command)))
        for number, title, about, command, analysis, make in _CONTENTS
    ]


def _founded(sources: Sources, analysis: str, section: ReportSection) -> ReportSection:
    """Add to a section what its results are based on, results under other settings, and missing parts."""
    workspace = sources.workspace
    own = workspace.features(workspace.dataset.split)
    basis: dict[str, None] = {}
    for result in section.made_by:
        made_from = result.recipe.get("features")
        found = basis_of(workspace.artifacts, made_from, own) if isinstance(made_from, dict) else None
        whose = origin(result)
        if found is not None:
            theirs = (
                f", of {whose[0]} on {whose[1]}, which the paper used for it" if whose and papers_own(workspace) else ""
            )
            rule = result.recipe.get("partition")
            sorted_by = f", sorted by {rule_in_words(rule)}" if theirs and rule else ""
            basis[f"Rests on {found}{theirs}{sorted_by}."] = None
    covered = {name for result in section.made_by for name in set_names(result.recipe.get("sets") or [])}
    gone = [name for name in workspace.recipes if name not in covered and name not in sources.results.untrained]
    absent = dict(section.absent)
    if section.made_by and analysis in OF_ALL_SETS and gone:
        absent |= {f"feature set {name}": f"{section.command} FEATURES={name}" for name in gone}
    if analysis in PAPERS_OWN and papers_own(workspace):
        coco = " COCO=/path/to/coco" if analysis == "ablation" else ""
        section = replace(section, command=section.command + coco)
    others = sources.results.other_settings(analysis) if analysis in ANALYSES_OF_FEATURES else []
    return replace(section, basis=list(basis), others=others, absent=absent)


def _dominance(sources: Sources, section: ReportSection) -> ReportSection:
    shown = {"": sources.results.latest("mds")}
    absent = {}
    if papers_own(sources.workspace):
        shown["DeCLIP"] = sources.results.elsewhere("mds", *DECLIP)
        if shown["DeCLIP"] is None:
            absent["DeCLIP's panel of Figure 4"] = DECLIP_COMMAND
    tables, figures, made_by = [], [], []
    for name, result in shown.items():
        if result is not None:
            of, key = (f", {name}", f"mds-{name.lower()}") if name else ("", "mds")
            rows = table_rows.dominance_rows(_read(result, "summary"))
            tables.append(ReportTable(key, f"Classes and moments of the scores{of}", rows))
            caption = f"Figure 4{of}: modality dominance scores by class; the line is their mean, the dotted one ½."
            figures.append(ReportFigure(result.path / "mds.png", caption))
            made_by.append(result)
    return replace(section, tables=tables, figures=figures, made_by=made_by, absent=absent if made_by else {})


def _ablation(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.latest("ablation")
    if result is None:
        return section
    found, keep = _read(result, "table1"), bool(result.recipe["ablation"]["keep"])
    tables = [
        ReportTable(f"table1-{name}", f"Table 1, {name}", table_rows.ablation_rows(found, name, keep))
        for name in table_rows.names(found)
    ]
    caption = "Change of accuracy when a class of features is removed, beside as many random ones; 95 % intervals."
    figure = ReportFigure(result.path / "table1.png", caption)
    return replace(section, tables=tables, figures=[figure], made_by=[result], note=sources.note("table1", result))


def _top_samples(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.results.latest("top_samples")
    if result is None:
        return section
    sheets = _read(result, "sheets")
    numbers = {
        "ImgD": "Figure 1",
        "TextD": "Figure 2",
        "CrossD": "Figure 3",
        "chosen": "Figures 1 to 3, chosen features",
    }
    figures = [
        ReportFigure(file, f"{number}, {name}: images and texts that activate these features most.")
        for members, number in numbers.items()
        for name in set_names(result.recipe["sets"])
        if (file := result.path / f"{name}-{members}.png").exists()
    ]
    links = {"feature": [sources.feature_link(row["feature_set"], row["feature"]) for row in sheets]}
    tables = [ReportTable("top_samples", "Features shown", table_rows.sheet_rows(sheets), links)] if sheets else []
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
    return replace(section, tables=tables, figures=figures, made_by=[result], note=sources.note("table5", result))


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
    return replace(section, tables=tables, figures=figures, made_by=made_by, note=sources.note("table2", made_by[0]))


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
    return replace(section, tables=tables, figures=figures, made_by=[result], note=sources.note("table3", result))


def _text_to_image(sources: Sources, section: ReportSection) -> ReportSection:
    result = sources.latest("text_to_image")
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
    """Figures of a result that exist, with their captions."""
    files = {name: result.path / f"{name}.png" for name in captions}
    return [ReportFigure(file, captions[name]) for name, file in files.items() if file.exists()]


OF_ALL_SETS = ("mds", "certainty", "top_samples", "interpretability", "faithfulness")
ANALYSES_OF_FEATURES = (*OF_ALL_SETS, "ablation", "gender", "adversarial", "text_to_image")
DECLIP_COMMAND = (
    "python experiments/mds.py +paper=figure4 model=declip_rn50 model.checkpoint=/path/to/checkpoint features=raw"
)

Make = Callable[[Sources, ReportSection], ReportSection]

_CONTENTS: Sequence[tuple[str, str, str, str, str, Make]] = (
    ("2.1", "Modality dominance", "Which modality activates each feature more? Features above μ + σ are ImgD, below "
     "μ − σ TextD, the others CrossD.", "make section-2.1", "mds", _dominance),
    ("2.2", "Removing a class", "Does classifying images suffer from the loss of ImgD, and classifying texts from the "
     "loss of TextD, more than from the loss of as many random features?", "make section-2.2", "ablation", _ablation),
    ("2.3", "What features are made of", "The images and texts that activate features of each class most.",
     "make section-2.3", "top_samples", _top_samples),
    ("3.1, A.1", "Dictionaries", "A TopK sparse autoencoder and a non-negative contrastive head, each shared by both "
     "modalities, trained until the active dimensions of neither fall any more.", "make appendix-a.1", "", _training),
    ("3.2", "Monosemanticity", "Are the samples that activate a feature alike, more than random ones? By EmbSim and "
     "WinRate (Eq. 5) as in the paper, and by MS beside them.", "make section-3", "interpretability", _interpretability),
    ("4.1", "Concepts in pictures and words", "Is a concept, such as gender, carried by the picture (ImgD) or by the "
     "words (TextD)?", "make section-4.1", "gender", _concepts),
    ("4.2", "Adversarial samples", "Which features must be aligned with a benign picture's for an attack to fail?",
     "make section-4.2", "adversarial", _adversarial),
    ("4.3", "Text to image", "What does a reference picture give to a generated one through each class of features?",
     "make section-4.3", "text_to_image", _text_to_image),
    ("+", "How sure the classes are", "Which features are dominated beyond chance, and would other pairs, "
     "seeds or scores agree? Not in the paper.", "make section-2.1", "certainty", _certainty),
    ("+", "What features keep", "What features and reconstructions keep of the embeddings they were made "
     "from. Not in the paper.", "make section-3", "faithfulness", _faithfulness),
    ("+", "Does the method find what was put there?", "The same method on embeddings whose concepts are known. "
     "It does not depend on the model. Not in the paper.", "make validate", "validation", _validation),
)  # fmt: skip
