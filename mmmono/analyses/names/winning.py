"""Which of several names of a feature detects it best on held-out pairs, and whether that name holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.analyses.names import SOURCES
from mmmono.features import MODALITIES, Modality
from mmmono.interpretability.detection import Detection

BETTER = 0.05  # share of other names that may detect a feature at least as well as its own does, if that is to hold


@dataclass(frozen=True)
class WinningNames:
    """The better name of every feature, and how well it detects the feature.

    Attributes:
        word: index of each feature's name; −1 if it has none.
        found: how well it detects the feature on either side.
        p_value: of the name, times the number of different names that were tested.
        source: place of the name among those that were tried.
        scores: AUROC of each name on the side of its class, of CrossD the mean of both sides; −∞ if it was not tested.
        names: all that were tried, from each source.
        tests: how well they detect the features.
    """

    word: Int64[Tensor, " features"]
    found: dict[Modality, Detection]
    p_value: Float64[Tensor, " features"]
    source: Int64[Tensor, " features"]
    scores: Float64[Tensor, "sources features"]
    names: Sequence[Int64[Tensor, " features"]]
    tests: Sequence[dict[Modality, Detection]]

    def by(self, feature: int) -> str:
        """Where a feature's name is from; empty if it has none."""
        return SOURCES[int(self.source[feature])] if int(self.word[feature]) >= 0 else ""

    def tried(self, feature: int, words: Sequence[str]) -> Iterator[dict[str, object]]:
        """Yield the name of a feature from each source, with its AUROC."""
        for place, (word, test) in enumerate(zip(self.names, self.tests, strict=True)):
            index = int(word[feature])
            yield {
                "by": SOURCES[place],
                "name": words[index] if index >= 0 else "",
                "auroc": _known(self.scores[place, feature]),
                **{f"auroc_{side}": _known(test[side].auroc[feature]) for side in MODALITIES},
                "wins": index >= 0 and int(self.source[feature]) == place,
            }


def winning_names(
    classes: Sequence[str], names: Sequence[Int64[Tensor, " features"]], tests: Sequence[dict[Modality, Detection]]
) -> WinningNames:
    """Keep the name of each feature with the largest AUROC on the side of its class; of CrossD, the mean of both sides.

    Of names that are equally good, the one from the first source is kept. The larger of several AUROCs is larger by chance,
    too: its p-value is multiplied by the number of different names that were tested (Bonferroni).

    Args:
        classes: class of each feature.
        names: index of each feature's name from each source, −1 for features without one.
        tests: the same names on held-out samples, by modality.
    """
    scores = torch.stack([_score(classes, test) for test in tests])
    words = torch.stack(list(names))
    # The first of equal ones; a name that could not be tested is better than none.
    source = scores.clamp_min(-1).masked_fill(words < 0, -torch.inf).argmax(0)
    tested = ~scores.isinf()
    count = tested.sum(0)
    if len(names) == 2:
        count -= (tested.all(0) & (names[0] == names[1])).long()
    found = {m: _picked([test[m] for test in tests], source) for m in MODALITIES}
    word = words.gather(0, source[None])[0]
    p_value = (p_values(classes, found) * count.clamp_min(1)).clamp_max(1)
    return WinningNames(word, found, p_value, source, scores, names, tests)


def _known(value: Tensor) -> float | None:
    """A number; None for one that is not finite."""
    return float(value) if bool(value.isfinite()) else None


def _score(classes: Sequence[str], found: dict[Modality, Detection]) -> Float64[Tensor, " features"]:
    """AUROC on the side of each feature's class; −∞ where the name was not tested."""
    image, text = (found[m].auroc for m in MODALITIES)
    both = torch.stack([image, text]).nanmean(0)
    return _on_side(classes, image, text, both).nan_to_num(nan=-torch.inf)


def _picked(tests: Sequence[Detection], source: Int64[Tensor, " features"]) -> Detection:
    """Take each feature's results from one of several tests."""
    columns = {
        field.name: torch.stack([getattr(test, field.name) for test in tests]).gather(0, source[None])[0]
        for field in fields(Detection)
    }
    return Detection(**columns)


def p_values(classes: Sequence[str], found: dict[Modality, Detection]) -> Float64[Tensor, " features"]:
    """p-value on the side of each feature's class; of CrossD, twice the smaller one of both (Bonferroni).

    It is 1 on a side where more than `BETTER` of the other names detect the feature at least as well: a name that is merely
    related to what a feature is of is better than the mean of other names, but not than the best of them.
    """
    image, text = (torch.where(found[m].better > BETTER, 1.0, found[m].p_value) for m in MODALITIES)
    either = torch.where(
        image.isnan(), text, torch.where(text.isnan(), image, (2 * torch.minimum(image, text)).clamp_max(1))
    )
    return _on_side(classes, image, text, either)


def _on_side(classes: Sequence[str], image: Tensor, text: Tensor, either: Tensor) -> Tensor:
    """Take the value on the side of each feature's class; `either` for features of no side."""
    of = np.array(classes)
    return torch.where(
        torch.from_numpy(of == "ImgD"), image, torch.where(torch.from_numpy(of == "TextD"), text, either)
    )
