"""Visual tokens of LLaVA, steered before the projector that hands them to the language model.

Tokens are vectors of the vision tower, one for each patch. A dictionary of tokens of this width is applied to them as they
are. One of a CLIP model's joint space is applied through that model's last norm and projection, as its class token goes,
if the vision tower is the model's own; the change is brought back by the projection's pseudo-inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmmono.core.errors import ModelError
from mmmono.vlm import Encoder
from mmmono.vlm.hub import hub_or_cache, hub_reason

Steering = Callable[[Tensor], Tensor]  # of embeddings `[..., dim]`
SAME = 0.01  # largest relative difference of one tower's weights, which may be stored in half precision


@dataclass(frozen=True)
class JointSpace:
    """The way from an image tower's tokens into the joint space: e = LN(t) · P, as the class token goes.

    Attributes:
        gain, shift: weights of the tower's last norm.
        projection: the tower's projection, P.
        epsilon: of the norm.
    """

    gain: Float[Tensor, " width"]
    shift: Float[Tensor, " width"]
    projection: Float[Tensor, "width dim"]
    epsilon: float

    @classmethod
    def of(cls, encoder: Encoder) -> JointSpace | None:
        """Return that of a CLIP of open_clip or transformers; None for models that are built otherwise."""
        model: Any = getattr(encoder, "model", None)
        norm: Any = _first(model, "visual.ln_post", "vision_model.post_layernorm")
        projection: Any = _first(model, "visual.proj", "visual_projection.weight")
        if not isinstance(norm, nn.LayerNorm) or not isinstance(projection, Tensor):
            return None
        matrix = projection.detach().float()
        matrix = matrix.T if hasattr(model, "visual_projection") else matrix
        return cls(norm.weight.detach().float(), norm.bias.detach().float(), matrix, norm.eps)

    def steered(self, tokens: Float[Tensor, "*batch width"], steering: Steering) -> Float[Tensor, "*batch width"]:
        """Steer tokens in the joint space.

        A token moves by the smallest change that moves its embedding as wanted, while the scale σ that the norm divides it
        by is kept: t′ = t + σ · (e′ − e) · pinv(C · diag(gain) · P), where C takes the mean out.
        """
        centered = tokens - tokens.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
        embeddings = (centered / scale * self.gain + self.shift) @ self.projection
        return tokens + scale * ((steering(embeddings) - embeddings) @ self._back)

    @cached_property
    def _back(self) -> Float[Tensor, "dim width"]:
        forth = (self.gain[:, None] * self.projection).double()
        return torch.linalg.pinv(forth - forth.mean(0)).float()


def joint_space(encoder: Encoder, llava: nn.Module, width: int) -> JointSpace | None:
    """Return the way from a LLaVA's visual tokens into an encoder's joint space; None unless it has the encoder's tower.

    Args:
        encoder: the model whose joint space it is.
        llava: transformers' model.
        width: width of the visual tokens.
    """
    space = JointSpace.of(encoder)
    own, other = (_patch_weights(tower) for tower in (_first(llava, "model.vision_tower"), _image_tower(encoder)))
    if space is None or own is None or other is None or len(space.projection) != width:
        return None
    if own.shape != other.shape or (own - other).norm() > SAME * other.norm():
        return None
    return space


def token_width(model: str) -> int:
    """Width of a LLaVA's visual tokens, by its configuration alone.

    Args:
        model: hub id or local folder.

    Raises:
        ModelError: the configuration cannot be had, or is not that of a LLaVA.
    """
    from transformers import AutoConfig

    try:
        with hub_or_cache():
            config = AutoConfig.from_pretrained(model)
    except Exception as error:  # transformers passes on all errors of the hub client
        raise ModelError(f"victim.model={model} cannot be had ({hub_reason(error)}): check its name") from error
    if not hasattr(config, "vision_feature_layer"):
        raise ModelError(f"victim.model={model} is no LLaVA, but a {config.model_type}: give one, such as LLaVA-1.5")
    layers = config.vision_feature_layer
    return int(config.vision_config.hidden_size) * (1 if isinstance(layers, int) else len(layers))


@contextmanager
def steered_tokens(llava: Any, steering: Steering) -> Iterator[None]:
    """Steer every visual token of a LLaVA within this block.

    Args:
        llava: transformers' `LlavaForConditionalGeneration`.
        steering: returns steered tokens for tokens `[images, tokens, width]` in float32.
    """

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens = inputs[0]
        return (steering(tokens.float()).to(tokens), *inputs[1:])

    handle = llava.model.multi_modal_projector.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _image_tower(encoder: Encoder) -> Any:
    return _first(getattr(encoder, "model", None), "visual", "vision_model")


def _patch_weights(tower: Any) -> Tensor | None:
    """Weights of a tower's first convolution, which cuts the image into patches."""
    modules = tower.modules() if isinstance(tower, nn.Module) else ()
    first = next((module for module in modules if isinstance(module, nn.Conv2d)), None)
    return None if first is None else first.weight.detach().float().cpu()


def _first(root: Any, *paths: str) -> Any:
    """What lies at the first of some dotted paths that exists; None if none does."""
    for path in paths:
        found = root
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None
