"""Objectives for pairs through the entrypoints: all tables and figures, bad input, several processes, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from safetensors.torch import load_file

from mmmono.analyses.objectives_synthetic import OBJECTIVES_SYNTHETIC, analysis
from mmmono.analyses.objectives_synthetic.figures import measures_by_objective
from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.matched_saes import MatchedSAEs
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.pipeline.halves import Halves
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import only
from tests.pipeline.test_processes import ONE, TWO, assert_same, dictionary, finish, start

KNOWN = "objectives_synthetic"
KINDS = ("sparc", "group_sparse", "iso_energy", "infonce", "matched_saes")
SHORT = ("trainer.max_steps=5", "trainer.min_steps=5", "trainer.val_check_interval=5", "dataset.pairs=1000")
DATA: tuple[str, ...] = (
    "dataset=synthetic", "dataset.pairs=700", "dataset.dim=16", "training.snapshot_every=null", "trainer=cpu",
    "features.k=2", "features.expansion=2", "trainer.min_steps=0", f"features=[{','.join(KINDS)}]",
    "training.dead_after_epochs=0.05", "sparc.auxk=4", "matched_saes.auxk=4", "infonce.encoder=tied",
    "trainer.max_steps=20", "trainer.val_check_interval=10", "training.checkpoint_every=10",
)  # fmt: skip


def test_heads_alone_have_a_figure_without_fvu() -> None:
    row = {"data": "base", "feature_set": "ncl", "one": 0.3, "merged": 0.1, "fvu": None, "recall_at_1": 0.5}
    figure = measures_by_objective(pd.DataFrame([{**row, "seed": seed} for seed in range(3)]))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one latent", "merged", "FVU", "R@1 by codes"]
    assert len(figure.axes[3].lines) > len(figure.axes[2].lines)
    plt.close(figure)


@pytest.mark.slow
def test_every_table_and_figure(command: Command, tmp_path: Path) -> None:
    """Trainings too short to find anything, but all of them."""
    run = command(
        "objectives_synthetic", f"artifacts={tmp_path}", *SHORT, "training.batch_size=64", "objectives_synthetic.jobs=1",
        "objectives_synthetic.seeds=2", "features=[raw,sae,sparc,ncl]", "~objectives_synthetic.data.wide_gap",
    )  # fmt: skip
    assert run.status == 0, run.err
    folder = only(tmp_path / "results", "objectives_synthetic-*")
    rows, summary = (pd.read_parquet(folder / f"{name}.parquet") for name in ("objectives", "summary"))
    assert list(rows.groupby(["data", "feature_set"], sort=False).size().index) == [
        (data, name) for data in ("base", "angle_60") for name in ("raw", "sae", "sparc", "ncl")
    ]
    assert (rows.one + rows.split + rows.missed).tolist() == pytest.approx([1] * len(rows))
    assert rows[rows.feature_set == "raw"].fvu.tolist() == pytest.approx([0] * 4)
    assert rows[rows.feature_set == "ncl"].fvu.isna().all()
    assert rows[rows.feature_set == "raw"].stability.isna().all()
    assert rows[rows.feature_set != "raw"].stability.notna().all()
    widths = {
        name: len(load_file(next(tmp_path.glob(f"dictionaries/{name}-*/weights.safetensors")))["W_dec"])
        for name in ("sae", "sparc")
    }
    assert widths == {"sae": 144, "sparc": 2 * 96}  # 1.5 of 96 concepts, and 1.5 of 64 on each side
    recall = rows[(rows.data == "base") & (rows.feature_set == "sae")].recall_at_1
    cell = summary[(summary.data == "base") & (summary.feature_set == "sae") & (summary.measure == "recall_at_1")]
    assert cell["mean"].item() == pytest.approx(recall.mean())
    result = Result(folder, {})
    assert {path.stem for path, _ in shown_figures(OBJECTIVES_SYNTHETIC, result)} == {
        "objectives_synthetic",
        "objectives_synthetic-classes",
    }
    [(_, _, table)] = shown_tables(OBJECTIVES_SYNTHETIC, result)
    assert len(table) == 8


def test_known_concepts_classes_are_removed_on_pairs_that_they_were_not_chosen_by(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes were chosen, and removed, on the same pairs."""
    chosen, measured = [], []
    dominance = Halves.dominance
    monkeypatch.setattr(Halves, "dominance", lambda self, *of: chosen.append(self.classified) or dominance(self, *of))
    monkeypatch.setattr(
        analysis, "recall_at_k", lambda *of: measured.append(of[3]) or {k: float(len(of[0])) for k in of[2]}
    )
    run = command(
        "objectives_synthetic", f"artifacts={tmp_path}", *SHORT, "objectives_synthetic.jobs=1", "features=raw",
        "objectives_synthetic.quick=true", "~objectives_synthetic.data.wide_gap", "~objectives_synthetic.data.angle_60",
    )  # fmt: skip
    assert run.status == 0, run.err
    [classified] = chosen
    pairs = len(classified)
    assert [len(groups) for groups in measured] == [pairs] * 2 + [pairs // 2] * 8
    for groups in measured[2:]:  # all latents, then without each class, both ways; each pair is a group
        assert not set(groups.tolist()) & set(np.flatnonzero(classified >= 0).tolist())
    rows = pd.read_parquet(only(tmp_path / "results", "objectives_synthetic-*") / "objectives.parquet")
    assert (rows.recall_at_1.item(), rows.without_none.item(), rows.without_cross_modal.item()) == (
        pairs, pairs // 2, pairs // 2
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entrypoint", "arguments", "message"),
    [
        (KNOWN, ["dataset=openmoji"], "dataset=openmoji has no known concepts: leave it out, or run experiments/obj"),
        (KNOWN, [f"+{KNOWN}.data.base.gaps=1"], f"{KNOWN}.data.base sets 'gaps', which is no setting"),
        (KNOWN, [f"+{KNOWN}.data.base.gap=-1"], "dataset.gap=-1 must not be negative"),
        (KNOWN, [f"{KNOWN}.latents=0"], "latents=0 leaves no latent"),
        (KNOWN, [f"{KNOWN}.seeds=0"], f"{KNOWN}.seeds=0: give at least 1"),
        ("train", ["features=sparc", "+sparc.center=pooled"], "sparc.center=pooled: each side has a b_pre of its own"),
        ("train", ["features=matched_saes", "+matched_saes.center=pooled"], "matched_saes.center=pooled"),
        ("train", ["features=group_sparse", "group_sparse.mask=0.99"], "group_sparse.mask=0.99 leaves 1 of 64 latents"),
        ("train", ["features=infonce", "infonce.temperature=0"], "infonce.temperature=0 must be above 0"),
    ],
)
def test_what_cannot_be_honored_is_named(
    command: Command, tmp_path: Path, entrypoint: str, arguments: list[str], message: str
) -> None:
    data = () if "dataset=openmoji" in arguments else ("dataset=synthetic",)
    run = command(entrypoint, f"artifacts={tmp_path}", *data, *arguments)
    assert run.status == 1
    assert message in run.err


@pytest.mark.slow
def test_two_processes_and_resuming_make_what_one_process_makes(command: Command, tmp_path: Path) -> None:
    """Negatives, masks and matches are those of the whole batch, and of an uninterrupted training."""
    alone, together, cut = (tmp_path / name for name in ("alone", "together", "cut"))
    run = command("train", *DATA, *ONE, f"artifacts={alone}")
    assert run.status == 0, run.err
    process = start(*DATA, *TWO, f"artifacts={together}", log=tmp_path / "log")
    assert finish(process) == 0, (tmp_path / "log").read_text()
    for kind in KINDS:
        assert_same(alone, together, kind)
    for kind in ("group_sparse", "matched_saes"):
        own = [s for s in DATA if not s.startswith(tuple(f"{other}." for other in KINDS if other != kind))]
        one = (f"artifacts={cut}", *own, *ONE, f"features={kind}")
        run = command("train", *one, "trainer.max_time={seconds:0.001}")
        assert f"training {kind} was cut short after 1 steps" in run.err
        assert command("train", *one).status == 0
        assert_same(alone, cut, kind)
    matched = Dictionary.from_pretrained(dictionary(alone, "matched_saes"))
    assert isinstance(matched, MatchedSAEs)
    assert matched.match.max() > 0.2


@pytest.mark.slow
def test_half_precision_and_other_analyses(command: Command, tmp_path: Path) -> None:
    short = [setting for setting in DATA if not setting.startswith("features=")]
    sets = f"features=[{','.join(KINDS)}]"
    for precision in ("bf16-mixed", "bf16-true", "64-true"):
        run = command("train", f"artifacts={tmp_path}/{precision}", *short, sets, f"trainer.precision={precision}")
        assert run.status == 0, run.err
    run = command("sharedness", f"artifacts={tmp_path}/bf16-mixed", *short, sets, "trainer.precision=bf16-mixed")
    assert run.status == 0, run.err
    run = command("faithfulness", f"artifacts={tmp_path}/bf16-mixed", *short, sets, "trainer.precision=bf16-mixed")
    assert run.status == 0, run.err
