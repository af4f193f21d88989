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

from mmmono.case_studies.same_weights import same_weights
from mmmono.core.errors import ModelError
from mmmono.vlm import Encoder
from mmmono.vlm.hub import hub_or_cache, hub_reason

Steering = Callable[[Tensor], Tensor]  # of embeddings `[..., dim]`
# Where the weights that tell towers apart lie, in open_clip's and in transformers' vision transformers.
PATCHES = ("conv1.weight", "embeddings.patch_embedding.weight")
POSITIONS = ("positional_embedding", "embeddings.position_embedding.weight")
NORMS = ("ln_post.weight", "post_layernorm.weight")
BLOCKS = ("transformer.resblocks", "encoder.layers")
INNER = ("mlp.c_fc.weight", "mlp.fc1.weight")


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
        """Return that of a CLIP of open_clip or transformers; None for models that are built otherwise.

        Without a projection (`model.projected=false`), P is the identity.
        """
        model: Any = getattr(encoder, "model", None)
        norm: Any = _first(model, "visual.ln_post", "vision_model.post_layernorm")
        clip = hasattr(model, "visual_projection") or hasattr(getattr(model, "visual", None), "proj")
        if not isinstance(norm, nn.LayerNorm) or not clip:
            return None
        gain, shift = norm.weight.detach().float(), norm.bias.detach().float()
        projection: Any = _first(model, "visual.proj", "visual_projection.weight")
        if projection is None:
            return cls(gain, shift, torch.eye(len(gain)).to(gain), norm.eps)
        matrix = projection.detach().float()
        return cls(gain, shift, matrix.T if hasattr(model, "visual_projection") else matrix, norm.eps)

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
    own = _first(llava, "model.vision_tower.vision_model", "model.vision_tower")
    other = _first(getattr(encoder, "model", None), "visual", "vision_model")
    if space is None or len(space.projection) != width or not _same_tower(own, other):
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


def _same_tower(own: nn.Module, other: nn.Module) -> bool:
    """Whether two vision transformers have the same weights: patches, positions, last norm, and the last block of both.

    A tower of which a layer was chosen (`model.layer`) has fewer blocks.
    """
    blocks = [_first(tower, *BLOCKS) for tower in (own, other)]
    if any(block is None or not len(block) for block in blocks):
        return False
    last = min(len(block) for block in blocks) - 1
    pairs = [(_first(own, *paths), _first(other, *paths)) for paths in (PATCHES, POSITIONS, NORMS)]
    pairs.append((_first(blocks[0][last], *INNER), _first(blocks[1][last], *INNER)))
    return all(one is not None and two is not None and same_weights(one, two) for one, two in pairs)


def _first(root: Any, *paths: str) -> Any:
    """What lies at the first of some dotted paths that exists; None if none does."""
    for path in paths:
        found = root
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None
