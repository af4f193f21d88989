"""Effects of injected feature classes on generated images, with confidence intervals over seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from mmmono.core.statistics import Estimate, holm, t_mean
from mmmono.modality.random_sets import RANDOM

MEASURES = ("similarity_reference", "similarity_prompt", "color_distance", "edge_distance")
MINUS = " − "  # between the names of two classes whose effects are compared
ALL = "all"  # in place of a reference's name: the mean over all references


@dataclass(frozen=True)
class Cell:
    """One generated image of Figure 10 and its measures.

    Attributes:
        feature_set: feature set of the intervention.
        reference: name of the reference image R.
        members: class of the changed features I, `Random` ones, with the class that they are like, or `All` live ones.
        features: number of changed features.
        energy: share of Σ z² over images and texts that the changed features carry, mean over seeds.
        mismatch: largest mismatch of random features, see `RandomSet`; None for others.
        strength: swept value, which is the weight of the reference or α (`intervention.weight_on`).
        weight: weight of the reference, 1 − α.
        seed: seed of the noise and of the draw of I.
        similarity_reference: cosine with the reference in an independent embedder.
        similarity_prompt: mean cosine, in that embedder, with real images of the object in the prompt.
        color_distance, edge_distance: distances to the reference, see `image_measures`.
        image: file of the image, relative to the folder of the result.
        nearest: caption of the real image whose embedding is nearest to T′; empty if T′ is not in the joint space, and
            for all seeds but the first.
        nearest_image: file of that image, relative to the folder of the result; empty if there is none.
    """

    feature_set: str
    reference: str
    members: str
    features: int
    energy: float
    mismatch: float | None
    strength: float
    weight: float
    seed: int
    similarity_reference: float
    similarity_prompt: float
    color_distance: float
    edge_distance: float
    image: str
    nearest: str
    nearest_image: str


@dataclass(frozen=True)
class Effect:
    """Mean change of a measure relative to generation without intervention.

    Attributes:
        feature_set: feature set of the intervention.
        reference: name of the reference, or `ALL` for the mean over all references.
        members: a class, or a difference of two classes such as `TextD − ImgD`.
        strength: swept value, see `Cell`.
        measure: one of MEASURES.
        change: mean change; its error is over seeds, for the given references, and NaN for a single seed.
        p_holm: p-value of a difference of classes being 0, adjusted for all differences and measures at this strength
            and reference (Holm 1979); None for a class, whose change needs no test.
    """

    feature_set: str
    reference: str
    members: str
    strength: float
    measure: str
    change: Estimate
    p_holm: float | None = None

    def to_row(self) -> dict[str, object]:
        """Row of the table of effects: the change as `change`, its bounds as `change_low` and `change_high`."""
        return {
            "feature_set": self.feature_set, "reference": self.reference, "members": self.members,
            "strength": self.strength, "measure": self.measure, **self.change.interval().columns("change"),
            "p": None if self.p_holm is None else self.change.p_value, "p_holm": self.p_holm,
        }  # fmt: skip


def effects(cells: pd.DataFrame, plain: pd.DataFrame) -> list[Effect]:
    """Compute the effect of each class and differences between classes, for each reference and over all of them.

    An effect is the change relative to an image generated from the same noise without intervention. A seed gives one
    value: the mean over references. Seeds differ in noise and in the drawn features, and are few, so intervals are
    Student's t with seeds − 1 degrees of freedom. They are about the given references: what others would do, a handful
    cannot tell.

    Args:
        cells: `Cell` rows of one feature set; each class and strength has every reference and seed.
        plain: the same measures without intervention, with columns `reference` and `seed`.
    """
    name = str(cells.feature_set.iloc[0])
    base = plain.set_index(["reference", "seed"])
    found: list[Effect] = []
    for strength, of_strength in cells.groupby("strength"):
        changes = {measure: _changes(of_strength, base, measure) for measure in MEASURES}
        references = [ALL, *map(str, of_strength["reference"].unique())]
        for reference in references:
            of_reference = [
                Effect(
                    name, reference, members, float(strength), measure,  # type: ignore[arg-type]
                    t_mean((table.mean() if reference == ALL else table.loc[reference]).to_numpy()),
                )
                for measure in MEASURES for members, table in changes[measure].items()
            ]  # fmt: skip
            contrasts = [effect for effect in of_reference if MINUS in effect.members]
            adjusted = iter(holm([effect.change.p_value for effect in contrasts]))
            found += [
                replace(effect, p_holm=next(adjusted)) if MINUS in effect.members else effect for effect in of_reference
            ]
    return found


def _changes(of_strength: pd.DataFrame, base: pd.DataFrame, measure: str) -> dict[str, pd.DataFrame]:
    """Change of a measure by class and difference of classes: one row per reference, one column per seed."""
    changes: dict[str, pd.DataFrame] = {}
    for members, part in of_strength.groupby("members", sort=False):
        values = part.set_index(["reference", "seed"])[measure]
        changes[str(members)] = (values - base[measure]).unstack("seed")
    own = ("TextD", "CrossD", "ImgD")
    pairs = [(a, random) for a in own for random in (f"{RANDOM}-{a}", RANDOM)] + [("TextD", "ImgD")]
    return changes | {f"{a}{MINUS}{b}": changes[a] - changes[b] for a, b in pairs if a in changes and b in changes}
