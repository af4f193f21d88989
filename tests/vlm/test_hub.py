from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.case_studies.classifier import ImageClassifier
from mmmono.commands.plan.downloads import matching_files
from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import ModelError
from mmmono.pipeline.models import OpenCLIP
from mmmono.pipeline.transformers_model import Transformers
from mmmono.vlm import hub, load_open_clip, load_transformers
from mmmono.vlm.hub import download, hub_or_cache, hub_reason
from mmmono.vlm.repositories import Repository
from tests.vlm.hub_server import Fault, Hub, hub_server
from tests.vlm.tiny_transformers import write_tiny

WEIGHTS = bytes(range(256)) * 4000
NAME = "org/model/open_clip_model.safetensors"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, which this process' clients take for the only one, and a cache of its own."""
    with hub_server() as hub_state:
        monkeypatch.setenv("HF_ENDPOINT", hub_state.url)
        monkeypatch.setattr(constants, "ENDPOINT", hub_state.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_state.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
        monkeypatch.setattr(hub, "WAIT_SECONDS", 0.01)
        hub_state.files = {NAME: WEIGHTS, "org/model/open_clip_config.json": b"{}"}
        yield hub_state
        huggingface_hub.close_session()


FILE = "GET /org/model/resolve"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(FILE, after=300_000, how="rst"),
        Fault(FILE, after=300_000, how="rst", times=3),
        Fault(FILE, after=300_000, how="fin", times=2),
        Fault(FILE, after=300_000, how="stall"),
        Fault(FILE, how="rst", times=2),
        Fault(FILE, how="fin"),
        Fault(FILE, status=503, times=3),
        Fault(FILE, status=500),
        Fault(FILE, status=429, headers={"Retry-After": "0"}),
        Fault("HEAD /org", how="rst", times=2),
        Fault("HEAD /$", how="rst"),
    ],
    ids=lambda fault: (
        f"{fault.match[:4]} {fault.how if not fault.status else fault.status} {fault.times} {fault.after}"
    ),
)
def test_a_download_outlasts_a_bad_network(served: Hub, fault: Fault) -> None:
    served.faults = [fault]
    assert download("org/model", ["open_clip_model.safetensors"]).read_bytes() == WEIGHTS
    assert fault.times == 0
    starts = [start for request, start in served.log if request.startswith(FILE)]
    if fault.after > 0:
        assert any(starts), "the rest alone is fetched, not all of it again"


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([Fault("resolve", 99, 403, {"X-Error-Code": "GatedRepo"})], "it is gated: accept its terms.*HF_TOKEN"),
        ([Fault("resolve", 99, 401, {"X-Error-Code": "GatedRepo"})], "it is gated"),
        (
            [Fault("resolve", 99, 401, {"X-Error-Code": "RepoNotFound"})],
            "no such repository, or it is private or withdrawn",
        ),
        ([Fault("resolve", 99, 404, {"X-Error-Code": "RepoNotFound"})], "no such repository"),
        ([Fault("resolve", 99, 404, {"X-Error-Code": "EntryNotFound"})], "it has no such file"),
        ([Fault("resolve", 99, 404, {"X-Error-Code": "RevisionNotFound"})], "no such revision"),
        ([Fault("resolve", 99, 403, {"X-Error-Message": "Access to this resource is disabled."})], "it was withdrawn"),
        (
            [Fault("resolve", 99, 401, {"X-Error-Message": "Invalid credentials in Authorization header"})],
            "the token is not accepted: log in anew",
        ),
        ([Fault("resolve", 99, 403)], "access is denied: use a token"),
        ([Fault("resolve", 99, 404)], "there is no such repository, revision or file: check the names"),
        ([Fault("GET .*resolve", 99, 503)], "the hub answers 503: try again later"),
        ([Fault("GET .*resolve", 99, after=0, how="rst")], "the connection was lost again and again"),
    ],
)
def test_what_stands_in_the_way_is_one_line_with_its_remedy(
    served: Hub, faults: list[Fault], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's own waiting between attempts
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    served.faults = faults
    with pytest.raises(ModelError, match=says) as raised:
        download("org/model", ["open_clip_model.safetensors"])
    assert "\n" not in str(raised.value)


def test_who_has_no_token_is_not_told_that_it_is_not_accepted(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    # What the hub says of a name that it does not have; its client knows it by the address, but not on a mirror.
    served.faults = [Fault("resolve", 99, 401, {"X-Error-Message": "Invalid username or password."})]
    with pytest.raises(ModelError, match="there is no such repository, or it is private: check the name, and log in"):
        download("org/model", ["open_clip_model.safetensors"])


def test_what_was_downloaded_is_there_without_a_hub(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download("org/model", ["open_clip_model.safetensors"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    requests = len(served.log)
    assert download("org/model", ["absent.safetensors", "open_clip_model.safetensors"]) == path
    assert len(served.log) == requests
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(ModelError, match="it is not in the cache, and http.* cannot be reached"):
        download("org/model", ["absent.safetensors"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set: unset it"):
        download("org/model", ["absent.safetensors"])


def test_the_hub_that_is_asked_is_the_one_that_is_set(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_or_cache():
        assert not constants.HF_HUB_OFFLINE
    assert served.log == [("HEAD /", 0)]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE


def test_names_that_are_no_ids() -> None:
    with pytest.raises(ModelError, match="looks like organisation/name"):
        download("a/b/c", ["file"], cache_dir="nowhere")


def test_reasons_are_found_under_what_libraries_raise_in_their_place() -> None:
    error = RuntimeError("failed to download")
    error.__cause__ = OSError(28, "No space left on device")
    assert "no space left under" in hub_reason(error)
    assert hub_reason(ValueError("first\nsecond")) == "first"
    assert hub_reason(KeyError()) == "KeyError"


def test_a_model_of_transformers_comes_through_the_same_client(served: Hub, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16))
    model.save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size=32).save_pretrained(tmp_path / "vit")
    served.files = {f"org/vit/{file.name}": file.read_bytes() for file in (tmp_path / "vit").iterdir()}
    served.faults = [Fault("GET .*safetensors", after=5000), Fault("GET .*safetensors", status=503)]
    classifier = ImageClassifier("org/vit")
    classifier.load("cpu")
    assert classifier._loaded is not None
    loaded = classifier._loaded[1]
    assert all(loaded.state_dict()[name].equal(weight) for name, weight in model.state_dict().items())
    assert [fault.times for fault in served.faults] == [0, 0]
    with pytest.raises(ModelError, match="there is no such repository, or it is private or withdrawn"):
        ImageClassifier("org/gone").load("cpu")


def test_a_model_in_open_clips_layout_from_the_hub(served: Hub) -> None:
    config = {
        "embed_dim": 24,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "resize_mode": "squash"}}
    served.files = {
        "org/model/open_clip_config.json": json.dumps(content).encode(),
        "org/model/open_clip_pytorch_model.bin": save({k: v.contiguous() for k, v in model.state_dict().items()}),
    }
    option = OpenCLIP(name="hf-hub:org/model", architecture="hf-hub:org/model")
    weights = served.files["org/model/open_clip_pytorch_model.bin"]
    known_by = {"repository": "org/model", "digest": hashlib.sha1(weights).hexdigest()}
    assert (option.name, option.dim, option.recipe()["pretrained"]) == ("model", 24, known_by)
    assert not any(request.startswith("GET") and "model.bin" in request for request, _ in served.log), "not downloaded"
    assert [(d.repository, d.files[0]) for d in option.downloads()] == [("org/model", "open_clip_model.safetensors")]
    encoder = load_open_clip("hf-hub:org/model", None)
    assert encoder.model.state_dict()["visual.proj"].equal(model.visual.proj)
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    torch.testing.assert_close(
        encoder.encode_image(white), model.encode_image(torch.ones(1, 3, 32, 32)), atol=1e-4, rtol=1e-4
    )
    with pytest.raises(ModelError, match="no such repository"):
        OpenCLIP(name="x", architecture="hf-hub:org/other").recipe()
    served.files["org/plain/config.json"] = b"{}"
    with pytest.raises(ModelError, match="has no open_clip_config.json.*say model=transformers model.id=org/plain"):
        OpenCLIP(name="x", architecture="hf-hub:org/plain").recipe()
    with pytest.raises(
        ModelError, match="model.pretrained is not given.*hf-hub:org/name and local-dir:/path bring their"
    ):
        OpenCLIP(name="x", architecture="org/model").recipe()
    assert OpenCLIP(name="x", architecture="hf-hub:org/other").dim is None


def test_weights_on_the_hub_are_known_by_their_whole_content(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": {}, "text_cfg": {}}}
    served.files["org/model/open_clip_config.json"] = json.dumps(config).encode()

    def recipe(architecture: str = "hf-hub:org/model") -> dict[str, object]:
        return OpenCLIP(name="x", architecture=architecture).recipe()

    base = recipe()
    middle = bytearray(WEIGHTS)
    middle[len(middle) // 2] ^= 1
    served.files[NAME] = bytes(middle)
    tuned = recipe("hf-hub:org/model@main")
    assert base["pretrained"] != tuned["pretrained"], "one byte in the middle differs"
    Repository.of("org/model", "open_clip_config.json").download("open_clip_model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert recipe() == tuned, "without a network, the digest is that of the cached file"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    served.files["org/bare/open_clip_config.json"] = served.files["org/model/open_clip_config.json"]
    with pytest.raises(
        ModelError, match="has the file open_clip_config.json and no weights.*hf download org/bare --local-dir folder'"
    ):
        recipe("hf-hub:org/bare")


def test_a_clip_of_transformers_from_the_hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny(tmp_path / "clip", "clip")
    served.files = {f"org/clip/{file.name}": file.read_bytes() for file in folder.iterdir()}
    option = Transformers(name="org/clip", id="org/clip")
    assert (option.name, option.dim) == ("clip", 24)
    recipe = option.recipe()
    assert recipe["weights"] == {
        "model.safetensors": hashlib.sha1(served.files["org/clip/model.safetensors"]).hexdigest()
    }
    fetched = {request.rpartition("/")[2] for request, _ in served.log if request.startswith("GET")}
    assert fetched == {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}, (
        "no weights yet"
    )
    assert recipe["files"] == Transformers(name="x", id=str(folder)).recipe()["files"]
    encoder = option.load(Artifacts(tmp_path / "artifacts"), "cpu")
    tokens = encoder.tokenize(["a photo of a cat"])
    assert encoder.encode_text(tokens).equal(load_transformers(str(folder)).encode_text(tokens))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    requests = len(served.log)
    again = Transformers(name="x", id="org/clip")
    assert again.recipe() == recipe
    assert again.load(Artifacts(tmp_path / "artifacts"), "cpu").fingerprint == encoder.fingerprint
    assert len(served.log) == requests
    (download,) = again.downloads()
    assert matching_files(["model.safetensors", "tf_model.h5", "README.md", "vocab.json"], download.files) == [
        "model.safetensors", "vocab.json",
    ]  # fmt: skip
    assert not list(Transformers(name="x", id=str(folder)).downloads())


@pytest.mark.parametrize(
    ("files", "faults", "says"),
    [
        (
            (),
            [Fault("resolve", 99, 403, {"X-Error-Code": "GatedRepo"})],
            "model.id=org/clip: .*it is gated: accept its",
        ),
        ((), [], "there is no such repository, or it is private or withdrawn: check the name"),
        (("config.json", "clip.safetensors"), [], "has no weights.*if they have another name, call them so in a copy"),
        (
            ("config.json", "pytorch_model.bin"),
            [],
            "has its weights as pytorch_model.bin alone, and pickles, which can run",
        ),
        (("config.json",), [], "has no weights: model.safetensors"),
        (("open_clip_config.json",), [], "say model=open_clip model.architecture=hf-hub:org/clip"),
        (("README.md",), [], "has no config.json: give a model of transformers"),
        (
            ("config.json", "model.safetensors"),
            [Fault("HEAD .*safetensors", 99, 503)],
            "cannot look up model.safetensors of org/clip: the hub answers 503: try again later",
        ),
    ],
)
def test_models_of_transformers_that_cannot_be_had(
    served: Hub, monkeypatch: pytest.MonkeyPatch, files: Sequence[str], faults: list[Fault], says: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    served.files = {f"org/clip/{name}": b'{"model_type": "clip"}' for name in files}
    served.faults = faults
    with pytest.raises(ModelError, match=says) as raised:
        Transformers(name="x", id="org/clip").recipe()
    assert "\n" not in str(raised.value)
    assert not any(request.startswith("GET") and ".bin" in request for request, _ in served.log)


def test_a_model_of_transformers_without_a_network(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(
        ModelError, match="config.json of org/clip: it is not in the cache, and http.* cannot be reached"
    ):
        Transformers(name="x", id="org/clip").recipe()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    served.files = {"org/clip/config.json": b'{"model_type": "clip"}', "org/clip/model.safetensors": b"weights"}
    assert Transformers(name="x", id="org/clip").dim == 512
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot look up model.safetensors of org/clip: it is not in the cache"):
        Transformers(name="x", id="org/clip").recipe()
