"""Settings as dataclasses: what does not fit a field's type is one line that names the setting and says what it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace_settings import WorkspaceSettings


@dataclass(frozen=True)
class Inner:
    rate: float


@dataclass(frozen=True)
class Outer:
    count: int
    rate: float
    name: str | None
    on: bool
    sizes: Sequence[int] | None
    kind: Literal["a", "b"]
    inner: Inner

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1")


GOOD = {"count": 2, "rate": 1, "name": None, "on": True, "sizes": [1, 2], "kind": "a", "inner": {"rate": 0.5}}


def read(**changes: Any) -> Outer:
    return read_settings(OmegaConf.create({"study": {**GOOD, **changes}}), "study", Outer)


def test_values_of_the_right_types_are_kept() -> None:
    assert read() == Outer(2, 1, None, True, [1, 2], "a", Inner(0.5))
    assert read(name="x", sizes=None).name == "x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": None}, "study.count=null must be a whole number"),
        ({"count": 1.5}, "study.count=1.5 must be a whole number"),
        ({"count": True}, "study.count=true must be a whole number"),
        ({"rate": "fast"}, "study.rate=fast must be a number"),
        ({"name": 3}, "study.name=3 must be text or null"),
        ({"on": 1}, "study.on=1 must be true or false"),
        ({"sizes": 3}, "study.sizes=3 must be a list, of a whole number each or null"),
        ({"sizes": ["a"]}, "study.sizes=[a] must be a list, of a whole number each or null"),
        ({"kind": 2}, "study.kind=2 must be text"),
        ({"inner": 4}, "study.inner=4 must be a group of settings"),
        ({"inner": {"rate": None}}, "study.inner.rate=null must be a number"),
        ({"count": 0}, "study.count=0 must be at least 1"),
        ({"inner": {}}, "study.inner.rate is missing, and this command reads it: give it a value"),
        (
            {"inner": {"rate": 1, "rat": 2}},
            "no setting is called 'study.inner.rat', did you mean 'study.inner.rate'?; --help lists them all",
        ),
    ],
)
def test_others_are_refused_by_their_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(**changes)
    assert str(error.value) == message


def test_a_shared_section_may_refer_to_other_settings() -> None:
    extraction = {
        "batch_size": "${seed}", "workers": None, "precision": "auto", "dtype": "float16", "max_skipped": 0.1,
        "max_broken_shards": 0, "part_of": None, "devices": 1, "resize": "pillow",
    }  # fmt: skip
    assert WorkspaceSettings(OmegaConf.create({"seed": 8, "extraction": extraction})).extraction.batch_size == 8
