"""Log an artifact's figures, tables (as text), histograms and scalars to TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmmono.reporting.contents import Contents, histograms, scalars
from mmmono.reporting.escaping import markdown_table, tensorboard_tag

TABLE_ROWS = 64


def record_contents(folder: Path, prefix: str, found: Contents, config: str) -> None:
    """Write one event file with all contents of an artifact.

    Args:
        folder: folder for the event file.
        prefix: first part of every tag, such as `mds`.
        found: contents of the artifact.
        config: resolved configuration as YAML.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, path in found.figures.items():
            writer.add_image(
                tensorboard_tag(f"{prefix}/{name}"), np.asarray(Image.open(path).convert("RGB")), dataformats="HWC"
            )
        for name, saved in found.tables.items():
            frame = found.shown(saved)
            rows = [[_cell(value) for value in row] for row in frame.head(TABLE_ROWS).itertuples(index=False)]
            table = markdown_table([str(column) for column in frame.columns], rows, [False] * frame.shape[1])
            rest = f"\n\n{len(frame) - TABLE_ROWS} more rows" if len(frame) > TABLE_ROWS else ""
            writer.add_text(tensorboard_tag(f"{prefix}/{name}"), table + rest)
        for name, values in histograms(found).items():
            writer.add_histogram(tensorboard_tag(f"{prefix}/{name}"), values)
        for name, value in scalars(found).items():
            writer.add_scalar(tensorboard_tag(f"{prefix}/{name}"), value)
        indented = "\n".join(f"    {line}" for line in config.splitlines())
        writer.add_text("config", indented)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
