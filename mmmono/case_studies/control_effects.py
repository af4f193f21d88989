"""Effects of injected feature classes on generated images, with confidence intervals over references and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mmmono.core.statistics import Interval

Array = np.ndarray[Any, Any]
MEASURES = ("similarity_reference", "similarity_prompt", "color_distance", "edge_distance")
ALL = "all"  # in place of a reference's name: the mean over all references


@dataclass(frozen=True)
class Cell:
    """One generated image of Figure 10 and its measures.

    Attributes:
        feature_set: feature set of the intervention.
        reference: name of the reference image R.
        members: class of the changed features I, `Random`, or `All` live features.
        features: number of changed features.
        strength: swept value, which is the weight of the reference or α (`intervention.weight_on`).
        weight: weight of the reference, 1 − α.
        seed: seed of the noise and of the draw of I.
        similarity_reference: cosine with the reference in an independent embedder.
        similarity_prompt: mean cosine, in that embedder, with real images of the object in the prompt.
        color_distance, edge_distance: distances to the reference, see `picture_measures`.
        picture: file of the image, relative to the folder of the result.
        nearest: caption of the real image whose embedding is nearest to T′; empty if T′ is not in the joint space, and
            for all seeds but the first.
        nearest_picture: file of that image, relative to the folder of the result; empty if there is none.
    """

    feature_set: str
    reference: str
    members: str
    features: int
    strength: float
    weight: float
    seed: int
    similarity_reference: float
    similarity_prompt: float
    color_distance: float
    edge_distance: float
    picture: str
    nearest: str
    nearest_picture: str


@dataclass(frozen=True)
class Effect:
    """Mean change of a measure relative to generation without intervention.

    Attributes:
        feature_set: feature set of the intervention.
        reference: name of the reference, or `ALL` for the mean over all references.
        members: a class, or a difference of two classes such as `TextD − ImgD`.
        strength: swept value, see `Cell`.
        measure: one of MEASURES.
        change: mean change with its interval over references and seeds, by `crossed_bootstrap`.
    """

    feature_set: str
    reference: str
    members: str
    strength: float
    measure: str
    change: Interval

    def to_row(self) -> dict[str, object]:
        """Row of the table of effects: the change as `change`, its bounds as `change_low` and `change_high`."""
        return {
            "feature_set": self.feature_set, "reference": self.reference, "members": self.members,
            "strength": self.strength, "measure": self.measure, **self.change.columns("change"),
        }  # fmt: skip


def crossed_bootstrap(values: Float[Array, "references seeds"], n_bootstrap: int, rng: np.random.Generator) -> Interval:
    """Compute the mean with its 95 % percentile interval, resampling rows and columns independently with replacement.

    The bounds are NaN for a single value.
    """
    rows, columns = values.shape
    method = "percentile bootstrap over references and seeds"
    if values.size == 1:
        return Interval(float(values.mean()), method=method)
    drawn_rows = rng.integers(rows, size=(n_bootstrap, rows))
    drawn_columns = rng.integers(columns, size=(n_bootstrap, columns))
    means = values[drawn_rows[:, :, None], drawn_columns[:, None, :]].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), 0.95, method)


def effects(cells: pd.DataFrame, plain: pd.DataFrame, n_bootstrap: int = 1000, seed: int = 0) -> list[Effect]:
    """Compute the effect of each class and differences between classes, for each reference and over all of them.

    An effect is the change relative to an image generated from the same noise without intervention.

    Args:
        cells: `Cell` rows of one feature set; each class and strength has every reference and seed.
        plain: the same measures without intervention, with columns `reference` and `seed`.
        n_bootstrap: bootstrap resamples of references and seeds.
        seed: seed of the resamples.
    """
    rng = np.random.default_rng(seed)
    name = str(cells.feature_set.iloc[0])
    base = plain.set_index(["reference", "seed"])
    found = []
    for strength, of_strength in cells.groupby("strength"):
        for measure in MEASURES:
            changes: dict[str, pd.DataFrame] = {}
            for members, part in of_strength.groupby("members", sort=False):
                values = part.set_index(["reference", "seed"])[measure]
                changes[str(members)] = (values - base[measure]).unstack("seed")
            contrasts = [(a, "Random") for a in ("TextD", "CrossD", "ImgD")] + [("TextD", "ImgD")]
            changes |= {f"{a} − {b}": changes[a] - changes[b] for a, b in contrasts if a in changes and b in changes}
            for members, table in changes.items():
                parts = {ALL: table, **{str(row): table.loc[[row]] for row in table.index}}
                for reference, part in parts.items():
                    interval = crossed_bootstrap(part.to_numpy(), n_bootstrap, rng)
                    found.append(Effect(name, reference, members, float(strength), measure, interval))  # type: ignore[arg-type]
    return found
