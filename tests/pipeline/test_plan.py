"""The plan: sizes and access as the hub tells them, what is cached, what will fail, and how long it takes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from huggingface_hub import constants

from mmmono.commands.plan.downloads import matching_files
from mmmono.commands.plan.rates import Rates, hours, readable
from mmmono.core.artifacts import Artifacts
from mmmono.core.timing import TIMING_FILE, machine
from tests.pipeline.conftest import Command
from tests.pipeline.test_sweeps import SHORT

RN50, TABLE = "timm/resnet50_clip.openai", "│"
SHARD = 1_000_000


class Answers(BaseHTTPRequestHandler):
    """The hub's answers on repositories; one is gated, what is not listed was withdrawn."""

    files: ClassVar[dict[str, dict[str, int]]] = {}
    gated: ClassVar[set[str]] = set()

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        match = re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/?]+)(/auth-check)?(\?.*)?", self.path)
        if match is None or match[1] not in self.files:
            return self._answer(404, {}, "RepoNotFound")
        if match[2]:
            return self._answer(403, {}, "GatedRepo") if match[1] in self.gated else self._answer(200, {})
        siblings = [{"rfilename": name, "size": size} for name, size in self.files[match[1]].items()]
        self._answer(200, {"id": match[1], "gated": "auto" if match[1] in self.gated else False, "siblings": siblings})

    def _answer(self, status: int, content: dict[str, Any], code: str = "") -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Answers]]:
    class Handler(Answers):
        pass

    Handler.gated = set()
    Handler.files = {
        "pixparse/cc3m-wds": {f"cc3m-train-{i:04}.tar": SHARD for i in range(576)}
        | {f"cc3m-validation-{i:04}.tar": SHARD for i in range(16)},
        RN50: {"open_clip_model.safetensors": 400_000, "open_clip_pytorch_model.bin": 410_000, "README.md": 9},
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield Handler
    server.shutdown()


def use_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "a token")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))


def rows(out: str) -> list[dict[str, str]]:
    """Rows of the plan's table."""
    names = ("section", "what", "state", "model", "download", "on disk", "time")
    lines = [[cell.strip() for cell in line.split(TABLE)[1:-1]] for line in out.splitlines() if TABLE in line]
    return [dict(zip(names, cells, strict=True)) for cells in lines]


def steps(*analyses: str) -> str:
    return f"plan.only=[{','.join(analyses)}]"


MDS = "mds"
CC3M = ("model=clip_rn50", "dataset=cc3m", "features=raw", "dataset.retries=1")


def test_the_hub_says_how_much_is_fetched(command: Command, hub: type[Answers], tmp_path: Path) -> None:
    run = command("plan", *CC3M, f"artifacts={tmp_path}", "dataset.limit=null", "features=[sae]", steps(MDS))
    assert run.status == 0, run.err
    found = {row["what"]: row for row in rows(run.out)}
    assert found["shards of CC3M, train split"]["download"] == readable(576 * SHARD)
    assert found["shards of CC3M, val split"]["download"] == readable(16 * SHARD)
    weights = found["weights of clip_rn50"]
    assert (weights["state"], weights["download"]) == ("to download", "400 kB")
    assert found["features, train split: 2905936 pairs × 1024"]["state"] == "to make"
    assert f"about {readable(592 * SHARD + 400_000)} to download" in run.out
    assert found["results of mds"]["time"] == "unknown"


