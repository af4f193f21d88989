"""Images of remote shards, through the entrypoints that show or look at them, over a server that counts requests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pandas as pd
import pytest
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.case_studies.classifier import ImageClassifier
from mmmono.core.errors import DataError
from mmmono.data.pairs import ImageTextPair, SkippedPair
from mmmono.pipeline.images import SplitImages
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.pipeline.conftest import Command

PAIRS = 80
COLORS = ("red", "blue")
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 1, "width": 32, "patch_size": 16, "image_size": 32, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 77, "vocab_size": 49408},
}


def image(number: int) -> bytes:
    """Noise around red or blue, as a PNG of some kilobytes, so that ranges are far apart."""
    noise = np.random.default_rng(number).integers(0, 120, (48, 64, 3), dtype=np.uint8)
    noise[..., 0 if number % 2 == 0 else 2] += 130
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[FlakyServer]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(PAIRS):
            caption = f"a {COLORS[number % 2]} thing {number}, by the lake".encode()
            for name, data in ((f"{number:03d}.png", image(number)), (f"{number:03d}.txt", caption)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with flaky_server() as server:
        server.files["/shard-0.tar"] = buffer.getvalue()
        yield server


@pytest.fixture
def arguments(remote: FlakyServer, tmp_path: Path) -> list[str]:
    """A model with random weights over the remote shard, of which no copy is kept."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "images-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "configs")
    return [
        f"artifacts={tmp_path / 'artifacts'}", "model=open_clip", "model.architecture=images-tiny",
        "model.pretrained=null", "dataset=webdataset", f"dataset.shards={remote.url}/shard-0.tar", "dataset.cache=false",
        "dataset.split=all", "features=raw", "mds.min_pairs=2",
    ]  # fmt: skip


def fetched(server: FlakyServer) -> tuple[int, int]:
    """Requests since the last call, and bytes sent."""
    requests = [request for request in server.requests if request.byte_range]
    sent = sum(request.sent for request in server.requests)
    server.requests.clear()
    return len(requests), sent


def results(tmp_path: Path, name: str) -> Path:
    found = [p for p in (tmp_path / "artifacts" / "results").glob(f"{name}-*") if (p / "recipe.json").exists()]
    return max(found, key=lambda path: (path / "recipe.json").stat().st_mtime)


def test_images_come_in_few_requests_and_once(
    command: Command, arguments: list[str], remote: FlakyServer, tmp_path: Path
) -> None:
    assert command("extract", *arguments[:-2]).status == 0  # without what analyses alone have
    remote.requests.clear()
    remote.faults = [Fault(status=503), Fault(after=500, how="rst")]
    run = command("explorer", *arguments, "explorer.images=20", "dataset.retries=3")
    assert run.status == 0, run.err
    requests, sent = fetched(remote)
    shown = len(list((results(tmp_path, "explorer") / "thumbnails").rglob("*.webp")))
    assert shown > PAIRS // 2
    assert requests <= 10
    assert sent < 2 * len(remote.files["/shard-0.tar"])
    kept = [path for path in (tmp_path / "artifacts" / "images").rglob("*") if path.is_file()]
    assert len(kept) >= shown

    few = command("explorer", *arguments, "explorer.images=5", "explorer.texts=5")
    assert few.status == 0, few.err
    assert fetched(remote) == (0, 0)


@pytest.mark.slow
def test_broken_images_are_drawn_as_missing_and_reported(
    command: Command, arguments: list[str], remote: FlakyServer, tmp_path: Path
) -> None:
    assert command("extract", *arguments[:-2]).status == 0  # without what analyses alone have
    shard = bytearray(remote.files["/shard-0.tar"])
    for number in range(0, PAIRS, 8):  # every eighth image, since it was extracted
        place = shard.find(image(number))
        shard[place : place + 8] = b"no PNG.."
    remote.files["/shard-0.tar"] = bytes(shard)
    run = command("top_samples", *arguments, f"top_samples.show={list(range(12))}", "images.cache=0")
    assert run.status == 0, run.err
    report = json.loads((results(tmp_path, "top_samples") / "missing_images.json").read_text())
    assert 0 < report["missing"] < report["asked"]
    assert f"{report['missing']} of {report['asked']} images could not be read" in run.out
    assert all(int(key.rpartition("/")[2]) % 8 == 0 for key in report["keys"])
    assert not (tmp_path / "artifacts" / "images").exists()

    scored = {}
    for embedder in ("clip", "offline"):
        run = command("interpretability", *arguments, "interpretability.m=4", f"embedder={embedder}")
        assert run.status == 0, run.err
        assert ("images could not be read" in run.out) == (embedder == "offline")
        scores = pd.read_parquet(results(tmp_path, "interpretability") / "scores.parquet")
        scored[embedder] = scores.set_index(["samples", "feature"])[["mono", "ms"]].notna()
    assert scored["clip"].mono.mean() > 0.3
    assert scored["offline"].ms.equals(scored["clip"].ms)
    lost = scored["clip"].mono & ~scored["offline"].mono
    # The next best images take the places of missing ones, but where a feature has hardly m positive ones.
    assert lost.sum() <= 2, lost[lost]
    assert not (scored["offline"].mono & ~scored["clip"].mono).any()

    remote.files["/shard-0.tar"] = bytes(len(shard))
    nothing = command("top_samples", *arguments, "top_samples.show=[4]", "images.cache=0")
    assert nothing.status == 1
    assert [line for line in nothing.err.splitlines() if line.startswith("error: not one of")]


