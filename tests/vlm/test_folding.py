import pytest
import timm
import torch
from torch import nn

from mmmono.vlm.folding import fold_batch_norms


def test_a_network_without_batch_normalization_computes_the_same() -> None:
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    for module in network.modules():  # statistics of a trained network, not of a new one
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.bias.data.uniform_(-0.5, 0.5)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(pixels)
        fold_batch_norms(network)
        found = network(pixels)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_the_order_of_calls_must_be_that_of_names() -> None:
    with pytest.raises(ValueError, match="0 follows no convolution"):
        fold_batch_norms(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))
    with pytest.raises(ValueError, match="2 follows no convolution"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)))