def test_a_limit_and_what_is_cached_count(command: Command, hub: type[Answers], tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / f"models--{RN50.replace('/', '--')}" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").write_bytes(b"weights")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("c0ffee")
    run = command("plan", *CC3M, f"artifacts={tmp_path / 'a'}", "dataset.limit=1344", steps(MDS))
    assert run.status == 0, run.err
    found = {row["what"]: row for row in rows(run.out)}
    assert found["weights of clip_rn50"]["state"] == "found"
    assert found["shards of CC3M, val split, 10 %"]["download"] == readable(round(16 * SHARD * 1344 / 13_443))
    assert "features, val split: 1344 pairs × 1024" in found
    assert not any("train" in what for what in found), "nothing is trained"


@pytest.mark.slow
def test_gated_and_withdrawn_repositories_are_named_before(
    command: Command, hub: type[Answers], tmp_path: Path
) -> None:
    hub.gated = {RN50}
    gender = ("labels=classifier", steps("gender"))
    run = command("plan", *CC3M, f"artifacts={tmp_path}", *gender)
    assert run.status == 0, run.err
    assert f"{RN50} is gated: ask for access at {constants.ENDPOINT}/{RN50}" in run.out
    states = {row["what"]: row["state"] for row in rows(run.out)}
    assert states["results of gender"] == states["weights of clip_rn50"] == "will fail"
    hub.gated = set()
    run = command("plan", *CC3M, f"artifacts={tmp_path}", *gender)
    classifier = "touchtech/fashion-images-gender-age-vit-large-patch16-224-in21k-v3"
    assert f"labels.model={classifier} cannot be had" in run.out
    assert {row["what"]: row["state"] for row in rows(run.out)}["results of gender"] == "will fail"


def test_without_a_hub_sizes_are_recorded_ones(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    run = command("plan", *CC3M, f"artifacts={tmp_path}", steps(MDS))
    assert run.status == 0, run.err
    assert "the hub does not answer: sizes of downloads are recorded ones" in run.out
    found = {row["what"]: row for row in rows(run.out)}
    assert found["weights of clip_rn50"]["download"] == "410 MB"
    assert found["weights of clip_rn50"]["state"] == "will fail"
    assert found["shards of CC3M, val split"]["download"] == readable(round(263e9 * 13_443 / (13_443 + 2_905_936)))


def test_rows_of_two_models_are_two(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    exact = ("plan.exact=true", steps("mds", "certainty", "text_to_image"))  # the last is the paper's on ViT-H/14
    run = command("plan", *CC3M, f"artifacts={tmp_path}", *exact)
    assert run.status == 0, run.err
    features = [row for row in rows(run.out) if row["what"].startswith("features, val")]
    assert [row["model"] for row in features] == ["clip_rn50 on cc3m", "clip_vit_h14 on cc3m"]
    one = 2 * 2 * 1024 * 13_443
    assert {row["on disk"] for row in features} == {readable(one)}
    written = re.search(r", (\S+) MB to write", run.out)
    assert written is not None
    assert float(written[1]) >= round(2 * one / 1e6)


def test_options_of_ones_own_are_planned(command: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: synthetic\n  - override /features: raw\n"
        "dataset: {pairs: 700, dim: 24}\n"
    )
    for given in (("--config-dir", str(tmp_path)), (f"hydra.searchpath=[file://{tmp_path}]",)):
        run = command("plan", *given, f"artifacts={tmp_path}", "+experiment=mine", "plan.targets=[section-2.1]")
        assert run.status == 0, run.err
        assert "700 pairs × 24" in run.out


@pytest.mark.parametrize("only", ["mdss", "report"])
def test_an_analysis_that_does_not_exist_cannot_be_planned(command: Command, tmp_path: Path, only: str) -> None:
    run = command("plan", *SHORT, f"artifacts={tmp_path}", steps(only))
    assert run.status == 1
    assert f"plan.only names {only}: choose of train, mds" in run.err


@pytest.mark.parametrize(
    ("entrypoint", "overrides", "why"),
    [
        ("mds", ["dataset=coco", "dataset.root=/nowhere"], "dataset.root"),
        ("mds", ["dataset=cc3m"], "set HF_TOKEN or run 'hf auth login'"),
        ("mds", ["features=sae", "features.k=2", "trainer=gpu"], "trainer.accelerator=gpu"),
        ("mds", ["features=sae", "features.k=100"], "features.k=100 must lie between 1 and"),
        ("ablation", [], "has no labels"),
        ("adversarial", ["victim=llava15", "judge=openai_compatible"], "DEEPSEEK_API_KEY"),
        ("text_to_image", ["generator=sd2"], "was trained with ViT-H-14"),
    ],
)
def test_what_will_fail_says_why(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entrypoint: str, overrides: list[str], why: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for variable in ("HF_TOKEN", "DEEPSEEK_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = () if any(override.startswith("dataset=") for override in overrides) else SHORT
    run = command("plan", *data, "features=raw", f"artifacts={tmp_path}", *overrides, steps(entrypoint))
    assert run.status == 0, run.err
    assert why in run.out
    assert rows(run.out)[-1]["state"] == "will fail"


@pytest.mark.slow
def test_hours_are_those_of_this_machine(command: Command, tmp_path: Path) -> None:
    common = (*SHORT, "features=sae", "features.k=2", f"artifacts={tmp_path}")
    assert command("mds", *common, "mds.min_pairs=3").status == 0
    run = command("plan", *common, "seed=1", steps(MDS))
    assert run.status == 0, run.err
    found = {row["what"]: row for row in rows(run.out)}
    assert found["results of mds"]["time"].endswith((" s", " min"))
    dictionary = found["dictionary sae: 16 features, 2 active"]
    assert (dictionary["state"], dictionary["time"] != "unknown") == ("to make", True)
    # Of another machine nothing is known here.
    for file in tmp_path.rglob(TIMING_FILE):
        file.write_text(json.dumps({"seconds": 1.0, "machine": f"not {machine()}"}))
    run = command("plan", *common, "seed=1", steps(MDS))
    assert {row["time"] for row in rows(run.out)} <= {"", "unknown"}


def test_rates_are_in_proportion(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def make(folder: Path) -> None:
        (folder / "manifest.json").write_text(json.dumps({"count": 100}))

    made = artifacts.build("features", "model-data", {"k": 1}, make)
    (made.path / TIMING_FILE).write_text(json.dumps({"seconds": 50.0, "machine": machine()}))
    rates = Rates(artifacts)
    assert rates.extraction("model", 1000) == 500
    assert rates.extraction("model", None) is rates.extraction("other", 1000) is None
    assert (hours(None), hours(30), hours(600), hours(7200)) == ("unknown", "30 s", "10 min", "2.0 h")


def test_of_a_model_one_format_of_its_weights_is_fetched() -> None:
    plain = ["config.json", "model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "onnx/model.onnx"]
    assert matching_files(plain, ()) == ["model.safetensors", "config.json"]
    assert matching_files(["config.json", "pytorch_model.bin"], ()) == ["pytorch_model.bin", "config.json"]
    pipeline = [
        "model_index.json",
        "768-v.ckpt",
        "768-v.safetensors",
        "unet/diffusion.safetensors",
        "unet/diffusion.bin",
    ]
    assert matching_files(pipeline, ()) == ["unet/diffusion.safetensors", "model_index.json"]


SYNTHETIC = (
    "dataset=synthetic", "dataset.pairs=600", "dataset.dim=16", "dataset.image_atoms=6", "dataset.text_atoms=6",
    "dataset.shared_atoms=6", "dataset.active=3", "features=sae", "features.k=3", "features.expansion=2", "trainer=cpu",
    "trainer.max_steps=20", "trainer.min_steps=20", "trainer.val_check_interval=20", "mds.min_pairs=2",
)  # fmt: skip


@pytest.mark.slow
def test_any_make_targets_are_planned_by_the_addresses_of_their_real_runs(command: Command, tmp_path: Path) -> None:
    given = (*SYNTHETIC, f"artifacts={tmp_path}")
    targets = "plan.targets=[names,consequences,consensus]"
    own = ("+names.phrase=1", "+names.max_share=0.9", "+names.image_text=image_concepts", "+consensus.n_seeds=2")
    before = command("plan", *given, targets, *own)
    assert before.status == 0, before.err
    states = {row["what"].partition(":")[0]: row["state"] for row in rows(before.out)}
    made = ["features", "dictionary sae", "dictionary sae, seed 1", "dictionary sae, seed 2"]
    results = [f"results of {name}" for name in ("consensus", "names", "consequences")]
    assert states == dict.fromkeys([*made, *results], "to make")
    assert "HF_TOKEN" not in before.out
    run = command("names", *given, *(option.lstrip("+") for option in own[:3]))
    assert run.status == 0, run.err
    after = command("plan", *given, targets, *own)
    there = [row["what"].partition(":")[0] for row in rows(after.out) if row["state"] == "found"]
    assert there == ["features", "dictionary sae", "results of names"]
    assert not list(tmp_path.glob("results/consequences-*"))


def test_targets_that_do_not_exist_cannot_be_planned(command: Command, tmp_path: Path) -> None:
    run = command("plan", *SHORT, f"artifacts={tmp_path}", "plan.targets=[names,nams]")
    assert run.status == 1
    assert "plan.targets names nams: choose of paper, section-2.1" in run.err
    run = command("plan", *SHORT, f"artifacts={tmp_path}", steps("names"))
    assert run.status == 1
    assert "or name their make targets in plan.targets" in run.err


def test_a_judge_of_names_needs_its_key(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="the judge extra brings the client")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = (*SYNTHETIC, "+names.image_text=image_concepts", f"artifacts={tmp_path}", "plan.targets=[names]")
    run = command("plan", *given, "judge=openai")
    assert run.status == 0, run.err
    assert "needs OPENAI_API_KEY for the judge: missing, set it, or leave judge= out" in run.out
    assert "OPENAI_API_KEY" not in command("plan", *given).out


def test_pairs_of_their_own_are_planned_whatever_the_plan_is_of(command: Command, tmp_path: Path) -> None:
    run = command(
        "plan",
        *SHORT,
        f"artifacts={tmp_path}",
        "plan.targets=[objectives]",
        "features=[sae,ncl]",
        "features.k=2",
        "+objectives_synthetic.quick=true",
    )
    assert run.status == 0, run.err
    found = {row["what"]: row["state"] for row in rows(run.out)}
    assert found["results of objectives"] == found["results of objectives_synthetic"] == "to make"
    dictionaries = [what.partition(":")[0] for what in found if what.startswith("dictionary")]
    seeds = ("", ", seed 1", ", seed 2")
    assert dictionaries == [f"dictionary {name}{seed}" for name in ("sae", "ncl") for seed in seeds]
