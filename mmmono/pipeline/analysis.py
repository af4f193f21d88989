"""The type that declares an analysis, and how one is run.

An analysis lives in a folder `mmmono/analyses/<name>/`:

`__init__.py`   declares one `Analysis`; imports nothing heavy, so that listing all analyses is fast
`analysis.py`   has `prepare(workspace)`, which checks all inputs and returns a `Study`: what to compute, and its recipe
`figures.py`    has `draw(result)`, which draws the figures from the saved tables; missing if there are none to draw

The terminal, the report, W&B, the plan, the make targets and README's table are loops over these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mmmono.core.artifacts import RECIPE_FILE, Artifact
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.versions import FIGURES, KEY, version_of
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.drawn import drawn, note_drawn
from mmmono.reporting.result import Fields, Result, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmmono.features.selection import Split
    from mmmono.pipeline.workspace import Workspace

Tables = Mapping[str, Sequence[Mapping[str, object]]]  # rows of each table, by its name

FEATURE_SET = "{feature_set}"  # in a name: one table or figure for each feature set


@dataclass(frozen=True)
class TableView:
    """A table as it is shown in the terminal, the report, Markdown and LaTeX.

    Attributes:
        name: its file name in the report. With `{feature_set}` in it, there is one table for each feature set.
        title: its title; fields in braces as in `Analysis.fields`.
        rows: formats a result's saved numbers: called with the result, and with the name of the feature set if `name`
            has it. No rows: the table is left out.
    """

    name: str
    title: str
    rows: Callable[..., Rows]


@dataclass(frozen=True)
class FigureView:
    """A figure, or all figures whose names match a pattern.

    Attributes:
        name: file name without suffix; may have fields in braces, such as `{feature_set}-curves`.
        caption: its caption; may have the same fields, and those of `Analysis.fields`.
        values: what the fields of the name may stand for, except `feature_set`; none: anything.
    """

    name: str
    caption: str
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperSetting:
    """How the paper ran an analysis.

    Attributes:
        option: file in conf/paper with the paper's settings.
        model, dataset: the model and the dataset if they are not those of the paper's main setting.
        chooses: groups that the option chooses itself, whatever model, dataset and features a reproduction is for.
        more: further results that belong to it, such as a figure's panel of another model: name to (model, dataset).
    """

    option: str
    model: str = ""
    dataset: str = ""
    chooses: Sequence[str] = ()
    more: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """An analysis with checked inputs.

    Attributes:
        recipe: everything that determines the numbers.
        compute: computes the tables by name, each as a list of rows. It may write other files, such as images, into
            the folder that it is called with.
        label: distinguishes results of different subjects in the name of the folder, such as a pair of concepts.
        resumable: whether `compute` goes on with the files of an interrupted attempt.
    """

    recipe: Mapping[str, Any]
    compute: Callable[[Path], Tables]
    label: str = ""
    resumable: bool = False


@dataclass(frozen=True)
class Analysis:
    """Declaration of an analysis.

    Attributes:
        name: name of the entrypoint, the configuration, the folder in `mmmono/analyses` and the folders of results.
        section: section of the paper; `+` if it is not in the paper.
        title: title of its section in the report.
        question: the question it answers, in a sentence or two; may have the fields of `ModalityNames.fields`.
        paper: the paper's figures and tables that it makes, for lists, such as `Figure 4`.
        targets: make targets that run it. Sections contain their subsections: `section-2` runs `section-2.1`.
        version: part of each result's address, to be raised whenever a change of the code changes the numbers.
        reads: kinds of scores that it reads beside partitions, such as `sharedness`; their versions are part of the address.
        settings: dataclass of the settings in the section of the configuration that has its name, or of those in no section
            if there is no such section; None if it has none.
        columns: the tables it saves, each with its columns and what they hold.
        contrasts: what is judged over trainings with other seeds; conf/analysis then has an option of its name.
        tables, figures: what is shown of a result.
        drawing: version of the figures, to be raised when their code changes; they are then drawn anew from the tables.
        fields: values for the fields in titles and captions, beside `feature_set` and those of `ModalityNames.fields`.
        remarks: lines to print below the tables.
        published: the paper's table beside which the numbers are shown, such as `table1`.
        paper_setting: how the paper ran it; None if it is not in the paper.
        features: feature sets that its make targets choose; empty for those of its configuration.
        covers_all: whether its results should cover all selected feature sets, so that the report names missing ones.
        kind: kind of artifact of its results; dictionaries are made by training, not by `prepare`.
        of_features: whether its results depend on the features of a model and a dataset.
        compares_own_sets: whether it compares feature sets of its own choice, whatever the selected ones are.
        one_for_each: entry of the recipe by which results stand side by side in the report, such as `concept`.
        split_setting: setting that names the split whose pairs its tables are of, such as `ablation.split`; `auto`: all
            pairs if a hash splits them; empty: the dataset's split.
        more_seeds: setting with the number of further seeds whose dictionaries it needs, such as `consensus.n_seeds`.
        embeds_anew: whether it loads the model even if its features exist.
        embeds_labels: whether it loads the model to embed the names of the dataset's labels, if it has any.
        weights: settings that name weights to download, such as `victim.model`, and what they are called.
        differences: how a result's settings differ from the paper's: (setting, the paper's value, the value here).
        curves, bars, histograms: panels in W&B: metrics over training steps, summary values by run, and scores.
    """

    name: str
    section: str
    title: str
    question: str
    paper: str = ""
    targets: Sequence[str] = ()
    version: int = 1
    reads: Sequence[str] = ()
    settings: type | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    contrasts: Sequence[Contrast] = ()
    tables: Sequence[TableView] = ()
    figures: Sequence[FigureView] = ()
    drawing: int = 1
    fields: Callable[[Result], Fields] = lambda result: {}
    remarks: Callable[[Result], Iterable[str]] = lambda result: ()
    published: str | None = None
    paper_setting: PaperSetting | None = None
    features: str = ""
    covers_all: bool = False
    kind: str = "results"
    of_features: bool = True
    compares_own_sets: bool = False
    one_for_each: str = ""
    split_setting: str = ""
    more_seeds: str = ""
    embeds_anew: bool = False
    embeds_labels: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)
    differences: Callable[[Result], Iterable[tuple[str, str, str]]] = lambda result: ()
    curves: Sequence[tuple[str, ...]] = ()
    bars: Sequence[str] = ()
    histograms: Sequence[str] = ()

    def split(self, workspace: Workspace) -> Split:
        """Split whose pairs its tables are of."""
        if not self.split_setting:
            return workspace.dataset.split
        if self.split_setting == "auto":
            return workspace.dataset.whole_split()
        return workspace.dataset.whole_split(str(OmegaConf.select(workspace.cfg, self.split_setting)))

    def asked(self, modalities: ModalityNames = IMAGE_AND_TEXT) -> str:
        """Return the question with the modalities called by their names."""
        return self.question.format(**modalities.fields)

    @property
    def command(self) -> str:
        """Command that makes its results, without model, dataset and settings."""
        return f"make {self.targets[0]}" if self.targets else f"python experiments/{self.name}.py"

    @property
    def versions(self) -> dict[str, Any]:
        """Entries of each result's recipe: its own version, and those of the scores that it reads."""
        read = {"read": {kind: version_of(kind) for kind in self.reads}} if self.reads else {}
        return {KEY: self.version, **read}

    def is_current(self, recipe: Mapping[str, Any]) -> bool:
        """Whether a result with this recipe is of the current versions."""
        return all(recipe.get(key) == value for key, value in self.versions.items())

    @property
    def drawn(self) -> dict[str, int]:
        """Versions of what draws its figures: its own code, and the look that all figures share."""
        return {"version": self.drawing, "look": FIGURES}

    def prepare(self, workspace: Workspace) -> Study:
        """Check the inputs and settings, before any heavy computation.

        Raises:
            MissingArtifactError: the workspace builds nothing, and features or dictionaries do not exist.
            MmmonoError: an input or a setting is invalid.
        """
        study: Study = self._module("analysis").prepare(workspace)
        return study

    def draw(self, result: Result) -> Iterator[tuple[str, Figure]]:
        """Draw the figures from the saved tables; yield their names without suffix, and the figures."""
        if self.figures and (module := self._module("figures")) is not None:
            yield from module.draw(result)

    def _module(self, name: str) -> Any:
        folder = f"mmmono.analyses.{self.name}"
        try:
            return import_module(f"{folder}.{name}")
        except ModuleNotFoundError as error:
            if name == "figures" and error.name == f"{folder}.figures":
                return None  # its figures show images, and are drawn while these are at hand
            raise

    def result(
        self, artifact: Artifact, model: str, dataset: str, modalities: ModalityNames = IMAGE_AND_TEXT
    ) -> Result:
        """Return a result for reading; figures of an earlier version, or with other names of modalities, are drawn anew."""
        result = Result(artifact.path, artifact.recipe, model, dataset, modalities)
        versions, called = drawn(artifact.path)
        if self.figures and (versions not in (None, self.drawn) or called != modalities):
            with suppress(OSError):  # a root that may only be read keeps its figures
                self._save_figures(result)
        return result

    def parts(self, workspace: Workspace) -> Iterable[tuple[str, Analysis, Workspace]]:
        """Return results that are made on the way and do not exist: what to call them, whose, with which settings."""
        return ()

    def find(self, workspace: Workspace) -> Artifact | None:
        """Return the results if they exist; None if not. Raises what `prepare` raises."""
        path, recipe = self.place(workspace)
        return Artifact(path, recipe, built=False) if (path / RECIPE_FILE).exists() else None

    def make(self, workspace: Workspace) -> Result:
        """Return the results, made unless they exist. Raises what `prepare` and the computation raise."""
        study = self.prepare(workspace)
        path, recipe = self.place(workspace, study)
        if (path / RECIPE_FILE).exists():  # trackers then log its figures as they should be
            self.result(Artifact(path, recipe, built=False), *_names(workspace, self))

        def make(folder: Path) -> None:
            self._save(study.compute(folder), folder)
            self._save_figures(Result(folder, study.recipe, *_names(workspace, self)))

        artifact = workspace.artifacts.build("results", *self._address(workspace, study), make, study.resumable)
        return self.result(artifact, *_names(workspace, self))

    def _address(self, workspace: Workspace, study: Study) -> tuple[str, dict[str, Any]]:
        name = f"{self.name}-{study.label}" if study.label else self.name
        if self.of_features:
            name = f"{name}-{workspace.features(workspace.dataset.split).store.path.name}"
        return name, {**study.recipe, **self.versions}

    def place(self, workspace: Workspace, study: Study | None = None) -> tuple[Path, dict[str, Any]]:
        """Return the folder of the results, whether they exist or not, and their recipe. Raises what `prepare` raises."""
        study = study or self.prepare(workspace)
        name, recipe = self._address(workspace, study)
        return workspace.artifacts.path("results", name, recipe), recipe

    def _save(self, tables: Tables, folder: Path) -> None:
        from mmmono.reporting.tables import save_table

        for name, rows in tables.items():
            save_table(rows, folder / name, list(self.columns[name]))

    def _save_figures(self, result: Result) -> None:
        from mmmono.reporting.style import save_figure

        for name, figure in self.draw(result):
            save_figure(figure, result.folder / name)
        if self.figures:
            note_drawn(result.folder, self.drawn, result.modalities)


def run(analysis: Analysis, workspace: Workspace) -> Result:
    """Make an analysis' results unless they exist, and show them in the terminal."""
    from mmmono.pipeline.images import print_missing
    from mmmono.pipeline.repeated import repeated_pairs
    from mmmono.pipeline.unreachable import unreachable_classes
    from mmmono.reporting.published import published
    from mmmono.reporting.tables import console, show_table

    result = analysis.make(workspace)
    print_missing(result.folder)
    of = f": {workspace.head(analysis.split(workspace))}" if analysis.of_features else ""
    for _, title, rows in shown_tables(analysis, result):
        show_table(rows, f"{title}{of}")
    if analysis.published is not None:
        difference = published(analysis.published).difference(result.model, result.dataset)
        if difference:
            console.print(difference)
    repeated = repeated_pairs(workspace, analysis.split(workspace)) if analysis.of_features else ()
    for remark in (*analysis.remarks(result), *unreachable_classes(workspace, result.recipe), *repeated):
        console.print(remark)
    console.print(f"{result.folder}: {_contents(result)}", highlight=False)
    return result


def shown_tables(analysis: Analysis, result: Result) -> Iterator[tuple[str, str, Rows]]:
    """Yield the tables to show of a result: name, title and rows."""
    fields = {**result.modalities.fields, **analysis.fields(result)}
    for view in analysis.tables:
        sets = [[name] for name in result.feature_sets] if FEATURE_SET in view.name else [[]]
        for of in sets:
            own = {**fields, **({"feature_set": of[0]} if of else {})}
            if rows := view.rows(result, *of):
                yield view.name.format(**own), view.title.format(**own), rows


def shown_figures(analysis: Analysis, result: Result) -> Iterator[tuple[Path, str]]:
    """Yield the figures of a result: PNG file and caption."""
    fields = {**result.modalities.fields, **analysis.fields(result)}
    for view in analysis.figures:
        for name, own in result.figures(view.name, view.values):
            yield result.folder / f"{name}.png", view.caption.format(**{**fields, **own})


def _names(workspace: Workspace, analysis: Analysis) -> tuple[str, str, ModalityNames]:
    if not analysis.of_features:
        return "", "", IMAGE_AND_TEXT
    return workspace.model.name, workspace.dataset_name, workspace.modalities


def _contents(result: Result) -> str:
    figures = ", ".join(sorted(file.name for file in result.folder.glob("*.png")))
    tables = ", ".join(sorted(file.name for file in result.folder.glob("*.parquet")))
    return "; ".join(part for part in (figures, tables) if part)
