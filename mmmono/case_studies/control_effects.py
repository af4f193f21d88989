"""How much an injected class of features changes pictures, and how sure that is, over references and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

Array = np.ndarray[Any, Any]
MEASURES = ("similarity_reference", "similarity_prompt", "color_distance", "edge_distance")


@dataclass(frozen=True)
class Cell:
    """One picture of Figure 10 and what was measured of it.

    Attributes:
        feature_set: whose features were moved.
        reference: name of R.
        members: class I, `Random`, or `All` live features.
        features: how many they are.
        strength: as swept.
        weight: of the reference, 1 − α.
        seed: of noise and of the draw of I.
        similarity_reference: cosine with the reference in an independent embedder.
        similarity_prompt: mean cosine there with real pictures of what the prompt names.
        color_distance, edge_distance: to the reference; see `picture_measures`.
        nearest: caption of the real picture whose embedding is nearest to T′; empty where T′ is in no joint space.
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
    nearest: str


@dataclass(frozen=True)
class Effect:
    """Mean change of a measure against plain generation, with its 95 % interval.

    Attributes:
        reference: name of R, or `all` of them together.
        members: the class, or a difference of two, such as `TextD − ImgD`.
        measure: one of MEASURES.
        low, high: percentiles over resamples of references and of seeds.
    """

    feature_set: str
    reference: str
    members: str
    strength: float
    measure: str
    change: float
    low: float
    high: float


def crossed_bootstrap(
    values: Float[Array, "references seeds"], n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean, and its 2.5th and 97.5th percentile over resamples of rows and of columns, each with replacement.

    With one row, over columns alone, and with one of both there is no interval.
    """
    rows, columns = values.shape
    if values.size == 1:
        return float(values.mean()), float("nan"), float("nan")
    drawn_rows = rng.integers(rows, size=(n_bootstrap, rows))
    drawn_columns = rng.integers(columns, size=(n_bootstrap, columns))
    means = values[drawn_rows[:, :, None], drawn_columns[:, None, :]].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def effects(cells: pd.DataFrame, plain: pd.DataFrame, n_bootstrap: int = 1000, seed: int = 0) -> list[Effect]:
    """Changes against plain generation from the same noise, of each class and of differences between classes.

    Over all references, and for each.

    Args:
        cells: columns of `Cell`, of one feature set; each class and strength has every reference and seed.
        plain: measures of plain generation by `reference` and `seed`.
        n_bootstrap: resamples of references and seeds.
        seed: of the resamples.
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
                parts = {"all": table, **{str(row): table.loc[[row]] for row in table.index}}
                for reference, part in parts.items():
                    interval = crossed_bootstrap(part.to_numpy(), n_bootstrap, rng)
                    found.append(Effect(name, reference, members, float(strength), measure, *interval))  # type: ignore[arg-type]
    return found
