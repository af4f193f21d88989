"""`experiments/report.py`: one page with all existing results next to the paper's; it computes no results itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmmono.analyses import ANALYSES
from mmmono.commands.report.basis import pair_differences
from mmmono.commands.report.sections import Sources, sections
from mmmono.commands.selection import Selection
from mmmono.core.artifacts import Artifact, FinishedArtifacts
from mmmono.core.errors import ConfigError, MissingArtifactError
from mmmono.core.modality_names import IMAGE_AND_TEXT
from mmmono.core.provenance import provenance
from mmmono.pipeline.results import ResultsOnDisk, rule_in_words, set_names
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.report import Report, write_report
from mmmono.reporting.tables import console, show_table

FIRST = next(analysis for analysis in ANALYSES if "section-2.1" in analysis.targets)  # what one begins with


CUT = " …"
LONGEST = 80  # characters of a command in the table


def report(workspace: Workspace) -> None:
    """Collect the existing results of the selected features into a page, and list what is missing.

    Raises:
        ConfigError: the features do not exist yet.
    """
    there = Workspace(workspace.cfg, makes="none", artifacts=FinishedArtifacts(workspace.artifacts.root))
    try:
        features = there.features(there.dataset.split)
        there.features(there.settings.training.split)
    except MissingArtifactError as error:
        raise ConfigError(
            f"nothing is computed yet of {there.title} ({error}): start with "
            f"{Selection.given([]).command(FIRST)}, or choose another model= or dataset="
        ) from error
    results = ResultsOnDisk(there)
    explorer = results.page("explorer")
    found = _collect(there, results, explorer)
    made_by = [artifact for section in found.sections for artifact in section.made_by]
    recipe = {
        "features": features.recipe,
        "sets": [there.feature_set_recipe(name) for name in there.specs if name not in results.untrained],
        **there.partition_settings(),
        "seed": there.seed,
        "label": there.dataset.label,
        "setting": found.setting,
        "differences": found.differences,
        "sections": [[s.title, s.command, s.basis, s.remarks, s.others, s.absent] for s in found.sections],
        "untrained": results.untrained,
        "results": [[a.path.name, a.made_at] for a in [*made_by, *([explorer] if explorer else [])]],
        "drawings": {analysis.name: analysis.drawn for analysis in ANALYSES},
        "versions": provenance(),
    }

    def make(directory: Path) -> None:
        write_report(found, directory)

    artifact = workspace.results("report", recipe, make)
    rows: list[dict[str, object]] = [
        {
            "section": section.number, "": section.title, "tables": len(section.tables),
            "figures": len(section.figures), "missing": "" if section.made_by else _shortened(section.command),
        }
        for section in found.sections
    ]  # fmt: skip
    show_table(rows, f"Report: {there.title}")
    if any(str(row["missing"]).endswith(CUT) for row in rows):
        console.print(f"commands that end in{CUT} are whole on the page")
    console.print(f"open in a browser: {artifact.path}/index.html; Markdown and LaTeX: {artifact.path}/tables")


def _shortened(command: str) -> str:
    """A command as a table has room for: its further settings may be long, and are on the page."""
    target, more, _ = command.partition(" ARGS=")
    if not more and len(command) > LONGEST:
        return f"{' '.join(command.split()[:2])}{CUT}"
    return f"{target}{CUT}" if more else command


def _collect(workspace: Workspace, results: ResultsOnDisk, explorer: Artifact | None) -> Report:
    view = workspace.features(workspace.dataset.split).view
    link = (f"../{explorer.path.name}/index.html", set_names(explorer.recipe["sets"])) if explorer else None
    sources = Sources(workspace, results, link, Selection.given(list(workspace.specs)))
    return Report(
        title=workspace.title,
        setting=_setting(workspace, len(view), view.dim),
        differences=[row for row in _differences(sources) if row[1] != row[2]],
        sections=sections(sources),
        untrained={name: _makes(workspace, name, sources.selection) for name in results.untrained},
        explorer=link[0] if link else None,
        explorer_command="make explorer" + sources.selection.arguments("explorer", sources.selection.features),
    )


def _makes(workspace: Workspace, name: str, selection: Selection) -> str:
    """The command that makes a feature set."""
    if workspace.specs[name].trained:
        return f"make appendix-a.1{selection.arguments('train', [name])}"
    return selection.command(FIRST, [name])


def _setting(workspace: Workspace, pairs: int, dim: int) -> dict[str, object]:
    called = workspace.modalities
    of = "" if called == IMAGE_AND_TEXT else f" of {called.first} and {called.second}"
    return {
        "model": f"{workspace.model.name}, {dim} dimensions",
        "pairs": f"{pairs:,}{of} ({workspace.dataset_name}, {workspace.dataset.split})",
        "feature sets": ", ".join(workspace.specs),
        "partition": rule_in_words(workspace.settings.partition.recipe()),
        "seed": workspace.seed,
    }


def _differences(sources: Sources) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, value in the paper, value here); the caller removes equal ones."""
    workspace, model = sources.workspace, sources.workspace.model.name
    if model not in ("clip_rn50", "declip_rn50"):
        yield "model", "CLIP RN50 (OpenAI) and DeCLIP", model
    yield from pair_differences(workspace)
    for kind in workspace.specs.values():
        yield from kind.differences(len(workspace.features(workspace.settings.training.split).view))
    for analysis in ANALYSES:
        for found in sources.found(analysis)[:1]:
            yield from analysis.differences(found.result)
