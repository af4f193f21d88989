"""Retrieval with the default model on what its fit has not seen, for each mixture that its heads can be fitted on.

python benchmarks/embedded_default.py --artifacts artifacts --photographs data/flickr8k

Text-to-image recall, R@1 / R@10: a caption's own image among the one or the ten most similar. Emoji and icons are those of the
split `val`: of a group of emoji, such as a hand in all skin tones, the first, and of icons with one caption the first.
Photographs are the first 1,091 of the tar shards in a folder; none is fitted to. Towers and fits are kept under the artifacts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmmono.core.artifacts import Artifacts
from mmmono.data import IconPairs, ImageTextPair, OpenMojiPairs, PairSource, WebDatasetPairs
from mmmono.data.pairs import SplitShares
from mmmono.features.retrieval import recall_at_k
from mmmono.pipeline.models import DrawingCLIP
from mmmono.pipeline.tower_outputs import tower_outputs
from mmmono.vlm.drawingclip import imagenet_classifier
from mmmono.vlm.tower_outputs import heads_of, locked_towers, outputs_of

PHOTOGRAPHS = 1091
ROWS = {  # name → settings of the model
    "OpenMoji alone": {"drawings": "openmoji", "classes": False},
    "icons alone": {"drawings": "icons", "classes": False},
    "OpenMoji and icons": {"drawings": "drawings", "classes": False},
    "OpenMoji and ImageNet's classes": {"drawings": "openmoji", "classes": True},
    "all (the default)": {"drawings": "drawings", "classes": True},
}


class Outputs(NamedTuple):
    """Outputs of the towers for pairs, or the embeddings of these."""

    image: Tensor
    text: Tensor


def unseen(artifacts: Artifacts, source: PairSource, one_of: str) -> Outputs:
    """Return the outputs for the first pair of each value of a metadata column, in the split `val`."""
    outputs, shares = tower_outputs(artifacts, source), SplitShares()
    rows = outputs.metadata
    first = ~rows.duplicated(one_of) & np.array([shares.split_of(group) == "val" for group in rows["group"]])
    return Outputs(outputs.image[first.to_numpy()], outputs.text[first.to_numpy()])


def photographs(folder: Path) -> Outputs:
    """Return the outputs for the first photographs of a folder's tar shards."""
    source = WebDatasetPairs(str(folder / "*.tar"))
    pairs: Iterator[tuple] = (
        (item.image, item.caption)
        for part in range(len(source.parts()))
        for item in source.read(part)
        if isinstance(item, ImageTextPair)
    )
    return outputs_of(locked_towers(), islice(pairs, PHOTOGRAPHS))  # type: ignore[return-value]


def line(name: str, samples: Mapping[str, Outputs], embed: Callable[[Outputs], Outputs]) -> str:
    """Return a row of the table: R@1 / R@10 on each kind of samples."""
    recalls = []
    for outputs in samples.values():
        image, text = embed(Outputs(*outputs))
        found = recall_at_k(text, image, ks=(1, 10))
        recalls.append(f"{found[1]:.3f} / {found[10]:.3f}")
    return f"| {name} | " + " | ".join(recalls) + " |"


def main(artifacts: Path, shards: Path | None, seed: int) -> None:
    root = Artifacts(artifacts)
    samples = {
        "unseen emoji": unseen(root, OpenMojiPairs(), "group"),
        "unseen icons": unseen(root, IconPairs(), "caption"),
    }
    if shards is None:
        print("no column of photographs: give a folder of tar shards with images and captions, --photographs FOLDER")
    else:
        samples["photographs"] = photographs(shards)
    columns = [f"{name}, of {len(outputs[0]):,}" for name, outputs in samples.items()]
    print("| heads fitted on | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, settings in ROWS.items():
        model = DrawingCLIP(name="drawingclip", seed=seed, **settings)
        heads = heads_of(model.load(root, "cpu"))
        with torch.inference_mode():
            print(line(name, samples, lambda o, h=heads: Outputs(h["image"](o.image), h["text"](o.text))), flush=True)
    classifier = imagenet_classifier(locked_towers())
    mean = classifier.names.mean(dim=0)
    print(
        line(
            "nothing (ConSE)",
            samples,
            lambda o: Outputs(classifier.text_of(o.image) - mean, torch.nn.functional.normalize(o.text) - mean),
        )
    )
    chance = " | ".join(f"{1 / len(o[0]):.3f} / {10 / len(o[0]):.3f}" for o in samples.values())
    print(f"| chance | {chance} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--photographs", type=Path, dest="shards", help="folder of tar shards, such as Flickr8k's")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
