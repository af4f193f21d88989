"""Column headings: the names under which columns of saved tables are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames

HEADINGS = {
    "feature_set": "feature set",
    "mds": "MDS",
    "fvu": "FVU",
    "null_std": "null std",
    "l0": "L0",
    "mono": "Mono",
    "mono_corrected": "Mono − chance",
    "dead_share": "dead share",
    "zero_shot": "zero-shot",
    "contrastive_loss": "contrastive loss",
    "top_caption": "top caption",
}
WIDEST = 46  # characters of a label below a single panel
SAID = {"class", "samples", "task", "deletion", "size_of", "of"}  # columns of modalities and of classes of features


def headed(rows: Sequence[Mapping[str, object]], modalities: ModalityNames = IMAGE_AND_TEXT) -> list[dict[str, object]]:
    """Return rows with their columns renamed for display; columns without a heading keep their name.

    Args:
        rows: of a table.
        modalities: what modalities and classes are called, in headings and in the columns `SAID`.
    """
    return [
        {heading(column, modalities): _said(column, value, modalities) for column, value in row.items()} for row in rows
    ]


def heading(column: str, modalities: ModalityNames = IMAGE_AND_TEXT) -> str:
    """Heading of a column, such as `i→t R@1` of i2t_r1, and `R@1` of r1, the mean of both ways."""
    if column[:1] == "r" and column[1:].isdigit():
        return f"R@{column[1:]}"
    way, _, measure = column.partition("_r")
    if way in ("i2t", "t2i") and measure.isdigit():
        return f"{modalities.way(way)} R@{measure}"
    return HEADINGS.get(column, modalities.said(column))


def dominance_axis(modalities: ModalityNames) -> str:
    """Label of an axis with modality dominance scores, short enough for a single panel."""
    ends = f"(0 {modalities.second}, 1 {modalities.first})"
    whole = f"modality dominance score {ends}"
    return whole if len(whole) <= WIDEST else f"MDS {ends}"


def called(frame: pd.DataFrame, modalities: ModalityNames) -> pd.DataFrame:
    """Return a saved table with modalities and classes called by their names, in its columns' names and in `SAID`."""
    made = frame.copy()
    for column in SAID & {str(name) for name in frame}:
        said = [_said(column, value, modalities) for value in frame[column]]
        made[column] = pd.Series(said, index=frame.index, dtype=object)
    return made.rename(columns=lambda name: modalities.column(str(name)))


def _said(column: str, value: object, modalities: ModalityNames) -> object:
    return modalities.said(value) if column in SAID and isinstance(value, str) else value
