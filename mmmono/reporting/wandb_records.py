"""Log an artifact to W&B: figures, tables with images, histograms, scalars, and the artifact itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmmono.reporting.contents import Contents, histograms, scalars
from mmmono.reporting.escaping import wandb_artifact_name

if TYPE_CHECKING:
    import wandb

TABLE_ROWS = 10_000  # W&B shows no more rows; longer tables are only in the artifact
UPLOADED = 32 << 20  # bytes; larger files, and subfolders, are added as references to their local path
BINS = 64


def record_contents(run: Any, prefix: str, found: Contents, folder: Path) -> None:
    """Log figures, tables and histograms in one step, and scalars to the run's summary.

    Args:
        run: an open W&B run.
        prefix: section of the project's workspace, such as `mds`; the first part of every key.
        found: contents of the artifact.
        folder: the artifact's folder.
    """
    import wandb

    media: dict[str, Any] = {name: wandb.Image(str(path)) for name, path in found.figures.items()}
    for name, frame in found.tables.items():
        if len(frame) <= TABLE_ROWS:
            media[f"{name}_table"] = wandb.Table(
                dataframe=with_images(found.shown(frame), folder), allow_mixed_types=True
            )
    media |= {name: wandb.Histogram(values, num_bins=BINS) for name, values in histograms(found).items()}
    if media:
        run.log({f"{prefix}/{name}": value for name, value in media.items()})
    run.summary.update({f"{prefix}/{name}": value for name, value in scalars(found).items()})


def with_images(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Copy a table with the names of PNG files replaced by the images; None for missing files."""
    import wandb

    frame = frame.copy()
    for column in frame.columns[[pd.api.types.is_object_dtype(d) or d == "str" for d in frame.dtypes]]:
        values = frame[column].tolist()
        if any(isinstance(v, str) and v.endswith(".png") for v in values):
            files = [folder / v if isinstance(v, str) else None for v in values]
            frame[column] = pd.Series(
                [wandb.Image(str(file)) if file is not None and file.is_file() else None for file in files],
                index=frame.index, dtype=object,
            )  # fmt: skip
    return frame


def artifact_of(folder: Path, kind: str, recipe: Mapping[str, Any], made_from: Sequence[str] = ()) -> wandb.Artifact:
    """Make a W&B artifact of a folder: small files, references to the rest, and the recipe as metadata."""
    import wandb

    metadata = {"recipe": dict(recipe), "made_from": list(made_from), "path": str(folder.resolve())}
    artifact = wandb.Artifact(wandb_artifact_name(folder.name), type=kind, metadata=metadata)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size <= UPLOADED:
            artifact.add_file(str(path), policy="immutable")
        else:
            artifact.add_reference(path.resolve().as_uri(), name=path.name, checksum=False)
    return artifact
