"""What other analyses found about the features that the explorer shows, where they were run with the same settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.analyses.certainty import CERTAINTY
from mmmono.analyses.consensus import CONSENSUS
from mmmono.analyses.interpretability import INTERPRETABILITY
from mmmono.analyses.names import NAMES
from mmmono.analyses.sharedness import SHAREDNESS
from mmmono.commands.explorer.page import FoundAgain, Named
from mmmono.core.artifacts import Artifact
from mmmono.core.saved import read_frame
from mmmono.features import MODALITIES, Modality
from mmmono.modality import LIVE_CLASSES
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.results import ResultsOnDisk

USED: dict[str, Analysis] = {
    "mono": INTERPRETABILITY,
    "consensus": CONSENSUS,
    "sharedness": SHAREDNESS,
    "named": NAMES,
    "probability": CERTAINTY,
}


@dataclass(frozen=True)
class Found:
    """Newest results of other analyses of one feature set; None where there are none.

    Attributes:
        name: name of the feature set.
        features: number of its features.
        by: results by their names in `USED`.
    """

    name: str
    features: int
    by: dict[str, Artifact | None]

    @property
    def mono(self) -> dict[Modality, Float64[Tensor, " features"]] | None:
        """Monosemanticity by modality, minus that of random samples; NaN for features that were not scored."""
        frame = self._frame("mono", "scores", ["feature", "samples", "mono_corrected"])
        if frame is None:
            return None
        scores: dict[Modality, Tensor] = {}
        for modality in MODALITIES:
            mine = frame[frame["samples"] == modality].set_index("feature")["mono_corrected"]
            scores[modality] = _numbers(mine.reindex(range(self.features)))
        return scores

    @property
    def consensus(self) -> FoundAgain | None:
        """How features compare with those of other seeds."""
        frame = self._frame("consensus", "features", ["feature", "match", "consensus"])
        if frame is None:
            return None
        return FoundAgain(*(torch.from_numpy(frame[column].to_numpy().copy()) for column in ("match", "consensus")))

    @property
    def named(self) -> Named | None:
        """Names, and how well they detect the features."""
        frame = self._frame("named", "names", None)
        if frame is None:
            return None
        auroc: dict[Modality, Tensor] = {modality: _numbers(frame[f"auroc_{modality}"]) for modality in MODALITIES}
        return Named(frame["name"].where(frame["named"], "").tolist(), auroc)

    @property
    def sharedness(self) -> tuple[Float64[Tensor, " features"], Float64[Tensor, " features"]] | None:
        """Sharedness and its q-value."""
        frame = self._frame("sharedness", "scores", ["feature", "sharedness", "q_value"])
        return None if frame is None else (_numbers(frame["sharedness"]), _numbers(frame["q_value"]))

    @property
    def probability(self) -> dict[str, Float64[Tensor, " features"]] | None:
        """Share of resamples of the pairs in which each feature is of each class."""
        columns = {name: f"{name}_probability" for name in LIVE_CLASSES}
        frame = self._frame("probability", "scores", ["feature", *columns.values()])
        return None if frame is None else {name: _numbers(frame[column]) for name, column in columns.items()}

    def _frame(self, of: str, table: str, columns: list[str] | None) -> pd.DataFrame | None:
        """This feature set's rows of a table, by feature."""
        if (artifact := self.by[of]) is None:
            return None
        wanted = None if columns is None else ["feature_set", *columns]
        frame = read_frame(artifact.path / f"{table}.parquet", columns=wanted)
        return frame[frame["feature_set"] == self.name].sort_values("feature")


def newest(there: ResultsOnDisk, names: Iterable[str]) -> dict[str, dict[str, Artifact | None]]:
    """Newest result of each analysis that the page uses, by its name in `USED` and by feature set."""
    chosen = list(names)
    return {of: {name: there.latest(analysis, name) for name in chosen} for of, analysis in USED.items()}


def embedders(results: Iterable[Artifact | None]) -> str | None:
    """Names of the embedders behind results, and which of them are not independent of the model; None without results."""
    names = {
        (str(result.recipe["embedder"]).rpartition("-")[0] or "clip")
        + ("" if result.recipe["independent"] else " (not independent)")
        for result in results
        if result
    }
    return ", ".join(sorted(names)) or None


def _numbers(column: pd.Series) -> Float64[Tensor, " features"]:
    return torch.from_numpy(column.to_numpy(dtype=np.float64).copy())
