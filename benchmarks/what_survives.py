"""What the default model's image tower knows and no caption says: how much of it is left in the space shared with texts?

    python benchmarks/what_survives.py --artifacts artifacts

The factor is the style of a drawing: each emoji in color, and its black lines alone (`dataset.style=both`), with one
caption. A linear probe (logistic regression) is fitted on emoji of the split `train`, whose drawings in color the heads
were fitted on, too, and asked about those of the split `val`; chance is 0.5. Recall is that of a caption's own image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import Artifacts
from mmmono.data import OpenMojiPairs
from mmmono.data.openmoji import LINE
from mmmono.data.pairs import SplitShares
from mmmono.features.retrieval import recall_at_k
from mmmono.pipeline.models import DrawingCLIP
from mmmono.pipeline.tower_outputs import tower_outputs
from mmmono.vlm.tower_outputs import heads_of


def share_of_variance(embeddings: Tensor, line: np.ndarray) -> float:
    """Share of the total variance that lies between the means of the two styles, which are equally many."""
    means = [embeddings[torch.from_numpy(of)].mean(0) for of in (line, ~line)]
    return float((means[0] - means[1]).square().sum() / 4 / embeddings.var(0, correction=0).sum())


def main(artifacts: Path) -> None:
    root = Artifacts(artifacts)
    outputs = tower_outputs(root, OpenMojiPairs(style="both"))
    keys, groups = outputs.metadata["key"], outputs.metadata["group"]
    line = keys.str.endswith(LINE).to_numpy()
    split = np.array([SplitShares().split_of(group) for group in groups])
    heads = heads_of(DrawingCLIP(name="drawingclip").load(root, "cpu"))
    with torch.inference_mode():
        spaces = {
            "image tower": outputs.image,
            "shared space": F.normalize(heads["image"](outputs.image), dim=1),
            "caption": F.normalize(heads["text"](outputs.text), dim=1),
        }
    train, val = split == "train", split == "val"
    print(f"{val.sum():,} unseen drawings, half of them lines alone, in {groups[val].nunique()} groups")
    print("| linear probe of the style | accuracy | share of variance |\n|---|---|---|")
    for name, space in spaces.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        probe.fit(space[train].numpy(), line[train])
        accuracy = probe.score(space[val].numpy(), line[val])
        print(f"| {name} | {accuracy:.3f} | {share_of_variance(space[val], line[val]):.3f} |")
    for name, of in (("color", val & ~line), ("lines", val & line)):
        found = recall_at_k(spaces["caption"][of], spaces["shared space"][of], ks=(1, 10))
        print(f"R@1 / R@10 of {of.sum()} captions among drawings of {name}: {found[1]:.3f} / {found[10]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    main(**vars(parser.parse_args()))
