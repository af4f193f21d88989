"""What is shown of the tables of faithfulness, and which settings are refused."""

from pathlib import Path

import pytest

from mmmono.analyses.faithfulness import FAITHFULNESS, Settings
from mmmono.pipeline.analysis import shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.tables import cell, save_table


def test_tables_have_headings_and_empty_cells_without_a_decoder(tmp_path: Path) -> None:
    coded = {"samples": "image", "l0": 2.0, "active": 7, "dead_share": 0.125}
    reconstruction = [
        {"feature_set": "sae", **coded, "fvu": 0.25, "cosine": 0.5},
        {"feature_set": "ncl", **coded, "fvu": None, "cosine": None},
    ]
    function = {f"{way}_r{k}": 0.1 for way in ("i2t", "t2i") for k in (1, 5, 10)}
    function |= {"zero_shot": float("nan"), "gap": 0.3, "contrastive_loss": 5.5}
    save_table(reconstruction, tmp_path / "reconstruction", list(FAITHFULNESS.columns["reconstruction"]))
    named = {"feature_set": "", "space": "embeddings", **function}
    save_table([named], tmp_path / "function", list(FAITHFULNESS.columns["function"]))
    tables = {name: rows for name, _, rows in shown_tables(FAITHFULNESS, Result(tmp_path, {}))}
    assert list(tables) == ["reconstruction", "function"]
    sae, ncl = tables["reconstruction"]
    assert list(sae) == ["feature set", "samples", "FVU", "cosine", "L0", "active", "dead share"]
    assert [cell(value) for value in sae.values()] == ["sae", "image", "0.250", "0.500", "2", "7", "0.125"]
    assert [cell(value) for value in ncl.values()] == ["ncl", "image", "", "", "2", "7", "0.125"]
    [shown] = tables["function"]
    assert (shown["i→t R@1"], cell(shown["zero-shot"]), shown["contrastive loss"]) == (0.1, "", 5.5)


@pytest.mark.parametrize(
    "wrong",
    [{"max_pairs": 0}, {"temperature": 0}, {"prompt": "a photo"}, {"prompt": "{} and {x}"}, {"prompt": "{{}}"}],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {"max_pairs": 10, "temperature": 0.07, "prompt": "a photo of {}"}
    Settings(**right)  # type: ignore[arg-type]
    [name] = wrong
    with pytest.raises(ValueError, match=f"^{name}=.* must "):
        Settings(**right | wrong)  # type: ignore[arg-type]
