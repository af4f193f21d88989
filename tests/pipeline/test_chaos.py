"""Work of every kind, killed with -9 once and run again; `make chaos` does it at twenty moments each."""

from pathlib import Path

import pytest

from tests.chaos.comparison import contents, differences
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.trials import Stage


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_killed_work_ends_with_the_results_of_an_undisturbed_run(
    scenario: Scenario, artifacts: Path, tmp_path: Path
) -> None:
    stage = Stage(scenario, tmp_path, artifacts)
    assert stage.expected
    # The same moments in every run, another for each kind of work, from a third of its time on: the start is imports.
    share = 0.35 + 0.1 * SCENARIOS.index(scenario)
    trial = stage.trial("killed", share * stage.seconds)
    assert trial.wrong == []


def test_the_comparison_sees_what_is_missing_different_or_left_over(tmp_path: Path) -> None:
    for root in ("a", "b"):
        (tmp_path / root / "results" / "x").mkdir(parents=True)
        (tmp_path / root / "results" / "x" / "n.json").write_text('{"a": 1, "b": 2}')
    first, second = tmp_path / "a", tmp_path / "b"
    (second / "results" / "x" / "n.json").write_text('{"b": 2,\n "a": 1}')
    assert differences(contents(first), contents(second)) == []
    (second / "results" / "x" / "n.json").write_text('{"b": 3, "a": 1}')
    (second / "results" / "x" / ".n.json.1.tmp").write_text("")
    (first / "results" / "x" / "m.txt").write_text("")
    assert sorted(differences(contents(first), contents(second))) == [
        "differs: results/x/n.json", "left over: results/x/.n.json.1.tmp", "missing: results/x/m.txt",
    ]  # fmt: skip
