"""Class probabilities of a split's images by an image classifier, computed once and reused for all concept pairs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmmono.case_studies.classifier import ImageClassifier
from mmmono.features.selection import Split
from mmmono.pipeline.images import SplitImages, in_batches
from mmmono.pipeline.workspace import Workspace

Array = np.ndarray[Any, Any]
PROBABILITIES = "probabilities.npy"
GROWING = "probabilities.f32"  # float32 rows computed so far


def classified(
    workspace: Workspace, classifier: ImageClassifier, split: Split, rows: Sequence[int], images: SplitImages
) -> Float[Array, "rows classes"]:
    """Classify the images of some rows; NaN for images that cannot be read.

    The probabilities are an artifact that is written batch by batch, so an interrupted run loses at most one batch.

    Args:
        workspace: provides the pairs.
        classifier: the image classifier.
        split: the split.
        rows: rows of the split, ascending; the split's features must determine which rows these are.
        images: images of the split.
    """
    features = workspace.features(split)
    recipe = {"features": features.recipe, "classifier": classifier.identity(), "rows": len(rows)}

    def make(directory: Path) -> None:
        classifier.load(workspace.device)
        width = len(classifier.names)
        growing = directory / GROWING
        done = _whole_batches(growing, 4 * width, classifier.batch_size)
        with growing.open("ab") as file:
            for part in _probabilities(classifier, rows[done:], images, "classify images"):
                file.write(part.astype("<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        np.save(directory / PROBABILITIES, np.fromfile(growing, "<f4").reshape(len(rows), width))
        growing.unlink()

    name = f"classifier-{features.store.path.name}"
    artifact = workspace.artifacts.build("labels", name, recipe, make, resumable=True)
    probabilities = np.load(artifact.path / PROBABILITIES)
    missing = np.flatnonzero(np.isnan(probabilities).any(1)).tolist()
    if missing and not artifact.built:  # they may be readable now
        classifier.load(workspace.device)
        again = _probabilities(classifier, [rows[i] for i in missing], images, None)
        probabilities[missing] = np.concatenate(list(again))
    return probabilities


def _probabilities(
    classifier: ImageClassifier, rows: Sequence[int], images: SplitImages, title: str | None
) -> Iterator[Float[Array, "batch classes"]]:
    for batch in in_batches(images.pairs(rows, title), classifier.batch_size):
        part = np.full((len(batch), len(classifier.names)), np.nan, np.float32)
        there = [place for place, (_, pair) in enumerate(batch) if pair is not None]
        if there:
            part[there] = classifier.probabilities([pair.image for _, pair in batch if pair is not None])
        yield part


def _whole_batches(file: Path, row_bytes: int, batch_size: int) -> int:
    """Number of rows that an earlier process finished; truncates the file to whole batches."""
    size = file.stat().st_size if file.exists() else 0
    done = size // row_bytes // batch_size * batch_size
    if size:
        os.truncate(file, done * row_bytes)
    return done
