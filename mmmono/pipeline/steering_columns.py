"""What the columns mean that the tables of all ways of steering share; each adds its own."""

from __future__ import annotations

from collections.abc import Mapping

MOVED = "features that move more than the control (q ≤ .05)"


def columns_of_features(section: str, over: str, *, move: str, control: str, stay: str) -> dict[str, str]:
    """Return the meaning of each column of a table with a row for each steered feature and strength.

    Args:
        section: section of the settings.
        over: what means and intervals are over.
        move, control, stay: what these columns are.
    """
    return {
        "feature_set": "name of the feature set",
        "feature": "index of a feature that is steered",
        "class": "ImgD, TextD, CrossD or dead",
        "mds": "R(d) of Eq. 1, between 0 (text) and 1 (image)",
        "reference": f"mean activation on the {section}.k images that activate it most, on its dominant side of 0",
        "strength": f"strength of the steering, in units of the reference (or a factor, with {section}.how=scale)",
        "move": f"{move}; mean over {over}",
        "move_low": f"lower end of its 95 % interval over {over}",
        "move_high": "upper end of the same",
        "control": f"{control}, mean over these",
        "beyond": "move minus control",
        "beyond_low": f"lower end of its 95 % interval over {over}",
        "beyond_high": "upper end of the same",
        "q_value": "p-value of beyond being 0, adjusted over features (Benjamini and Hochberg 1995)",
        "stay": stay,
        "score": "steerability: move times stay, 0 if either is negative",
    }


def columns_of_classes(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the meaning of each column of a table with a row for each class and strength.

    Args:
        more: further columns, before the last one.
    """
    return {
        "feature_set": "name of the feature set",
        "class": "ImgD, TextD or CrossD",
        "strength": "strength of the steering",
        "features": "number of features of the class that were steered",
        "move": "mean move of these features",
        "control": "mean control",
        "stay": "mean stay",
        "score": "mean score",
        **(more or {}),
        "moved": MOVED,
    }
