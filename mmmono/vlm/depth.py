"""Embeddings from any layer of a model's towers: the blocks above it are left out, and what follows them stays.

The output of block L goes through the tower's own final norm, pooling and projection, as that of the last block does in
the whole model (the "logit lens" of nostalgebraist, 2020, for embeddings).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmmono.core.errors import ModelError
from mmmono.core.shown import as_typed
from mmmono.vlm.encoder import Encoder

TOWERS = ("image", "text")
# Where the blocks of a tower lie: in open_clip's own towers, timm's, and those of transformers.
BLOCKS = ("transformer.resblocks", "trunk.blocks", "encoder.layers", "encoder.layer", "transformer.encoder.layer")


@dataclass(frozen=True)
class Depth:
    """Which layer of each tower gives the embeddings.

    Attributes:
        layer: number of blocks of both towers that are used; -1 uses all, -2 all but the last. A pair `[image, text]` for
            different numbers, null for all of one.
        projected: whether embeddings go through the towers' last linear maps into the joint space. Without them both
            towers must have the same width.

    Raises:
        ModelError: `layer` is neither a whole number nor a pair.
    """

    layer: int | Sequence[int | None] | None = None
    projected: bool = True

    def __post_init__(self) -> None:
        given = self.by_tower
        if len(given) != 2 or not all(one is None or (_is_whole(one) and one != 0) for one in given):
            raise ModelError(
                f"model.layer={as_typed(self.layer)} must be a number of blocks, at least 1, or -1 for all, -2 for all but "
                "the last; or two of them, [image,text]"
            )
        if not isinstance(self.projected, bool):
            raise ModelError(f"model.projected={as_typed(self.projected)} must be true or false")

    @property
    def cuts(self) -> bool:
        """Whether anything is left out."""
        return self.by_tower != [None, None] or not self.projected

    def recipe(self) -> dict[str, Any]:
        """Return what is left out, as part of a recipe; empty if nothing is, so that other recipes stay as they were."""
        version = {} if self.projected else {"version": 2}  # 1 left some projections in
        return {"depth": {"layer": self.by_tower, "projected": self.projected, **version}} if self.cuts else {}

    def check(self, image: int | None, text: int | None) -> None:
        """Raise ModelError if a tower has fewer blocks.

        Args:
            image, text: numbers of blocks that the towers have; None if unknown before the model is built.
        """
        for number, there in enumerate((image, text)):
            if there is not None and self.by_tower[number] is not None:
                self.used(number, there)

    def used(self, tower: int, there: int) -> int:
        """Return how many blocks of a tower, 0 for images and 1 for texts, are used of those that are there."""
        number: int = self.by_tower[tower]
        used = number if number > 0 else there + 1 + number
        if not 1 <= used <= there:
            raise ModelError(
                f"model.layer={as_typed(self.layer)}: the {TOWERS[tower]} tower has {there} blocks: choose 1 to {there}, or "
                f"-1 to -{there}"
            )
        return used

    @property
    def by_tower(self) -> list[Any]:
        """The number given for each tower; None if all its blocks are used, as -1 says too."""
        given = [*self.layer] if isinstance(self.layer, Sequence) else [self.layer, self.layer]
        return [None if layer == -1 else layer for layer in given]


def cut(encoder: Encoder, depth: Depth) -> None:
    """Leave out the blocks above a layer, and the projections, in an encoder around a model of open_clip or transformers.

    Raises:
        ModelError: a tower has no such layer or no blocks of equal width, or both towers differ in width.
    """
    if not depth.cuts:
        return
    model: Any = encoder.model
    towers = _towers(model)
    for number, (tower, what) in enumerate(zip(towers, TOWERS, strict=True)):
        if depth.by_tower[number] is not None:
            holder, name = _blocks(tower, what)
            stack = getattr(holder, name)
            setattr(holder, name, stack[: depth.used(number, len(stack))])
    if not depth.projected:
        _drop_projections(model, towers)
    widths = encoder_widths(encoder)
    if widths[0] != widths[1]:
        raise ModelError(
            f"model.projected={as_typed(depth.projected)}: embeddings of images are {widths[0]} wide and those of texts "
            f"{widths[1]}, and both must have the same dimensions: choose model.projected=true, or a model with towers of "
            "equal width, such as SigLIP"
        )
    encoder.dim = widths[0]
    encoder.fingerprint = f"{encoder.fingerprint}:{depth.recipe()['depth']}"


def encoder_widths(encoder: Encoder) -> tuple[int, int]:
    """Return the widths of an encoder's image and text embeddings, from one pass over a gray image and a short text."""
    with torch.inference_mode():
        image = encoder.encode_image(encoder.preprocess(Image.new("RGB", (64, 64), "gray")).unsqueeze(0))
        return image.shape[1], encoder.encode_text(encoder.tokenize(["a"])).shape[1]


def _towers(model: Any) -> tuple[nn.Module, nn.Module]:
    if hasattr(model, "vision_model"):
        return model.vision_model, model.text_model
    return model.visual, getattr(model, "text", model)


def _blocks(tower: nn.Module, what: str) -> tuple[nn.Module, str]:
    """Return the module that holds a tower's blocks, and the attribute."""
    for path in BLOCKS:
        *parents, name = path.split(".")
        holder: Any = tower
        for parent in parents:
            holder = getattr(holder, parent, None)
        if isinstance(getattr(holder, name, None), nn.ModuleList | nn.Sequential):
            return holder, name
    raise ModelError(
        f"model.layer: the {what} tower, {type(tower).__name__}, is no stack of transformer blocks: choose the layer of the "
        f"other tower alone, {'[null,-2]' if what == 'image' else '[-2,null]'}, or null"
    )


def _drop_projections(model: Any, towers: tuple[Any, Any]) -> None:
    image, text = towers
    if hasattr(model, "vision_model"):
        for name in ("visual_projection", "text_projection"):
            if hasattr(model, name):
                setattr(model, name, nn.Identity())
        if isinstance(getattr(text, "head", None), nn.Linear):  # SigLIP's
            text.head = nn.Identity()
        return
    for name in ("text_projection", "proj"):  # the second is that of transformers' towers
        if getattr(text, name, None) is not None:
            setattr(text, name, None if name == "text_projection" else nn.Identity())
    if hasattr(image, "trunk"):
        _drop_timm_projection(image)
    elif hasattr(image, "attnpool"):
        # A ResNet's pool reads the weights of its last map, so that one which changes nothing replaces it.
        old = image.attnpool.c_proj
        image.attnpool.c_proj = same = nn.Linear(old.in_features, old.in_features).to(old.weight).requires_grad_(False)
        nn.init.eye_(same.weight)
        nn.init.zeros_(same.bias)
    else:
        image.proj = None


def _drop_timm_projection(image: Any) -> None:
    """Drop what follows the pooling: layers of its head, the pool's own map, or the classifier that stands for both."""
    pool = getattr(image.head, "pool", None)
    if pool is not None:
        pool.proj = nn.Identity()
    elif not len(image.head):
        image.trunk.reset_classifier(0)
    image.head = nn.Sequential(OrderedDict(pool=pool) if pool is not None else OrderedDict())


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
