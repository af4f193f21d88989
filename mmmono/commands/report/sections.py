"""Sections of the report: one for each analysis, with the tables and figures that it declares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmmono.analyses import ANALYSES
from mmmono.commands.report.basis import basis_of, is_papers_setting
from mmmono.commands.selection import Selection
from mmmono.core.artifacts import Artifact
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.features.selection import Split
from mmmono.pipeline.analysis import Analysis, shown_figures, shown_tables
from mmmono.pipeline.repeated import repeated_pairs
from mmmono.pipeline.results import ResultsOnDisk, rule_in_words, set_names
from mmmono.pipeline.unreachable import unreachable_classes
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.published import published
from mmmono.reporting.report import ReportFigure, ReportSection, ReportTable
from mmmono.reporting.result import Result, Rows


@dataclass(frozen=True)
class Found:
    """A result that a section shows.

    Attributes:
        artifact: the result on disk.
        result: the same for reading.
        of: name of the further result if it is one, such as DeCLIP's panel of a figure; else empty.
    """

    artifact: Artifact
    result: Result
    of: str = ""


@dataclass(frozen=True)
class Sources:
    """Inputs of the sections.

    Attributes:
        workspace: model, dataset and feature sets; it builds nothing.
        results: results on disk that belong to the workspace.
        explorer: URL of the feature explorer and names of its feature sets; None if there is no explorer.
        selection: what the report was asked for, which commands name.
        told: what was found of images of several groups, by split.
    """

    workspace: Workspace
    results: ResultsOnDisk
    explorer: tuple[str, Sequence[str]] | None
    selection: Selection
    told: dict[Split, Sequence[str]] = field(default_factory=dict)

    def found(self, analysis: Analysis) -> list[Found]:
        """Results of an analysis to show; in the paper's main setting, preferably on the model the paper used for it."""
        if analysis.kind == "dictionaries":
            kinds = self.workspace.specs.items()
            names = [n for n, kind in kinds if kind.trained and n not in self.results.untrained]
            return [self._read(analysis, self.workspace.dictionary(name)) for name in names]
        if not analysis.of_features:
            return [self._read(analysis, a) for a in [self.results.unrelated(analysis)] if a is not None]
        theirs = self._papers_own(analysis)
        if theirs is not None:
            return [theirs]
        own = self.results.of(analysis)
        if analysis.one_for_each:
            by_subject: dict[str, Artifact] = {}
            for artifact in own:
                by_subject.setdefault(json.dumps(artifact.recipe[analysis.one_for_each], sort_keys=True), artifact)
            own = list(by_subject.values())
        else:
            own = own[:1]
        return [*(self._read(analysis, artifact) for artifact in own), *self._more(analysis)]

    def missing_parts(self, analysis: Analysis) -> list[str]:
        """Names of the paper's further results, such as DeCLIP's panel of a figure, that do not exist."""
        setting = analysis.paper_setting
        if setting is None or not is_papers_setting(self.workspace):
            return []
        return [n for n, of in setting.more.items() if self.results.elsewhere(analysis, *of) is None]

    def modalities(self, analysis: Analysis) -> ModalityNames:
        """What the modalities are called in a section; always image and text if it does not depend on the dataset."""
        return self.workspace.modalities if analysis.of_features else IMAGE_AND_TEXT

    def feature_link(self, feature_set: str, feature: int) -> str:
        """URL of a feature in the explorer; empty if the explorer does not show it."""
        if self.explorer is None or feature_set not in self.explorer[1]:
            return ""
        return f"{self.explorer[0]}#{feature_set}/{feature}"

    def repeated(self, artifact: Artifact) -> Iterator[str]:
        """Yield a sentence if a result is of pairs of this workspace with images of several groups; see `repeated_pairs`."""
        for split in dict.fromkeys((self.workspace.dataset.split, self.workspace.dataset.whole_split())):
            if artifact.recipe.get("features") == self.workspace.features(split).recipe:
                if split not in self.told:
                    self.told[split] = list(repeated_pairs(self.workspace, split))
                yield from self.told[split]

    def _papers_own(self, analysis: Analysis) -> Found | None:
        """Result on the model and dataset that the paper used for this analysis, if these are not its main ones."""
        setting = analysis.paper_setting
        if setting is None or not setting.model or not is_papers_setting(self.workspace):
            return None
        artifact = self.results.elsewhere(analysis, setting.model, setting.dataset)
        return None if artifact is None else self._read(analysis, artifact, of=(setting.model, setting.dataset))

    def _more(self, analysis: Analysis) -> Iterator[Found]:
        setting = analysis.paper_setting
        if setting is not None and is_papers_setting(self.workspace):
            for name, of in setting.more.items():
                artifact = self.results.elsewhere(analysis, *of)
                if artifact is not None:
                    yield self._read(analysis, artifact, of, name)

    def _read(self, analysis: Analysis, artifact: Artifact, of: tuple[str, str] | None = None, name: str = "") -> Found:
        own = (self.workspace.model.name, self.workspace.dataset_name, self.modalities(analysis))
        return Found(artifact, analysis.result(artifact, *(of or own)), name)


