"""Steering: set a feature of a text, and look at which images the text then finds.

A feature can be steered if the images found activate it as much as those that activate it most, while the other features
of what is found stay. Setting other features says how much of the movement any change would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows
from mmmono.features.removal import others
from mmmono.interpretability.steer import How, Steer, check_how
from mmmono.interpretability.steerability import Steerability, Steered, reference_activations


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
        self.reference = reference_activations(self.image_codes, k)

    def found(
        self, feature: int | None = None, strength: float = 1.0, how: How = "set", count: int | None = None
    ) -> Int64[Tensor, "queries count"]:
        """Images that each text finds, best first: with a steered feature, or as it is (None); k unless a count is given."""
        similarity = self._similarity
        if feature is not None:
            steer = Steer.of(feature, strength, float(self.reference[feature]), how)
            similarity = steer.moved(similarity, self.codes, self._reach[[feature]])
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
            how: see `Steer`.
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
        places = torch.arange(len(chosen))
        for strength in strengths:
            found = Steerability(self._before, self._mean, chosen, self.reference[chosen])
            for place, feature in enumerate(chosen.tolist()):
                after = self.profile(self.found(feature, strength, how))
                found.add(place, after)
                found.add_control(others(places[[place]], len(chosen)), after)
                advance()
            yield found.result(strength)
