"""What is chosen as codes, and at what cost."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmmono.dictionaries import selection
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.batch_topk import BatchTopKSAE
from mmmono.dictionaries.matching_pursuit import MatchingPursuitSAE
from mmmono.dictionaries.selecting_sae import SelectingSAE
from mmmono.dictionaries.selection import PerBatch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_running_threshold_moves_in_every_precision(dtype: torch.dtype) -> None:
    chosen = PerBatch(3).to(dtype)
    chosen._follow(torch.tensor(0.1), torch.empty(0))
    for _ in range(1000):
        chosen._follow(torch.tensor(0.08, dtype=dtype), torch.empty(0))
    assert float(chosen.threshold) == pytest.approx(0.08, rel=4e-3)
    assert chosen.threshold.dtype == (dtype if dtype == torch.float64 else torch.float32)


def test_a_threshold_survives_a_coarser_precision_bit_by_bit() -> None:
    sae = BatchTopKSAE(8, 16, k=3)
    assert isinstance(sae.selection, PerBatch)
    sae.selection.threshold.fill_(0.1)
    sae.bfloat16()
    assert sae.W_enc.dtype == torch.bfloat16
    assert sae.threshold is not None
    assert float(sae.threshold) == float(torch.tensor(0.1))


class Shapes(TorchDispatchMode):
    """Shapes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.seen.add(tuple(out.shape))
        return out


def test_matching_pursuit_of_few_samples_makes_no_matrix_of_all_pairs_of_latents() -> None:
    """And its codes are those of many samples, which takes that matrix."""
    torch.manual_seed(0)
    sae = MatchingPursuitSAE(8, 64, k=4)
    z = F.normalize(torch.randn(100, 8), dim=1)
    with Shapes() as many, torch.no_grad():
        expected = sae.codes(z).values
    assert (64, 64) in many.seen
    with Shapes() as few, torch.no_grad():
        codes = torch.cat([sae.codes(rows).values for rows in z.split(10)])
        products = torch.cat([sae.activate(rows @ sae.W_dec.T) for rows in z.split(10)])
    assert (64, 64) not in few.seen
    torch.testing.assert_close(codes, expected)
    torch.testing.assert_close(products, expected)


def test_a_variant_that_selects_only_says_what_it_activates() -> None:
    assert SelectingSAE.codes is BatchTopKSAE.codes is SparseAutoencoder.codes


def test_to_find_a_class_takes_no_lightning() -> None:
    """In a new process: Lightning takes seconds, and a command that only encodes does not need it."""
    code = "import sys; from mmmono.dictionaries.base import dictionary_class as find; find('jumprelu_sae'); "
    code += "print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_search_for_the_threshold_of_a_batch_that_overflows_ends_and_so_does_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a training diverges: half of infinity is infinity."""
    z, weight = torch.rand(8, 4), torch.rand(16, 4)
    searches: list[float] = []
    above = selection._above

    def counted(*factors: Any) -> Any:
        searches.append(factors[-1])
        assert len(searches) < 1000
        return above(*factors)

    monkeypatch.setattr(selection, "_above", counted)
    again = PerBatch(3)
    again.choose(z * 1e30, weight * 1e30, None)
    codes = again.choose(z, weight, None)
    assert searches == [math.inf, 0.0] * 2
    torch.testing.assert_close(codes.dense(), PerBatch(3).choose(z, weight, None).dense())