@pytest.mark.slow
def test_the_benign_images_of_an_attack_are_not_searched(
    command: Command, arguments: list[str], remote: FlakyServer, tmp_path: Path
) -> None:
    assert command("extract", *arguments[:-2]).status == 0  # without what analyses alone have
    (tmp_path / "requests.txt").write_text("bake bread\n")
    remote.requests.clear()
    quick = (
        f"adversarial.requests={tmp_path / 'requests.txt'}", "adversarial.runs=1", "adversarial.attack.steps=1",
        "adversarial.defense.steps=1", "adversarial.sizes=[1.0]", "adversarial.benign.count=2", "adversarial.shown=1",
    )  # fmt: skip
    run = command("adversarial", *arguments, *quick)
    assert run.status == 0, run.err
    assert fetched(remote)[1] < 60_000  # two images of nine kilobytes, and what lies next to them
    named = command("adversarial", *arguments, *quick, "adversarial.benign.images=[shard-0/070]")
    assert named.status == 0, named.err
    assert fetched(remote)[1] < 30_000


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    names = {0: "Red", 1: "Blue"}
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


class Batches:
    """Counts the batches that classifiers look at, and interrupts one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.interrupt_at: int | None = None
        whole = ImageClassifier.probabilities

        def counted(classifier: ImageClassifier, images: Sequence[Image.Image]) -> np.ndarray:
            if len(self.sizes) == self.interrupt_at:
                raise KeyboardInterrupt
            self.sizes.append(len(images))
            return whole(classifier, images)

        monkeypatch.setattr(ImageClassifier, "probabilities", counted)


def test_labels_are_kept_by_the_batch_and_for_other_settings(
    command: Command, arguments: list[str], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("extract", *arguments[:-2]).status == 0  # without what analyses alone have
    batches = Batches(monkeypatch)
    study = [
        *arguments, "labels=classifier", f"labels.model={classifier}", "labels.batch_size=16", "concept.a=red",
        "concept.b=blue", "concept.words_a=[red]", "concept.words_b=[blue]", "gender.min_samples=0",
        "gender.draws=2", "gender.confidence=0.5",
    ]  # fmt: skip
    hopeless = command("gender", *study, "partition.n_sigma=50")
    assert hopeless.status == 1
    assert "both are needed" in hopeless.err
    unknown = command("gender", *study, "concept.words_b=[zebra]")
    assert "has no label for 'blue'" in unknown.err
    assert batches.sizes == []  # nobody looked at an image for this

    batches.interrupt_at = 2
    assert command("gender", *study).status == 130
    growing = list((tmp_path / "artifacts" / "labels").glob("*.partial/probabilities.f32"))
    assert [file.stat().st_size for file in growing] == [2 * 16 * 2 * 4]
    with growing[0].open("ab") as file:  # as if it had been killed while it wrote
        file.write(b"torn")
    batches.interrupt_at = None
    command("gender", *study)
    assert batches.sizes == [16] * 5
    (kept,) = (tmp_path / "artifacts" / "labels").glob("*/probabilities.npy")
    probabilities = np.load(kept)
    loaded = ImageClassifier(str(classifier))
    loaded.load("cpu")
    alone = loaded.probabilities([Image.open(io.BytesIO(image(number))) for number in (0, 31, 79)])
    np.testing.assert_allclose(probabilities[[0, 31, 79]], alone, atol=1e-5)

    batches.sizes.clear()
    command("gender", *study, "gender.draws=3", "seed=1")
    assert batches.sizes == []


@pytest.mark.parametrize(("broken", "asked"), [(0, "0"), (1, "0012345"), (6, "0012345")])
def test_a_check_asks_for_more_than_one_image_only_if_that_is_broken(
    monkeypatch: pytest.MonkeyPatch, broken: int, asked: str
) -> None:
    requested: list[str] = []

    class Source:
        def fetch_many(self, wanted: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
            requested.extend(key for key, _ in wanted)
            here = ImageTextPair("", Image.new("RGB", (4, 4)), "")
            return iter([SkippedPair(key, "gone") if int(key) < broken else here for key, _ in wanted])

    view = SimpleNamespace(metadata=lambda: pd.DataFrame({"key": list("012345")}))
    monkeypatch.setattr("mmmono.pipeline.images.image_source", lambda *_: Source())
    dataset = SimpleNamespace(check_images=lambda _: None)
    workspace = SimpleNamespace(dataset=dataset, features=lambda _: SimpleNamespace(view=view))
    images = SplitImages(workspace, "all")  # type: ignore[arg-type]
    if broken < 6:
        images.check()
    else:
        with pytest.raises(DataError, match="^not one of 6 images could be read: gone"):
            images.check()
    assert "".join(requested) == asked


def test_a_first_image_that_is_gone_is_missing_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(image(0))
    rows = "".join(f"{row},thing {row},{tmp_path / ('here.png' if row else 'gone.png')}\n" for row in range(12))
    (tmp_path / "rows.csv").write_text(f"key,caption,image_path\n{rows}")
    np.save(tmp_path / "side.npy", np.random.default_rng(0).normal(size=(12, 4)))
    run = command(
        "explorer", f"artifacts={tmp_path / 'artifacts'}", "dataset=store", f"dataset.image={tmp_path / 'side.npy'}",
        f"dataset.text={tmp_path / 'side.npy'}", f"dataset.metadata={tmp_path / 'rows.csv'}", "dataset.split=all",
        "features=raw", "mds.min_pairs=1",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert "1 of 5 images could not be read" in " ".join((run.out + run.err).split())
