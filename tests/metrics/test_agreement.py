"""Metrics agree with their definitions to 1e-6: at every scale, in every type, in blocks of every size and layout."""

import numpy as np
import pytest
import torch

from tests.metrics.inputs import BLOCKS, DTYPES, LAYOUTS, blocks, cast, fits, offset, paired
from tests.metrics.metrics import METRICS

SCALES = [1e-6, 1e-3, 1.0, 1e4, 1e6]
RANKS = ("top samples", "R@3", "zero-shot")  # which near-ties can turn round


def assert_agree(got: object, expected: object, rtol: float = 1e-6, atol: float = 1e-6, message: str = "") -> None:
    values = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    np.testing.assert_allclose(values, np.asarray(expected), rtol=rtol, atol=atol, err_msg=message)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_scales_types_and_blocks(name: str) -> None:
    metric = METRICS[name]
    tried = 0
    for dtype in DTYPES:
        for scale in SCALES:
            if not fits(scale, dtype):
                continue
            image, image64 = cast(paired()[0], dtype, scale)
            text, text64 = cast(paired()[1], dtype, scale)
            expected = metric.reference(image64, text64)
            for block in BLOCKS:
                where = f"{dtype}, scale {scale}, blocks of {block}"
                atol = 1e-6 if metric.invariant else 1e-6 * scale
                assert_agree(metric.of(blocks(block, image, text)), expected, atol=atol, message=where)
                tried += 1
    assert tried >= 4 * 3 * len(BLOCKS)


@pytest.mark.parametrize("name", METRICS)
def test_blocks_of_any_size_give_the_same_numbers(name: str) -> None:
    image, text = (side.float() for side in paired(1))
    first, *others = (METRICS[name].of(blocks(block, image, text)) for block in BLOCKS)
    for other in others:
        assert_agree(other, first, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_gradients_change_nothing(name: str, layout: str) -> None:
    image, text = (side.float() for side in paired(2))
    laid = [LAYOUTS[layout](side) for side in (image, text)]
    assert torch.equal(laid[0], image)
    got = METRICS[name].of(blocks(7, *laid))
    if isinstance(got, torch.Tensor):
        assert not got.requires_grad
    assert_agree(got, METRICS[name].of(blocks(7, image, text)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in RANKS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_that_are_large_beside_the_spread(name: str, dtype: torch.dtype) -> None:
    image, text = (cast(side, dtype) for side in offset())
    expected = METRICS[name].reference(image[1], text[1])
    assert_agree(METRICS[name].of(blocks(7, image[0], text[0])), expected, rtol=1e-5 if name == "sign-flip p" else 1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_threads_change_no_more_than_last_digits(name: str) -> None:
    image, text = (side.float() for side in paired(3))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(METRICS[name].of(blocks(60, image, text)))
    finally:
        torch.set_num_threads(before)
    assert_agree(results[0], results[1], rtol=1e-7, atol=1e-9)
