"""Retrieval with the default model on what its fit has not seen, for each mixture that its heads can be fitted on.

python benchmarks/embedded_default.py --artifacts artifacts --photographs data/flickr8k

Text-to-image recall, R@1 / R@10: a caption's own image is the most similar, or among the ten most similar. Emoji and icons
are those of the split `val`: of a group of emoji, such as a hand in all skin tones, the first; of icons with one caption,
the first. Photographs are those of the tar shards in a folder, in galleries of 1,091, of which the mean is given; none is
fitted to. Outputs of the towers and fitted models are kept under the artifacts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import Artifacts
from mmmono.data import IconPairs, ImageTextPair, OpenMojiPairs, PairSource, WebDatasetPairs
from mmmono.data.pairs import SplitShares
from mmmono.features.retrieval import recall_at_k
from mmmono.pipeline.models import DrawingCLIP, Drawings
from mmmono.pipeline.tower_outputs import tower_outputs
from mmmono.vlm.drawingclip import imagenet_classifier
from mmmono.vlm.tower_outputs import heads_of, locked_towers, outputs_of

GALLERY = 1091  # photographs that a caption's own is searched among
MIXTURES: tuple[tuple[str, Drawings, bool], ...] = (  # name, drawings, whether features of classes join
    ("OpenMoji alone", "openmoji", False),
    ("icons alone", "icons", False),
    ("OpenMoji and icons", "drawings", False),
    ("OpenMoji and ImageNet's classes", "openmoji", True),
    ("all (the default)", "drawings", True),
)


class Outputs(NamedTuple):
    """Outputs of the towers for the same pairs, `[pairs, width]`."""

    image: Tensor
    text: Tensor


def unseen(artifacts: Artifacts, source: PairSource, one_of: str) -> Outputs:
    """Return the outputs for the first pair of each value of a metadata column, in the split `val`."""
    outputs, shares = tower_outputs(artifacts, source), SplitShares()
    rows = outputs.metadata
    first = ~rows.duplicated(one_of) & np.array([shares.split_of(group) == "val" for group in rows["group"]])
    return Outputs(outputs.image[first.to_numpy()], outputs.text[first.to_numpy()])


def photographs(folder: Path) -> list[Outputs]:
    """Return the outputs for the photographs of a folder's tar shards, as whole galleries."""
    source = WebDatasetPairs(str(folder / "*.tar"))
    pairs = (
        (item.image, item.caption)
        for part in range(len(source.parts()))
        for item in source.read(part)
        if isinstance(item, ImageTextPair)
    )
    image, text = outputs_of(locked_towers(), pairs)
    galleries = [Outputs(*both) for both in zip(image.split(GALLERY), text.split(GALLERY), strict=True)]
    return [gallery for gallery in galleries if len(gallery.image) == GALLERY] or galleries


def line(
    name: str,
    samples: Mapping[str, list[Outputs]],
    image_head: Callable[[Tensor], Tensor],
    text_head: Callable[[Tensor], Tensor],
) -> str:
    """Return a row of the table: R@1 / R@10 on each kind of samples."""
    recalls = []
    with torch.inference_mode():
        for galleries in samples.values():
            found = [
                recall_at_k(text_head(gallery.text), image_head(gallery.image), ks=(1, 10)) for gallery in galleries
            ]
            recalls.append(" / ".join(f"{fmean(recall[k] for recall in found):.3f}" for k in (1, 10)))
    return f"| {name} | " + " | ".join(recalls) + " |"


def main(artifacts: Path, shards: Path | None, seed: int) -> None:
    root = Artifacts(artifacts)
    samples = {
        "unseen emoji": [unseen(root, OpenMojiPairs(), "group")],
        "unseen icons": [unseen(root, IconPairs(), "caption")],
    }
    if shards is None:
        print("no column of photographs: give a folder of tar shards with images and captions, --photographs FOLDER")
    else:
        samples["photographs"] = photographs(shards)
    sizes = {name: len(galleries[0].image) for name, galleries in samples.items()}
    columns = [f"{name}, of {size:,}" for name, size in sizes.items()]
    print("| heads fitted on | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, drawings, classes in MIXTURES:
        heads = heads_of(
            DrawingCLIP(name="drawingclip", drawings=drawings, classes=classes, seed=seed).load(root, "cpu")
        )
        print(line(name, samples, heads["image"], heads["text"]), flush=True)
    classifier = imagenet_classifier(locked_towers())
    mean = classifier.names.mean(dim=0)
    print(line("nothing (ConSE)", samples, lambda x: classifier.text_of(x) - mean, lambda x: F.normalize(x) - mean))
    chance = " | ".join(f"{1 / size:.3f} / {10 / size:.3f}" for size in sizes.values())
    print(f"| chance | {chance} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--photographs", type=Path, dest="shards", help="folder of tar shards, such as Flickr8k's")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
