"""The quick rehearsal, with faults, and what tells its failures."""

from pathlib import Path

import pytest

from tests.rehearsal.rehearsal import Rehearsal, shown


@pytest.mark.slow
def test_the_paper_is_reproduced_on_a_bad_network_with_equal_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """About five minutes on two cores. The printed tables of steps say which one failed."""
    good = Rehearsal(tmp_path, quick=True).run(faults=True)
    printed = capsys.readouterr().out
    assert good, printed
    for kind in ("status", "drop", "stall"):
        assert f"× {kind}" in printed


def test_what_a_page_shows_is_read_from_its_captions() -> None:
    page = (
        "<h3>Tables 4 and 5</h3><figcaption>Figures 1 to 3: samples</figcaption> Figure 13, Table 1, raw"
        "<aside class='box'>Figure 8: make section-4.2</aside>"
    )
    assert shown(page) == {"Table 4", "Table 5", "Table 1", "Figure 1", "Figure 2", "Figure 3", "Figure 13"}
