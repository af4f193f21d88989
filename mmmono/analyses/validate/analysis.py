"""Recovery of synthetic concepts by dictionaries, by R(d) and other scores, and by partitions of the features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mmmono.analyses.validate import MEASURES, Settings
from mmmono.analyses.validate.runs import Run, base_values, runs
from mmmono.core.errors import ConfigError
from mmmono.modality import (
    dominance_scores,
    energy_ratio,
    image_auroc,
    modality_dominance_score,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
    resample_dominance,
    sharedness_scores,
)
from mmmono.modality.agreement import feature_correlations
from mmmono.modality.dominance import Undefined
from mmmono.modality.validation import (
    ConceptMatch,
    balanced_accuracy,
    discoveries,
    matched_cosine,
    mean_interval,
    mean_max_cosine,
    separation,
    shared_auroc,
)
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.datasets import Synthetic
from mmmono.pipeline.running import quiet
from mmmono.pipeline.specs import Fitted, Trained
from mmmono.pipeline.synthetic_runs import Truth, content, in_parallel
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console

MARGIN = 0.3
AUROC_PAIRS = 20_000  # enough: more pairs do not change the AUROC noticeably


Row = dict[str, object]


@dataclass
class _Found:
    """Rows of each table, collected over runs."""

    validation: list[Row] = field(default_factory=list)
    readings: list[Row] = field(default_factory=list)
    discoveries: list[Row] = field(default_factory=list)

    def add(self, other: _Found) -> None:
        self.validation += other.validation
        self.readings += other.readings
        self.discoveries += other.discoveries


def prepare(workspace: Workspace) -> Study:
    """Train on synthetic pairs, varying one parameter at a time, and compare with the ground truth.

    Raises:
        ConfigError: the dataset is not synthetic, or a setting is invalid; raised before any training.
    """
    cfg = workspace.cfg
    if not isinstance(workspace.dataset, Synthetic):
        raise ConfigError(f"validation needs to know the answer: set dataset=synthetic, not {workspace.dataset_name}")
    settings = read_settings(cfg, "validate", Settings)
    todo = runs(cfg, settings)

    def compute(folder: Path) -> Tables:
        found = _Found()
        measured = in_parallel(_measure, todo, settings.jobs, workspace.device)
        for number, (run, rows) in enumerate(zip(todo, measured, strict=True), start=1):
            console.print(f"{number} of {len(todo)}: {run.title}")
            found.add(rows)
        tables = {
            "validation": found.validation,
            "readings": found.readings,
            "summary": _summary(pd.DataFrame(found.validation)),
            "discoveries": found.discoveries,
            "parameters": [{"parameter": name, "base": base} for name, base in base_values(cfg, settings).items()],
        }
        return {name: rows for name, rows in tables.items() if rows}

    own = {key: value for key, value in content(cfg)["validate"].items() if key != "jobs"}
    kinds = {name: kind.recipe() for name, kind in workspace.specs.items() if isinstance(kind, Trained | Fitted)}
    return Study({"runs": [content(run.cfg, ("validate",)) for run in todo], "validate": own, "kinds": kinds}, compute)


def _measure(run: Run) -> _Found:
    quiet()
    if run.parameter == "equal_gains":
        return _Found(discoveries=list(_discoveries(run)))
    workspace = Workspace(run.cfg, makes="none")
    place = {"parameter": run.parameter, "value": run.value, "seed": run.seed}
    found = _Found()
    for name in workspace.specs:
        compared = _Compared(workspace, name)
        found.validation.append({**place, "feature_set": name, **compared.recovery()})
        found.readings += [{**place, "feature_set": name, **reading} for reading in compared.readings()]
    if "sae" in workspace.specs and run.parameter in ("", "gap"):
        cfg = run.cfg.copy()
        cfg.sae.center = "per_modality" if cfg.sae.center == "pooled" else "pooled"
        centered = _Compared(Workspace(cfg, makes="none"), "sae")
        found.readings.append({**place, "feature_set": "sae", **centered.reading(f"sae.center={cfg.sae.center}")})
    return found


class _Compared:
    """A feature set compared with the ground truth."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.truth = Truth(workspace)
        self.feature_set = workspace.feature_set(name)
        self.scored = workspace.dominance(name)
        self.live = workspace.live(self.scored.scores)
        self.match = ConceptMatch.of(feature_correlations(self._with_codes()))

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((block.image, block.text) for block in self.workspace.activations(self.feature_set))

    def _with_codes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of true codes and activations, for images and texts in turn."""
        for block in self.workspace.activations(self.feature_set):
            rows = slice(block.start, block.start + len(block.image))
            yield self.truth.image[rows], block.image.cpu()
            yield self.truth.text[rows], block.text.cpu()

    def recovery(self) -> Row:
        settings = read_settings(self.workspace.cfg, "validate", Settings)
        cosines: dict[str, float | None] = {"max_cosine": None, "matched_cosine": None}
        if (learned := self.feature_set.atoms) is not None:
            cosines = {
                "max_cosine": mean_max_cosine(self.truth.atoms, learned),
                "matched_cosine": matched_cosine(self.truth.atoms, learned),
            }
        scores, live = self.scored.scores.scores, self.live
        q_value = resample_dominance(
            self.pairs(), settings.n_permutations, 1, 1, self.workspace.seed, self.truth.groups
        ).q_value
        by_null = partition_by_null(scores, q_value, settings.fdr, live)
        shared = sharedness_scores(self.pairs(), self.truth.groups).score.where(live, torch.nan)
        lean = (scores - 0.5).abs().where(live, torch.nan)
        return {
            **cosines,
            "correlation": float(self.match.correlation.mean()),
            **asdict(separation(scores, self.match, self.truth.kind, self.truth.gain)),
            "auroc_sharedness": shared_auroc(shared, self.match, self.truth.kind),
            "auroc_lean": shared_auroc(-lean, self.match, self.truth.kind),
            "accuracy_sigma": balanced_accuracy(partition_by_sigma(scores, live=live), self.match, self.truth.kind),
            "accuracy_margin": balanced_accuracy(
                partition_by_margin(scores, MARGIN, live), self.match, self.truth.kind
            ),
            "accuracy_null": balanced_accuracy(by_null, self.match, self.truth.kind),
            "live": int(live.sum()),
        }

    def readings(self) -> Iterator[Row]:
        """Variants of R(d) and other scores of the same features, each partitioned by its own μ ± σ."""
        undefined = self.workspace.settings.mds.undefined
        other: Undefined = "half" if undefined == "skip" else "skip"
        yield self.reading(f"mds.undefined={undefined}")
        yield self.reading(f"mds.undefined={other}", dominance_scores(self.pairs(), other).scores)
        yield self.reading("energy ratio", energy_ratio(self.pairs()))
        image, text = (torch.cat(side)[:AUROC_PAIRS].cpu() for side in zip(*self._some_pairs(), strict=True))
        yield self.reading("AUROC", image_auroc(image, text))

    def _some_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        taken = 0
        for image, text in self.pairs():
            yield image.clone(), text.clone()
            taken += len(image)
            if taken >= AUROC_PAIRS:
                return

    def reading(self, name: str, scores: Tensor | None = None) -> Row:
        scores = self.scored.scores.scores if scores is None else scores
        partition = partition_by_sigma(scores, live=self.live)
        return {
            "reading": name,
            **asdict(separation(scores.where(self.live, torch.nan), self.match, self.truth.kind, self.truth.gain)),
            "accuracy": balanced_accuracy(partition, self.match, self.truth.kind),
        }


def _discoveries(run: Run) -> Iterator[Row]:
    """False discoveries of the permutation null, on the true codes of the concepts and on learned features."""
    settings = read_settings(run.cfg, "validate", Settings)
    workspace = Workspace(run.cfg, makes="none")
    truth = Truth(workspace)
    numbers = torch.arange(len(truth.kind))
    codes = (truth.image, truth.text)
    tested = [
        (
            "concepts",
            [codes],
            modality_dominance_score(*codes),
            ConceptMatch(numbers, torch.ones(len(numbers)), numbers),
        )
    ]
    for name in workspace.specs:
        compared = _Compared(workspace, name)
        tested.append((name, list(compared.pairs()), compared.scored.scores.scores, compared.match))
    for name, pairs, scores, match in tested:
        q_value = resample_dominance(pairs, settings.n_permutations, 1, 1, run.seed).q_value
        null = int((truth.kind[match.concept[~scores.isnan()]] == 2).sum())
        # Reconstruction errors let one modality slightly dominate a latent; the second rule requires a large effect.
        far = q_value.where((scores - 0.5).abs() > MARGIN, 1.0)
        rules = (("null", q_value), (f"null and ½ ± {MARGIN}", far))
        for level, (rule, q) in product(settings.equal_gains.levels, rules):
            counted = discoveries(partition_by_null(scores, q, level), match, truth.kind)
            yield {
                "seed": run.seed, "feature_set": name, "rule": rule, "level": level, "discoveries": counted.made,
                "false_discoveries": counted.false, "proportion": counted.proportion,
                "true_nulls": null, "tested": int((~scores.isnan()).sum()),
            }  # fmt: skip


def _summary(rows: pd.DataFrame) -> list[Row]:
    """Mean over seeds and 95 % t interval of every measure in every setting."""
    summary: list[Row] = []
    groups = rows.groupby(["parameter", "value", "feature_set"], sort=False, dropna=False)
    for (parameter, value, name), part in groups:
        place = {"parameter": parameter, "value": value, "feature_set": name}
        for measure in MEASURES:
            interval = mean_interval(part[measure].astype(float).tolist())
            summary.append({**place, "measure": measure, **interval.columns("mean"), "seeds": len(part)})
    return summary
