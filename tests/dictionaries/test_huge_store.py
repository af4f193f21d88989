"""A store of 400 million pairs, 1.2 TB, trains with the memory of two pools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.dictionaries import RowReader, ShuffledBatches, TopKSAE
from mmmono.features import FeatureStore, FeatureView

PAIRS, DIM, FILES = 400_000_000, 768, 4
POOL, BATCH = 1 << 15, 1 << 10


def sparse_store(folder: Path) -> FeatureView:
    """A store of zeros, which take no place on the disk."""
    for name in ("img_emb", "text_emb"):
        (folder / name).mkdir()
        for number in range(FILES):
            with (folder / name / f"{name}_{number}.npy").open("wb") as file:
                shape = (PAIRS // FILES, DIM)
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                try:
                    file.truncate(file.tell() + 2 * shape[0] * shape[1])
                except OSError:
                    pytest.skip(f"the file system of {folder} has no sparse files of 154 GB")
    return FeatureView(FeatureStore(folder))


def held() -> int:
    """Bytes of this process's memory that are no mapped file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc/self/status")
    return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("RssAnon")).split()[1])


def test_training_holds_two_pools(tmp_path: Path) -> None:
    view = sparse_store(tmp_path)
    assert len(view) == PAIRS
    batches = ShuffledBatches(RowReader(view, normalize=False), BATCH, pool_rows=POOL)
    pools = [batches._order(0)[0][number * POOL // 1024 :][: POOL // 1024] for number in range(3)]
    for number, chunks in enumerate(pools):  # one chunk of each pool has other numbers
        file, row = divmod(1024 * chunks[5], PAIRS // FILES)
        for name in ("img_emb", "text_emb"):
            rows = np.load(tmp_path / name / f"{name}_{file}.npy", mmap_mode="r+")
            rows[row : row + 1024] = number + 1
            del rows
    assert sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*.npy")) < 50e6

    sae = TopKSAE(DIM, 32, k=4)
    optimizer = torch.optim.Adam(sae.parameters())
    warm = torch.randn(BATCH, DIM)
    sae(warm, warm).loss.backward()
    optimizer.step()
    before, most, seen = held(), 0, []
    for _, batch in zip(range(3 * POOL // BATCH), batches, strict=False):
        optimizer.zero_grad()
        sae(batch.image, batch.text).loss.backward()
        optimizer.step()
        seen.append(float(batch.text.sum()))
        most = max(most, held() - before)
    batches.close()
    a_pool = POOL // BATCH
    assert [sum(seen[start : start + a_pool]) for start in range(0, len(seen), a_pool)] == [
        (number + 1) * 1024 * DIM for number in range(3)
    ]
    two_pools = 2 * 2 * 4 * POOL * DIM
    assert 0 < most < two_pools + 100e6  # and the order of the chunks, and batches; some of it was the process's before
