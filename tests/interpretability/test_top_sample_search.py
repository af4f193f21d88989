"""Top samples that differ from one another."""

import numpy as np
import pandas as pd
import torch

from mmmono.features import ActivationBlock
from mmmono.interpretability import TopSampleSearch

CAPTIONS = ["a dog", "A DOG", "a cat", "a cow", "a dog", "a hen"]
GROUPS = ["0", "1", "2", "2", "3", "4"]
IMAGE = torch.tensor([[6.0], [5.0], [4.0], [3.0], [2.0], [0.0]])
TEXT = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])


def found(m: int, deduplicate: bool, metadata: pd.DataFrame) -> dict[str, list[int]]:
    search = TopSampleSearch(m, deduplicate, metadata)
    for start in (0, 4):
        stop = min(start + 4, len(IMAGE))
        search.add(ActivationBlock(start, IMAGE[start:stop], TEXT[start:stop]))
    return {modality: top.rows[0].tolist() for modality, top in search.result().items()}


def test_groups_and_captions_come_once() -> None:
    both = pd.DataFrame({"caption": CAPTIONS, "group": GROUPS})
    # Images 2 and 3 are of one group; of texts, 3 stands for that group and 4 for all dogs.
    assert found(5, True, both) == {"image": [0, 1, 2, 4, -1], "text": [5, 4, 3, -1, -1]}
    assert found(5, True, both[["caption"]]) == {"image": [0, 1, 2, 3, 4], "text": [5, 4, 3, 2, -1]}
    assert found(2, True, both) == {"image": [0, 1], "text": [5, 4]}


def test_without_deduplication_or_metadata_the_best_remain() -> None:
    best = {"image": [0, 1, 2, 3], "text": [5, 4, 3, 2]}
    assert found(4, False, pd.DataFrame({"caption": CAPTIONS, "group": GROUPS})) == best
    assert found(4, True, pd.DataFrame({"key": np.arange(6).astype(str)})) == best
