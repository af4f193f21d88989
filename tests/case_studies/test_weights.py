"""What the plan says of a model that cannot be had, by a hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from mmmono.case_studies.weights import check_model
from mmmono.core.errors import ModelError
from tests.vlm.hub_server import Fault, Hub, hub_server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        files = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (
            ("ENDPOINT", served.url), ("HUGGINGFACE_CO_URL_TEMPLATE", files), ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_OFFLINE", False),
        ):  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        served.files["org/model/config.json"] = b"{}"
        yield served
        huggingface_hub.close_session()


def sized(hub: Hub, size: int) -> None:
    files = [{"rfilename": "model.safetensors", "size": size}, {"rfilename": "pytorch_model.bin", "size": 10**18}]
    hub.api["/api/models/org/model"] = json.dumps({"id": "org/model", "siblings": files}).encode()


def test_a_model_that_can_be_downloaded(hub: Hub) -> None:
    check_model("labels.model", "org/model", "use another")  # the size is not known
    sized(hub, 1000)
    check_model("labels.model", "org/model", "use another")
    assert not [request for request, _ in hub.log if "safetensors" in request]


def test_one_line_says_what_is_in_the_way(hub: Hub, tmp_path: Path) -> None:
    def problem(name: str) -> str:
        with pytest.raises(ModelError, match=f"^labels.model={name} cannot be had .*use another$") as raised:
            check_model("labels.model", name, "use another")
        return str(raised.value)

    assert "no such repository" in problem("org/nothing")
    hub.files["org/dataset/readme.md"] = b""
    assert "no such file" in problem("org/dataset")
    sized(hub, 10**18)
    assert "1000000000.0 GB are to be downloaded" in problem("org/model")
    hub.faults.append(Fault(match="org/gated", times=9, status=403, headers={"X-Error-Code": "GatedRepo"}))
    assert "gated" in problem("org/gated")
    (tmp_path / "folder").mkdir()
    assert "the folder has no config.json" in problem(str(tmp_path / "folder"))
    assert "no id on the hub" in problem("/nowhere/at/all")
