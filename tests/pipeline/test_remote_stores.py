"""Analyses and training from a feature store on a server that fails, through their entrypoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmmono.data import blocks
from mmmono.features import Manifest
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.features.test_remote_store import upload
from tests.features.test_store import write_like_clip_retrieval
from tests.pipeline.conftest import Command, Run, newest

TRAINED = ("features=[raw,sae]", "features.k=4", "trainer.max_steps=12", "trainer.val_check_interval=6",
           "training.batch_size=512", "training.pool_rows=1024")  # fmt: skip


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        yield served


@pytest.mark.slow
def test_scores_and_a_streamed_training_are_those_of_a_local_store(
    command: Command, server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    write_like_clip_retrieval(tmp_path / "store", [1500, 1500, 1000], 16)
    address = upload(server, tmp_path / "store")

    def mds(root: str, store: object, *settings: str) -> Run:
        return command("mds", f"artifacts={tmp_path / root}", "dataset=store", f"dataset.path={store}", "device=cpu",
                       "model.name=clip", "mds.min_pairs=5", "dataset.retries=1", *settings)  # fmt: skip

    assert mds("a", tmp_path / "store", *TRAINED).status == 0
    server.faults = [Fault(after=9000), Fault(after=9000, how="rst"), Fault(503, {"Retry-After": "0"})]
    run = mds("b", address, *TRAINED)
    assert run.status == 0, run.err
    assert not server.faults
    weights = [load_file(next((tmp_path / root / "dictionaries").glob("*/*.safetensors"))) for root in "ab"]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    tables = [
        {file.name: pd.read_parquet(file) for file in newest(tmp_path / r, "mds").glob("*.parquet")} for r in "ab"
    ]
    assert tables[0].keys() == tables[1].keys() != set()
    for name, table in tables[0].items():
        pd.testing.assert_frame_equal(table, tables[1][name], check_exact=True)
    (index,) = (path for path in (tmp_path / "b" / "features").iterdir() if path.is_dir())
    assert not list(index.rglob("*.npy"))  # nothing was copied there

    server.requests.clear()
    assert mds("b", address, "features=raw", "+force=true").status == 0
    assert sum(request.sent for request in server.requests) < 100  # what the first run read was kept

    changed = "/bucket/emb/text_emb/text_emb_1.npy"
    server.files[changed] = server.files[changed][:-2] + b"\0\0"
    run = mds("b", address, "features=raw")
    assert run.status == 0, run.err
    assert len([path for path in (tmp_path / "b" / "features").iterdir() if path.is_dir()]) == 2

    del server.files[changed]
    run = mds("b", address, "features=raw")
    assert run.status == 1
    assert run.err.strip().startswith(f"error: {address}: img_emb/img_emb_1.npy has no counterpart in text_emb/")


@pytest.mark.parametrize("remote", [False, True])
def test_a_store_is_of_the_model_that_it_says_or_of_none(
    command: Command, server: FlakyServer, tmp_path: Path, remote: bool
) -> None:
    def title(*given: str) -> str:
        place = upload(server, tmp_path / "store") if remote else tmp_path / "store"
        run = command("mds", f"artifacts={tmp_path / 'a'}", "dataset=store", f"dataset.path={place}", "device=cpu",
                      "features=raw", "mds.min_pairs=5", "dataset.split=all", *given)  # fmt: skip
        assert run.status == 0, run.err
        return run.out

    write_like_clip_retrieval(tmp_path / "store", [60], 16)
    assert "unnamed on store (all" in title()
    assert "drawingclip on store (all" in title("model=drawingclip")
    said = Manifest("theirs", "weights", "photos", "content", dim=16, count=60, dtype="float32", content="bits")
    (tmp_path / "store" / "manifest.json").write_text(said.to_json())
    assert "theirs on store (all" in title()
