"""The benchmark that is meant for a GPU, small and on the CPU."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch


def test_the_benchmark_names_the_device_and_measures_all_it_can(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("benchmark", file)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.main("cpu", dim=16, latents=[32, 64], k=4, batch=128, steps=2)
    out = capsys.readouterr().out
    assert out.count(f"\n{benchmark.device_name(torch.device('cpu'))}, PyTorch {torch.__version__}") == 2
    for latents in (32, 64):
        assert f"d = 16, n = {latents}, k = 4, 128 pairs a batch, 2 steps" in out
    for row in ("limit by arithmetic", "limit by bandwidth", "mmmono, resident", "mmmono, streamed"):
        speeds = re.findall(rf"^{row}.*?([\d,]+)\s+[\d.]+$", out, re.MULTILINE)
        assert len(speeds) == 2
        assert all(float(speed.replace(",", "")) > 0 for speed in speeds)
    for name in benchmark.PEERS:
        assert out.count(f"\n{name} ") + out.count(f"not measured: {name} (") == 2
