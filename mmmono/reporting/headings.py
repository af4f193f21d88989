"""Column headings: the names under which columns of saved tables are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    **{f"{way}_r{k}": f"{arrow} R@{k}" for way, arrow in (("i2t", "i→t"), ("t2i", "t→i")) for k in (1, 5, 10)},
}


def headed(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return rows with their columns renamed for display; columns without a heading keep their name."""
    return [{HEADINGS.get(column, column): value for column, value in row.items()} for row in rows]
