import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn

from mmmono.vlm.folding import (
    ConvReLU6,
    FewAtATime,
    HalvingConv,
    fold_activations,
    fold_batch_norms,
    fold_padding,
    folded,
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    for module in network.modules():  # statistics of a trained network, not of a new one
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.bias.data.uniform_(-0.5, 0.5)
    return network


def test_a_folded_network_computes_the_same(network: nn.Module) -> None:
    pixels = torch.randn(7, 3, 64, 64)  # more than pass at a time, and no multiple of it
    with torch.no_grad():
        expected = network(pixels)
        fast = folded(network)
        found = fast(pixels)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert sum(isinstance(module, HalvingConv) for module in fast.modules()) == 5
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_padding_is_folded_into_kernels(network: nn.Module) -> None:
    pixels = torch.randn(3, 3, 96, 64)
    with torch.no_grad():
        expected = network(pixels)
        fold_padding(network)
        torch.testing.assert_close(network(pixels), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)
        with pytest.raises(ValueError, match="an image of 33 × 64 cannot be halved"):
            network(torch.randn(1, 3, 33, 64))


def test_a_convolution_and_its_activation_are_one_call(network: nn.Module) -> None:
    fast = folded(network)
    joined = [module for module in fast.modules() if isinstance(module, ConvReLU6)]
    assert len(joined) == 33, "the stem, two of each of 16 blocks but one of the first, and the head"
    wide = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = fast(wide)
        for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(copied(wide), expected)
        for one, size in zip(joined, (64, 32, 32), strict=False):
            pixels = 9 * torch.randn(3, one.convolution.in_channels, size, size).contiguous(
                memory_format=torch.channels_last
            )
            plain = one.convolution(pixels).clamp(0, 6)
            assert 0 < float((plain == 6).float().mean()) < 0.9
            torch.testing.assert_close(one(pixels), plain)


def test_other_padding_is_left_to_the_convolution() -> None:
    pixels = torch.randn(2, 3, 8, 8)
    for options in ({"padding": "same"}, {"padding": 1, "padding_mode": "circular"}):
        module = nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.ReLU6()).eval()
        with torch.no_grad():
            expected = module(pixels)
            fold_activations(module)
            assert torch.equal(module(pixels), expected)
        assert isinstance(module[0], nn.Conv2d)


def test_few_images_pass_at_a_time() -> None:
    sizes = []

    class Mean(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(len(pixels))
            return pixels.mean((2, 3))

    pixels = torch.randn(10, 3, 2, 2)
    torch.testing.assert_close(FewAtATime(Mean(), 4)(pixels), pixels.mean((2, 3)))
    assert sizes == [4, 4, 2]
    assert FewAtATime(Mean(), 4)(pixels.to("meta")).shape == (10, 3)
    assert sizes == [4, 4, 2, 10], "elsewhere than on a CPU, the batch as it is"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.usefixtures("threads")
def test_bits_do_not_depend_on_the_number_of_threads(network: nn.Module, mode: Callable[[], Any]) -> None:
    fast = folded(network)
    pixels, found = torch.randn(18, 3, 64, 64), []
    with mode():
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(fast(pixels))
            assert torch.get_num_threads() == number
            assert found[-1].is_inference() == (mode is torch.inference_mode)
        assert all(torch.equal(found[0], other) for other in found[1:])
        assert torch.equal(found[0][:4], fast(pixels[:4])), "nor on the rest of the batch"


def test_gradients_pass_through_all_images(network: nn.Module) -> None:
    pixels = torch.randn(6, 3, 32, 32, requires_grad=True)
    folded(network)(pixels).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.usefixtures("threads")
def test_an_error_in_a_thread_is_the_callers(network: nn.Module) -> None:
    torch.set_num_threads(2)
    with torch.no_grad(), pytest.raises(ValueError, match="cannot be halved"):
        folded(network)(torch.randn(9, 3, 33, 33))
    assert torch.get_num_threads() == 2


def test_the_order_of_calls_must_be_that_of_names() -> None:
    with pytest.raises(ValueError, match="0 follows no convolution"):
        fold_batch_norms(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))
    with pytest.raises(ValueError, match="2 follows no convolution"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)))
