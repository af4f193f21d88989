"""Tables on disk and in the terminal."""

from pathlib import Path

import pandas as pd
import pytest

from mmmono.reporting.result import Result
from mmmono.reporting.tables import console, save_table, show_table


def test_a_table_without_rows_says_so() -> None:
    with console.capture() as captured:
        show_table([], "Table 6, raw: words of female texts")
    assert captured.get() == "Table 6, raw: words of female texts: none\n"


def test_tables_keep_their_rows(tmp_path: Path) -> None:
    rows = [{"name": "raw", "value": 0.5, "count": 3}, {"name": "sae", "value": float("nan"), "count": None}]
    file = save_table(rows, tmp_path / "table")
    assert file == tmp_path / "table.parquet"
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]
    assert pd.read_parquet(file)["name"].tolist() == ["raw", "sae"]
    back = Result(tmp_path, {}).rows("table")
    assert back == [{"name": "raw", "value": 0.5, "count": 3}, {"name": "sae", "value": None, "count": None}]
    assert isinstance(back[0]["count"], int)


def test_columns_are_those_declared_in_their_order(tmp_path: Path) -> None:
    rows = [{"b": 1.0}, {"a": 2, "b": 3.0}]
    save_table(rows, tmp_path / "table", ["a", "b", "c"])
    assert Result(tmp_path, {}).rows("table") == [{"a": None, "b": 1.0}, {"a": 2, "b": 3.0}]
    save_table([], tmp_path / "empty", ["a", "b"])
    assert list(Result(tmp_path, {}).table("empty")) == ["a", "b"]
    with pytest.raises(KeyError, match="table declares no column b"):
        save_table(rows, tmp_path / "table", ["a"])


def test_figures_are_found_by_their_pattern_in_the_order_of_the_feature_sets(tmp_path: Path) -> None:
    for name in ("sae-ImgD", "raw-ImgD", "raw-TextD", "raw-ImgD-47", "other-ImgD", "raw-curves"):
        (tmp_path / f"{name}.png").touch()
    result = Result(tmp_path, {"sets": [{"name": "sae"}, {"name": "raw"}]})
    classes = {"members": ("TextD", "ImgD")}
    assert [name for name, _ in result.figures("{feature_set}-{members}", classes)] == [
        "sae-ImgD", "raw-TextD", "raw-ImgD",
    ]  # fmt: skip
    assert result.figures("{feature_set}-curves") == [("raw-curves", {"feature_set": "raw"})]
    assert [name for name, _ in result.figures("{feature_set}-ImgD-{feature}")] == ["raw-ImgD-47"]
