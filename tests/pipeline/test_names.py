"""Names by a model's own text tower, from the command line."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import Command, newest, saved_rows


def test_a_vocabulary_from_a_file_is_embedded_by_the_text_tower_once(
    artifacts: Path, tmp_path: Path, command: Command
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("face\nflag\nheart\nanimal\nhand\nfood\n")
    given = (
        f"artifacts={artifacts}",
        "dataset.limit=400",
        "features=raw",
        f"names.vocabulary={words}",
        "mds.min_pairs=2",
    )
    first = command("names", *given)
    assert first.status == 0, first.err
    assert "knows no synonyms" in first.out
    found = newest(artifacts, "names")
    rows = saved_rows(found, "names")
    assert any(row["name"] for row in rows)
    assert {row["name"] for row in rows} <= {"face", "flag", "heart", "animal", "hand", "food", ""}
    (kept,) = (artifacts / "words").glob("drawingclip-*/words.safetensors")
    embedded = torch.nn.functional.normalize(load_file(kept)["words"], dim=1)
    assert embedded.shape[0] == 6
    nearest = (embedded - embedded.mean(0)) @ embedded.T
    assert (nearest.argmax(1) == torch.arange(6)).all()
    before = kept.stat().st_mtime_ns
    second = command("names", *given, "names.candidates=1", "embedder=offline")
    assert second.status == 0, second.err
    assert "not independent of drawingclip" in second.out
    assert kept.stat().st_mtime_ns == before
