"""Steering: set a feature of a text, and look at which images the text then finds.

A feature can be steered if the images found activate it as much as those that activate it most, while the other features
of what is found stay. Setting other features says how much of the movement any change would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows

How = Literal["set", "scale"]


def check_how(how: str) -> None:
    """Raise ValueError unless `how` names a way to change a code."""
    if how not in get_args(How):
        raise ValueError(f"how={how} is none of {', '.join(get_args(How))}")


@dataclass(frozen=True)
class Steered:
    """What steering each of some features at one strength does to what is found.

    Attributes:
        strength: the strength, see `SteeredRetrieval.value`.
        moves: mean activation of the steered feature on the images found, minus the one before, over its reference: 1 if
            nothing activated it before, and the images found then are those that activate it most.
        controls: the same of this feature while the other features are steered, on average over these.
        stays: cosine of the other features' mean activations on the images found before and after, each minus its mean
            over all images: 1 if they stay, about 0 if what is found has nothing to do with what was.
    """

    strength: float
    moves: Float64[Tensor, "queries features"]
    controls: Float64[Tensor, "queries features"]
    stays: Float64[Tensor, "queries features"]

    def scores(self) -> Float64[Tensor, " features"]:
        """Steerability of each feature: mean movement times mean staying, 0 if either is negative."""
        return self.moves.mean(0).clamp_min(0) * self.stays.mean(0).clamp_min(0)


class SteeredRetrieval:
    """Texts that find images, with features that can be set.

    A code that changes by δ moves a text's vector by δ · atom, so that what the dictionary does not explain stays; images
    are ranked by cosine with the moved vector. If the features have no atoms, codes are compared with codes.

    Args:
        text: vectors of the texts.
        text_codes: their activations.
        image: vectors of the images, in the same space as those of the texts.
        image_codes: their activations.
        atoms: what each feature adds to a vector; None if vectors are codes.
        k: number of images that are found.

    Raises:
        NonFiniteError: a number is NaN or infinite.
        ValueError: there are fewer images than k, or shapes do not fit.
    """

    def __init__(
        self,
        text: Float64[Tensor, "queries dim"],
        text_codes: Float64[Tensor, "queries features"],
        image: Float64[Tensor, "images dim"],
        image_codes: Float64[Tensor, "images features"],
        atoms: Float64[Tensor, "features dim"] | None,
        k: int,
    ) -> None:
        for values, name in ((text, "text"), (text_codes, "text"), (image, "image"), (image_codes, "image")):
            check_finite(values, name)
        if not 1 <= k <= len(image):
            raise ValueError(f"k={k} images are to be found among {len(image)}: give 1 to {len(image)}")
        unit = unit_rows(image)
        self.codes, self.image_codes, self.k = double(text_codes), double(image_codes), k
        self._similarity = double(text) @ unit.T
        self._reach = unit.T if atoms is None else double(atoms) @ unit.T  # of each feature towards each image
        if len(self._reach) != self.codes.shape[1]:
            raise ValueError(f"{self.codes.shape[1]} features but {len(self._reach)} atoms: each feature has one")
        self._mean = self.image_codes.mean(0)
        self._before = self.profile(self._similarity.topk(k, dim=1).indices)
        self.reference = _reference(self.image_codes, k)

    def value(self, feature: int, strength: float, how: How = "set") -> Float64[Tensor, " queries"]:
        """Code of a steered feature: `set` to strength · reference, or its own one `scaled` by the strength."""
        own = self.codes[:, feature]
        return own * strength if how == "scale" else torch.full_like(own, strength * float(self.reference[feature]))

    def found(
        self, feature: int | None = None, strength: float = 1.0, how: How = "set", count: int | None = None
    ) -> Int64[Tensor, "queries count"]:
        """Images that each text finds, best first: with a steered feature, or as it is (None); k unless a count is given."""
        similarity = self._similarity
        if feature is not None:
            change = self.value(feature, strength, how) - self.codes[:, feature]
            similarity = torch.addr(similarity, change, self._reach[feature])
        return similarity.topk(count or self.k, dim=1).indices

    def profile(self, found: Int64[Tensor, "queries k"]) -> Float64[Tensor, "queries features"]:
        """Mean activations of the images that each text finds."""
        return torch.nn.functional.embedding_bag(found, self.image_codes, mode="mean")

    def steered(
        self,
        features: Sequence[int],
        strengths: Sequence[float],
        how: How = "set",
        advance: Callable[[], None] = lambda: None,
    ) -> Iterator[Steered]:
        """Steer each feature alone, at each strength.

        Args:
            features: at least two features with a reference other than 0, since each is a control of the others.
            strengths: strengths.
            how: see `value`.
            advance: called after each feature and strength.

        Raises:
            ValueError: there are fewer than two features, or no image activates one.
        """
        check_how(how)
        chosen = torch.tensor(list(features), dtype=torch.int64)
        if len(chosen) < 2:
            raise ValueError(f"{len(chosen)} features to steer: give two at least, each is a control of the others")
        if bool((self.reference[chosen] == 0).any()):
            silent = chosen[self.reference[chosen] == 0][0]
            raise ValueError(f"no image activates feature {silent}: leave it out")
        reference, before = self.reference[chosen], self._before[:, chosen]
        for strength in strengths:
            total = torch.zeros_like(before)
            own, stays = torch.zeros_like(before), torch.zeros_like(before)
            for place, feature in enumerate(chosen.tolist()):
                after = self.profile(self.found(feature, strength, how))
                total += after[:, chosen]
                own[:, place] = after[:, feature]
                stays[:, place] = self._stay(after, feature)
                advance()
            controls = (total - own) / (len(chosen) - 1)
            yield Steered(strength, (own - before) / reference, (controls - before) / reference, stays)

    def _stay(self, after: Tensor, feature: int) -> Tensor:
        sides = [side - self._mean for side in (self._before, after)]
        for side in sides:
            side[:, feature] = 0
        return (unit_rows(sides[0]) * unit_rows(sides[1])).sum(1)


def _reference(codes: Float64[Tensor, "images features"], k: int) -> Float64[Tensor, " features"]:
    """Mean of each feature's k largest activations, on the side of 0 with the larger energy Σ z²; negative on that side."""
    negative = codes.clamp_max(0).square().sum(0) > codes.clamp_min(0).square().sum(0)
    signed = torch.where(negative, -codes, codes)
    return torch.where(negative, -1.0, 1.0) * signed.topk(k, dim=0).values.clamp_min(0).mean(0)