def sections(sources: Sources) -> list[ReportSection]:
    """Make all sections, in the paper's order; sections without results have only their command."""
    return [section_of(sources, analysis) for analysis in ANALYSES if analysis.section]


def section_of(sources: Sources, analysis: Analysis) -> ReportSection:
    """Make the section of an analysis: its tables and figures, what they are based on, and what is missing."""
    shown = sources.found(analysis)
    note = None
    if shown and analysis.published is not None:
        note = published(analysis.published).difference(shown[0].result.model, shown[0].result.dataset)
    return ReportSection(
        analysis.section,
        analysis.title,
        analysis.asked(sources.modalities(analysis)),
        sources.selection.command(analysis) + _coco(sources, analysis),
        tables=[table for found in shown for table in _tables(sources, analysis, found)],
        figures=[figure for found in shown for figure in _figures(analysis, found)],
        made_by=[found.artifact for found in shown],
        note=note,
        basis=list(dict.fromkeys(line for found in shown for line in _basis(sources, found))),
        remarks=list(dict.fromkeys(line for found in shown for line in _remarks(sources, analysis, found))),
        others=sources.results.other_settings(analysis) if _has_settings(analysis) else [],
        absent=_absent(sources, analysis, shown) if shown else {},
    )


def _tables(sources: Sources, analysis: Analysis, found: Found) -> Iterator[ReportTable]:
    for name, title, rows in shown_tables(analysis, found.result):
        suffix, of = (f"-{found.of.lower()}", f", {found.of}") if found.of else ("", "")
        classes = found.result.modalities.classes
        yield ReportTable(f"{name}{suffix}", f"{title}{of}", rows, _links(sources, rows), classes)


def _figures(analysis: Analysis, found: Found) -> Iterator[ReportFigure]:
    for file, caption in shown_figures(analysis, found.result):
        head, colon, rest = caption.partition(":")
        yield ReportFigure(file, f"{head}, {found.of}{colon}{rest}" if found.of else caption)


def _links(sources: Sources, rows: Rows) -> dict[str, list[str]]:
    """Links to the explorer, for tables with a row for each feature."""
    if not rows or not {"feature set", "feature"} <= set(rows[0]):
        return {}
    return {"feature": [sources.feature_link(row["feature set"], row["feature"]) for row in rows]}


def _basis(sources: Sources, found: Found) -> Iterator[str]:
    """Say which pairs a result is computed from, and which classes none of its features can be in.

    Nothing if it depends on no pairs, or they do not exist any more.
    """
    workspace, recipe = sources.workspace, found.artifact.recipe
    made_from = recipe.get("features")
    if not isinstance(made_from, dict):
        return
    basis = basis_of(workspace, made_from)
    if basis is None:
        return
    of = (found.result.model, found.result.dataset)
    if of == (workspace.model.name, workspace.dataset_name):
        yield f"Rests on {basis}."
    else:
        rule = recipe.get("partition")
        sorted_by = f", sorted by {rule_in_words(rule)}" if rule else ""
        yield f"Rests on {basis}, of {of[0]} on {of[1]}, which the paper used for it{sorted_by}."
    yield from unreachable_classes(workspace, recipe)


def _remarks(sources: Sources, analysis: Analysis, found: Found) -> Iterator[str]:
    """What the analysis' command prints below its tables: what intervals are over, what is corrected, what is left out."""
    of = f"{found.of}: " if found.of else ""
    yield from (f"{of}{remark}" for remark in analysis.remarks(found.result))
    yield from sources.repeated(found.artifact)


def _absent(sources: Sources, analysis: Analysis, shown: Sequence[Found]) -> dict[str, str]:
    """Parts that a section with results lacks, each with the command that makes it."""
    absent = {}
    setting = analysis.paper_setting
    for name in sources.missing_parts(analysis):
        assert setting is not None
        absent[f"{name}'s panel of {analysis.paper}"] = (
            f"python experiments/{analysis.name}.py +paper={setting.option} model={setting.more[name][0]} "
            "model.checkpoint=/path/to/checkpoint features=raw"
        )
    if analysis.covers_all:
        covered = {name for found in shown for name in set_names(found.artifact.recipe.get("sets") or [])}
        for name in sources.workspace.specs:
            if name not in covered and name not in sources.results.untrained:
                absent[f"feature set {name}"] = sources.selection.command(analysis, [name])
    return absent


def _coco(sources: Sources, analysis: Analysis) -> str:
    setting = analysis.paper_setting
    theirs = setting is not None and setting.dataset == "coco" and is_papers_setting(sources.workspace)
    return " COCO=/path/to/coco" if theirs else ""


def _has_settings(analysis: Analysis) -> bool:
    return analysis.of_features and analysis.kind == "results"
