"""What is shown of the validation on synthetic data, from its tables alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmmono.analyses.validate import VALIDATE
from mmmono.modality.validation import mean_interval
from mmmono.pipeline.analysis import shown_tables
from mmmono.pipeline.synthetic_runs import content, in_parallel
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table


def summary(folder: Path, values: dict[tuple[str, str], list[float]], seeds: int) -> Result:
    """Save a summary of values by parameter and feature set."""
    rows = [
        {"parameter": parameter, "value": 0.2 if parameter else None, "feature_set": name, "measure": "correlation",
         **mean_interval(of).columns("mean"), "seeds": seeds}
        for (parameter, name), of in values.items()
    ]  # fmt: skip
    save_table(rows, folder / "summary", list(VALIDATE.columns["summary"]))
    return Result(folder, {})


def test_the_base_setting_is_shown_with_its_interval(tmp_path: Path) -> None:
    values = {("", "raw"): [], ("", "sae"): [1.0, 2.0, 3.0], ("noise", "sae"): [9.0, 9.0, 9.0]}
    [(name, title, rows)] = shown_tables(VALIDATE, summary(tmp_path, values, 3))
    assert (name, title[-8:]) == ("validation", "seeds: 3")
    # Half of the t interval of a mean, from a t table with 2 degrees of freedom: 4.303 / √3.
    assert rows == [{"feature set": "raw", "codes": ""}, {"feature set": "sae", "codes": "2.000 ± 2.484"}]


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    [(_, _, rows)] = shown_tables(VALIDATE, summary(tmp_path, {("", "sae"): [0.5]}, 1))
    assert rows == [{"feature set": "sae", "codes": "0.500"}]


def test_the_base_setting_alone_has_no_figures(tmp_path: Path) -> None:
    assert list(VALIDATE.draw(summary(tmp_path, {("", "sae"): [0.5]}, 1))) == []


def test_what_changes_no_result_is_no_content() -> None:
    def made(**training: object) -> object:
        trainer = {"max_steps": 9} | {key: training.pop(key) for key in ("log_every_n_steps",) if key in training}
        sections = {"training": {"patience": 3, **training}, "device": "cpu", "sae": {"k": 4}, "trainer": trainer}
        return content(OmegaConf.create(sections))

    expected = {"training": {"patience": 3}, "sae": {"k": 4}, "trainer": {"max_steps": 9}}
    assert made(together=True) == made(together=False) == made() == expected
    assert made(checkpoint_every=10) == made(log_every_n_steps=7) == made()
    assert made(patience=4) != made()


def test_a_time_limit_is_no_content_and_a_store_whose_noise_is_taken_is(tmp_path: Path) -> None:
    def made(**dataset: object) -> object:
        trainer = {"max_time": dataset.pop("max_time", None), "max_steps": 5}
        return content(OmegaConf.create({"dataset": {"noise_from": None, **dataset}, "trainer": trainer}))

    def at(folder: str, value: float) -> str:
        for side in ("img_emb", "text_emb"):
            (tmp_path / folder / side).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / folder / side / f"{side}_0.npy", np.full((4, 2), value, "float32"))
        return str(tmp_path / folder)

    assert made(max_time="00:01:00:00") == made()
    before = made(noise_from=at("a", 1))
    assert made(noise_from=at("b", 1)) == before
    assert made(noise_from=at("a", 2)) != before


def test_runs_find_the_cores_of_a_system_without_affinities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert list(in_parallel(str, [1, 2], None, "cpu")) == ["1", "2"]
