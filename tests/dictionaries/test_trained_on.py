"""What files of dictionaries say of the embeddings that they were trained on."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import TopKSAE
from mmmono.dictionaries.readers.trained_on import TrainedOn, read_trained_on
from mmmono.dictionaries.saelens import export_to_saelens

HOOK = {"model_name": "open-clip:lab/ViT-B-32", "hook_name": "blocks.9.hook_resid_post"}
SAID = TrainedOn(HOOK["model_name"], place=HOOK["hook_name"])


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": HOOK},
        HOOK,
        {"model_name": HOOK["model_name"], "hook_point": HOOK["hook_name"]},
        {**HOOK, "metadata": {"hook_name": None}},
    ],
)
def test_saelens_says_it_in_either_place(tmp_path: Path, fields: dict[str, Any]) -> None:
    export_to_saelens(TopKSAE(6, 12, 3), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, **fields}))
    assert read_trained_on(tmp_path) == SAID
    assert read_trained_on(tmp_path / "sae_weights.safetensors") == SAID


def test_saelens_is_told_it(tmp_path: Path) -> None:
    export_to_saelens(TopKSAE(6, 12, 3), tmp_path, "clip_vit_b32")
    assert read_trained_on(tmp_path) == TrainedOn("clip_vit_b32")


def test_dictionary_learning_says_it_of_its_trainer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"lm_name": "lab/clip", "submodule_name": "visual"}}))
    for name in ("ae.pt", "checkpoints/ae_9.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        assert read_trained_on(tmp_path / name) == TrainedOn("lab/clip", place="visual")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    TopKSAE(6, 12, 3).save_pretrained(tmp_path)
    assert read_trained_on(tmp_path) == TrainedOn()
    for told in (TrainedOn("clip", "open_clip:x:1", normalize=False), TrainedOn(normalize=True)):
        told.write(tmp_path)
        assert read_trained_on(tmp_path) == told
        assert read_trained_on(tmp_path / "weights.safetensors") == told


def test_what_is_no_answer_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")  # of something else
    assert read_trained_on(tmp_path) == TrainedOn()
    (tmp_path / "embeddings.json").write_text('{"model": 3, "normalize": "yes", "fingerprint": ""}')
    assert read_trained_on(tmp_path) == TrainedOn()


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_answer_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "embeddings.json").write_text(content)
    with pytest.raises(DictionaryError, match="embeddings.json"):
        read_trained_on(tmp_path)
