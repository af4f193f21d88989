"""A convolutional network made faster at inference on a CPU, where passes over memory cost more than arithmetic.

Batch normalizations and the padding of "same" convolutions become part of the convolutions' weights, activations are
applied while a convolution writes, and few images pass at a time, each few in one thread. EfficientNet-Lite0 takes less
than half of the time that it takes as timm builds it; outputs change by rounding alone, and not with the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGES = 4  # at a time on a CPU: what a layer writes for so many is still in the caches when the next layer reads it


def folded(network: nn.Module) -> nn.Module:
    """Return a network that computes the same faster: batch normalizations and padding folded, few images at a time.

    Args:
        network: timm's, in evaluation mode, for images whose height and width stay even until the last halving; it is
            changed in place, and its weights have new names.

    Raises:
        ValueError: a batch normalization follows no convolution.
    """
    fold_batch_norms(network)
    fold_padding(network)
    fold_activations(network)
    return FewAtATime(network)


class FewAtATime(nn.Module):
    """A network that passes over a few images at a time, if they are on a CPU.

    Where no gradients are asked for, each of PyTorch's threads takes a few images of its own. Threads that share the work of
    every single layer would wait for each other after each of them: long, where other programs use the cores as well.

    Args:
        network: maps a batch of images to a batch of outputs, each by itself.
        images: how many.
    """

    def __init__(self, network: nn.Module, images: int = IMAGES) -> None:
        super().__init__()
        self.network = network
        self.images = images

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch width"]:
        """Outputs of the network for the whole batch."""
        if pixels.device.type != "cpu":
            return self.network(pixels)
        parts = pixels.contiguous(memory_format=torch.channels_last).split(self.images)  # as the weights are
        apart = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        return torch.cat(self._in_threads(parts) if apart else [self.network(few) for few in parts])

    def _in_threads(self, parts: Sequence[Tensor]) -> list[Tensor]:
        threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

        def pass_over(few: Tensor) -> Tensor:
            with torch.inference_mode(inference), torch.no_grad():  # these modes are a thread's own
                return self.network(few)

        if threads == 1 or len(parts) == 1:
            torch.set_num_threads(1)
            try:
                return [pass_over(few) for few in parts]
            finally:
                torch.set_num_threads(threads)
        with ThreadPoolExecutor(threads, "images", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                return list(pool.map(pass_over, parts))
            finally:
                torch.set_num_threads(threads)  # some of what a thread sets is the whole process's


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


def fold_padding(module: nn.Module) -> None:
    """Replace every halving convolution with timm's "same" padding by one that needs no padded copy of its input.

    For an even size, such padding adds one row less at the top than at the bottom. A kernel with an additional row of zeros
    at its top does the same with equal padding on both sides; columns likewise.

    Args:
        module: changed in place.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame) and child.stride == (2, 2):
            setattr(module, name, HalvingConv.of(child))
        else:
            fold_padding(child)


class HalvingConv(nn.Conv2d):
    """A convolution of stride 2 with "same" padding; see `fold_padding`."""

    @classmethod
    def of(cls, same: nn.Conv2d) -> HalvingConv:
        """Make it of a convolution with a square kernel of odd size and stride 2."""
        size = same.kernel_size[0]
        made = nn.utils.skip_init(  # whose weights are not drawn, which would change the global random state
            cls, same.in_channels, same.out_channels, size + 1, 2, (size - 1) // 2,
            groups=same.groups, bias=same.bias is not None,
        )  # fmt: skip
        with torch.no_grad():
            made.weight.zero_()[..., 1:, 1:] = same.weight
            if same.bias is not None and made.bias is not None:
                made.bias.copy_(same.bias)
        return made.to(memory_format=torch.channels_last).requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve. Raises ValueError if height or width is odd, where "same" padding is another."""
        self.check(input)
        return super().forward(input)

    def check(self, input: Tensor) -> None:
        """Raise ValueError if height or width is odd, where "same" padding is another."""
        if input.shape[-1] % 2 or input.shape[-2] % 2:
            raise ValueError(f"an image of {input.shape[-2]} × {input.shape[-1]} cannot be halved: sizes must be even")


def fold_activations(module: nn.Module) -> None:
    """Join every convolution and the ReLU6 that `fold_batch_norms` left behind it, in the order of a module's children.

    Args:
        module: its weights stay as they are from now on; changed in place. Where PyTorch has no oneDNN, nothing changes.
    """
    if not torch.backends.mkldnn.is_available():
        return
    before = ""
    for name, child in list(module.named_children()):
        convolution = getattr(module, before, None)
        if _is_relu6(child) and isinstance(convolution, nn.Conv2d) and _pads_with_zeros(convolution):
            setattr(module, before, ConvReLU6(convolution))
            setattr(module, name, nn.Identity())
        else:
            fold_activations(child)
        before = name


def _pads_with_zeros(convolution: nn.Conv2d) -> bool:
    """Whether a convolution pads with as many zeros for inputs of any size; timm's "same" convolutions do not."""
    plain = type(convolution) in (nn.Conv2d, HalvingConv)
    return plain and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _is_relu6(module: nn.Module) -> bool:
    """Whether a module is a ReLU6 and identities."""
    kinds = [type(part) for part in module.modules() if not isinstance(part, (nn.Identity, nn.Sequential))]
    return kinds == [nn.ReLU6]


class ConvReLU6(nn.Module):
    """A convolution and its ReLU6: on a CPU and without gradients, one call of oneDNN and one pass over the output.

    Args:
        convolution: with zeros as padding and float32 weights, which stay as they are from now on.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.activation = nn.ReLU6()
        places = list(convolution.padding), list(convolution.stride), list(convolution.dilation)
        self.settings = *places, convolution.groups
        self.packed = self._packed()

    def _packed(self) -> Tensor:
        """Weights in the order in which oneDNN reads them, as an opaque tensor."""
        return torch.ops.mkldnn._reorder_convolution_weight(self.convolution.weight.detach().cpu(), *self.settings)

    def __getstate__(self) -> dict[str, Any]:
        # Opaque tensors have no copies.
        return {name: value for name, value in self.__dict__.items() if name != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.packed = self._packed()

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch width rows columns"]:
        """Convolve and clamp to 0 to 6."""
        apart = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        if input.device.type != "cpu" or input.dtype != torch.float32 or apart:
            return self.activation(self.convolution(input))
        if isinstance(self.convolution, HalvingConv):
            self.convolution.check(input)
        bias = self.convolution.bias
        return torch.ops.mkldnn._convolution_pointwise(
            input, self.packed, bias, *self.settings, "hardtanh", [0.0, 6.0], ""
        )
