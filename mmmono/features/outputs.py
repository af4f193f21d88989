"""Outputs of a model's frozen towers for all pairs of a source, kept on disk, and features made from them by heads alone.

`extract_features` with towers in place of a model writes the outputs, so that the pass resumes like any extraction. They lie
in a store's layout, part by part, in float32. Image and text outputs differ in width, so it is no `FeatureStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.data.captions import OWN_COLUMNS
from mmmono.data.pairs import PairSource
from mmmono.features.array_files import numbered
from mmmono.features.encoding import check_storable
from mmmono.features.metadata import read_metadata
from mmmono.features.reading import Encoder
from mmmono.features.store import Manifest, Modality
from mmmono.features.writer import FeatureStoreWriter

# What follows a tower, by modality: from its outputs `[batch, width]` to embeddings `[batch, dim]`.
Heads: TypeAlias = Mapping[Modality, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class OutputPart:
    """The pairs of one part of the source.

    Attributes:
        image, text: outputs of the towers.
        rows: metadata, one mapping per pair, with the labels that it has.
    """

    image: Float[Tensor, "pairs image_width"]
    text: Float[Tensor, "pairs text_width"]
    rows: list[dict[str, str]]


_FILES = {"img_emb": "npy", "text_emb": "npy", "metadata": "parquet"}


class TowerOutputs:
    """Outputs of two towers for all pairs of a source, in its order.

    Args:
        folders: one or more folders that `extract_features` filled, such as those of a source's members.
        batch_size: pairs that passed through the towers at a time.
    """

    def __init__(self, folders: Sequence[Path], batch_size: int) -> None:
        self.folders = folders
        self.batch_size = batch_size

    def parts(self) -> Iterator[OutputPart]:
        """Yield the parts of the source that have pairs, in order."""
        for folder in self.folders:
            files = [numbered(folder / name, name, end) for name, end in _FILES.items()]
            for image, text, metadata in zip(*(file.values() for file in files), strict=True):
                table: Any = pd.read_parquet(metadata).to_dict("records")
                # The table has a column of each label that any of its pairs has; a row has its own labels alone.
                rows = [{name: text for name, text in row.items() if text or name in OWN_COLUMNS} for row in table]
                yield OutputPart(torch.from_numpy(np.load(image)), torch.from_numpy(np.load(text)), rows)

    @cached_property
    def image(self) -> Float[Tensor, "pairs image_width"]:
        """Outputs of the image tower, which are the inputs of the image head."""
        return torch.cat([part.image for part in self.parts()])

    @cached_property
    def text(self) -> Float[Tensor, "pairs text_width"]:
        """Outputs of the text tower, which are the inputs of the text head."""
        return torch.cat([part.text for part in self.parts()])

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """Key, caption, locator, group and labels of each pair, all as text."""
        folders = (folder / "metadata" for folder in self.folders)
        return read_metadata([file for folder in folders for file in numbered(folder, "metadata", "parquet").values()])


def features_from_outputs(
    source: PairSource, outputs: TowerOutputs, encoder: Encoder, heads: Heads, directory: Path, dtype: str
) -> Manifest:
    """Write the feature store that `extract_features` with the whole model writes: the same files, with the same bits.

    Bits are the same if that extraction has as many pairs in a batch; with another number, embeddings differ by rounding.

    Args:
        source: the pairs, none of which is skipped; if it has a `limit`, its first pairs are used.
        outputs: of the towers, for all these pairs.
        encoder: the whole model; its towers are not used.
        heads: of the model.
        directory: where to write; publish the store by renaming the directory afterwards.
        dtype: stored type, `float16` or `float32`.
    """
    names = source.parts()
    writer = FeatureStoreWriter(directory, len(names), dtype)
    left = source.limit or len(outputs.metadata)
    written: list[int] = []
    for number, part in enumerate(outputs.parts()):
        writer.drop(number)  # what an extraction that was cut short may have left
        if count := min(left, len(part.rows)):
            image = _embedded(heads["image"], part.image, outputs.batch_size)[:count]
            text = _embedded(heads["text"], part.text, outputs.batch_size)[:count]
            check_storable(image, text, part.rows, names[number], dtype)
            writer.write(number, image, text, part.rows[:count])
            written.append(number)
        left -= count
    made = Manifest(
        model=encoder.name,
        model_fingerprint=encoder.fingerprint,
        dataset=source.name,
        dataset_fingerprint=source.fingerprint(),
        dim=encoder.dim,
        count=0,
        dtype=dtype,
        content="",
    )
    return writer.finish(made, written)


def _embedded(head: Callable[[Tensor], Tensor], outputs: Tensor, batch_size: int) -> Tensor:
    with torch.inference_mode():
        return torch.cat([head(batch).float() for batch in outputs.split(batch_size)])
