"""Section 4.2, through its entrypoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.case_studies.test_adversarial_victims import llava  # noqa: F401
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_entrypoints import SMALL, snapshot

REQUESTS = "request,concept,image\nbake bread,bread,openmoji:1F35E\nfly a kite,kite,openmoji:1FA81\n"
QUICK = (
    *SMALL, "mds.min_pairs=3", "adversarial.runs=2", "adversarial.attack.steps=4", "adversarial.attack.lr=0.03",
    "adversarial.defense.steps=2", "adversarial.sizes=[1.0]", "adversarial.benign.words=[flag]",
    "adversarial.benign.count=3", "partition.n_sigma=1.2", "adversarial.all_features=false",
)  # fmt: skip


@pytest.fixture
def quick(artifacts: Path, tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "requests.csv").write_text(REQUESTS)
    return (f"artifacts={artifacts}", *QUICK, f"adversarial.requests={tmp_path / 'requests.csv'}")


def test_table_3_and_figure_8(command: Command, artifacts: Path, quick: tuple[str, ...]) -> None:
    run = command("adversarial", *quick)
    assert run.status == 0, run.err
    assert "Table 3, raw: embedding-level success" in run.out
    assert "jailbreak" not in run.out
    results = newest(artifacts, "adversarial")
    table = pd.read_parquet(results / "table3.parquet")
    classes = ["ImgD", "TextD", "CrossD"]
    assert table.aligned.tolist() == [
        "benign",
        "contrast",
        "attacked",
        *classes,
        *(f"Random-{name}" for name in classes),
    ]
    assert table.energy[3:].between(0, 1).all()
    assert table.features[3:].nunique() == 1
    assert table.trials.eq(4).all()
    assert table.rate.between(table.rate_low, table.rate_high).all()
    assert (table.distance_after[2:] < table.distance_before[2:]).all()
    margin = table.set_index("aligned").margin
    assert margin["contrast"] > margin["attacked"] > margin["benign"]
    assert (results / "raw-figure8.png").stat().st_size > 20_000
    assert (results / "raw-sizes.pdf").stat().st_size > 4_000
    benign, attacked = (np.asarray(Image.open(results / "images" / n / "00000.png")) for n in ("benign", "attacked"))
    change = np.abs(benign.astype(int) - attacked)
    assert 0 < change.max() <= 8  # epsilon is 8/255
    before = snapshot(artifacts)
    assert command("adversarial", *quick, "adversarial.batch_size=1").status == 0
    assert snapshot(artifacts) == before


def test_goes_on_where_it_stopped(
    command: Command, artifacts: Path, quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that fails in the middle, then the same command again."""
    from mmmono.analyses.adversarial import moving

    whole, settings = moving.align, ("adversarial.attack.steps=3", "adversarial.friendly_text=hello")
    calls: list[int] = []

    def failing(*args: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "align", failing)
    assert command("adversarial", *quick, *settings).status == 130
    assert len(calls) == 4
    assert not [p for p in (artifacts / "results").glob("adversarial-*.partial") if (p / "recipe.json").exists()]
    calls.clear()
    calls += [0] * 10
    assert command("adversarial", *quick, *settings).status == 0
    assert len(calls) - 10 == 14 - 3  # two runs of seven conditions, less what was there


def test_llava_with_a_judge_of_keywords(
    command: Command,
    artifacts: Path,
    quick: tuple[str, ...],
    llava: Path,  # noqa: F811
) -> None:
    victim = (
        "victim=llava15", f"victim.model={llava}", "victim.repeats=3", "victim.max_new_tokens=4", "victim.dtype=float32",
        "adversarial.runs=1", "adversarial.contrast=typographic", "judge.phrases=[bread]",
    )  # fmt: skip
    run = command("adversarial", *quick, *victim)
    assert run.status == 0, run.err
    assert "attack success rate" in run.out
    results = newest(artifacts, "adversarial")
    table = pd.read_parquet(results / "table3.parquet")
    assert table.trials.eq(6).all()
    answers = [json.loads(line) for line in (results / "images/attacked/answers.jsonl").read_text().splitlines()]
    successes = [bool(a.strip()) and "bread" not in a for line in answers for a in line["answers"]]
    assert table.set_index("aligned").successes["attacked"] == sum(successes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adversarial.requests=/no/such/list.txt"], "adversarial.requests=/no/such/list.txt is not there"),
        (["adversarial.contrast=words"], "adversarial.contrast=words is none of"),
        (["adversarial.attack.epsilon=8"], "adversarial.attack.epsilon=8"),
        (["adversarial.defense.steps=0"], "adversarial.defense.steps=0"),
        (["adversarial.runs=0"], "adversarial.runs=0 must be at least 1"),
        (["adversarial.benign.words=[zebra]"], "no caption holds one of adversarial.benign.words"),
        (["adversarial.benign.images=[nowhere.png]"], "there is no file nowhere.png"),
        (["adversarial.benign.images=[README.md]"], "README.md: unreadable image"),
        (["adversarial.sizes=[2]"], "must be shares of the smallest class"),
        (["partition.n_sigma=50"], "a class is empty"),
        (["victim=llava15", "victim.model=/no/llava"], "victim.model=/no/llava cannot be had"),
        (["victim=llava15", "judge=openai_compatible"], "set the environment variable DEEPSEEK_API_KEY"),
        (["features=ncl", "victim.retrieves=all"], "victim.retrieves=all is none of"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    run = command("adversarial", *quick, *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1, run.err
    assert message in lines[0]


def test_images_of_odd_modes_and_sizes(
    command: Command, artifacts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    images = []
    for mode, size in (("L", (3, 200)), ("P", (64, 64)), ("I;16", (50, 40)), ("CMYK", (300, 20)), ("LA", (1, 1))):
        suffix = "tiff" if mode in ("I;16", "CMYK") else "png"
        images.append(str(tmp_path / f"{mode.replace(';', '')}.{suffix}"))
        Image.new(mode, size).save(images[-1])
    shutil.copy(images[0], tmp_path / "again.png")
    names = ",".join(images)
    run = command(
        "adversarial", *quick, f"adversarial.benign.images=[{names}]", "adversarial.benign.text=nothing",
        "adversarial.runs=5", "adversarial.attack.steps=1", "adversarial.defense.steps=1", "adversarial.shown=1",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert pd.read_parquet(newest(artifacts, "adversarial") / "cases.parquet").benign.eq("nothing").all()
    missing = command("adversarial", *quick, f"adversarial.benign.images=[{names}]")
    assert "has no caption: say what it shows, adversarial.benign.text" in missing.err
