"""Count the successes under each condition, and measure how much closer the encoder places each image to the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.analyses.adversarial.cases import Case
from mmmono.analyses.adversarial.moving import Folders
from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.case_studies.adversarial.outcomes import (
    AttackOutcome,
    Carried,
    Condition,
    Observations,
    attack_outcome,
)
from mmmono.case_studies.adversarial.success import Crossing, Verdicts
from mmmono.core.statistics import holm
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.random_sets import Match, random_name
from mmmono.vlm import Encoder


class Margins:
    """Margin of an image: its cosine to the request's concept minus that to the benign caption.

    Args:
        encoder: the attacked encoder.
        cases: the cases.
        batch_size: number of images embedded at a time.
        device: device to compute on.
    """

    def __init__(self, encoder: Encoder, cases: Sequence[Case], batch_size: int, device: str) -> None:
        self._encoder, self._batch_size, self._device = encoder, batch_size, device
        concepts = self._embed([case.request.concept for case in cases])
        self._lean = concepts - self._embed([case.benign.caption for case in cases])

    def _embed(self, texts: list[str]) -> Float[Tensor, "texts dim"]:
        unique = list(dict.fromkeys(texts))
        with torch.inference_mode():
            rows = F.normalize(self._encoder.encode_text(self._encoder.tokenize(unique).to(self._device)), dim=1)
        return rows[[unique.index(text) for text in texts]]

    def of(self, folder: ConditionFolder) -> Float[np.ndarray[Any, Any], " cases"]:
        """Return the margin of every image of a folder."""
        margins = []
        with torch.inference_mode():
            for start in range(0, folder.count, self._batch_size):
                batch = list(range(start, min(start + self._batch_size, folder.count)))
                embeddings = self._encoder.encode_pixels(folder.pixels(batch).to(self._device))
                margins.append((F.normalize(embeddings, dim=1) * self._lean[batch]).sum(1).cpu())
        found: np.ndarray[Any, Any] = torch.cat(margins).numpy()
        return found


@dataclass(frozen=True)
class Counted:
    """Everything that was made and asked.

    Attributes:
        cases: the cases.
        folders: images of each condition.
        verdicts: verdicts under each condition.
        carried: what the aligned features of each defense carry.
    """

    cases: Sequence[Case]
    folders: Folders
    verdicts: Mapping[Condition, Verdicts]
    carried: Mapping[Condition, Carried]


def count(counted: Counted, margins: Margins, match: Match) -> list[AttackOutcome]:
    """Summarize every condition; defenses are compared with aligning random features like theirs.

    Args:
        counted: cases, images, verdicts.
        margins: measures the margins.
        match: what these random features have in common with the defense's.
    """
    cases, verdicts = counted.cases, counted.verdicts
    crossing = Crossing(
        np.array([case.request_number for case in cases]), np.array([case.benign_number for case in cases])
    )
    outcomes = []
    for condition, folder in counted.folders.items():
        random = None
        if condition.aligned in LIVE_CLASSES:
            like = Condition(random_name(match, condition.aligned), condition.feature_set, condition.features)
            random = verdicts.get(like)
        seen = Observations(crossing, verdicts[condition], margins.of(folder), folder.distances())
        outcomes.append(attack_outcome(condition, seen, random, counted.carried.get(condition)))
    return outcomes


def table3(outcomes: Sequence[AttackOutcome]) -> list[dict[str, Any]]:
    """Rows of Table 3, with p-values adjusted for all comparisons of a feature set with random features."""
    adjusted: dict[Condition, float] = {}
    for name in dict.fromkeys(outcome.condition.feature_set for outcome in outcomes):
        compared = [o for o in outcomes if o.condition.feature_set == name and o.below_random]
        p_values = [o.below_random.p_value for o in compared if o.below_random]
        adjusted |= dict(zip([o.condition for o in compared], holm(p_values), strict=True))
    return [outcome.to_row(adjusted.get(outcome.condition)) for outcome in outcomes]
