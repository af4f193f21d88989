"""Paths that a user gives."""

from pathlib import Path

import pytest

from mmmono.core.errors import MmmonoError
from mmmono.core.files import user_path
from mmmono.pipeline.existing_store import ExistingStore
from mmmono.pipeline.listed_datasets import Folder


def test_the_home_folder_is_filled_in_and_what_is_none_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/a") == Path("/home/me/a")
    assert user_path(Path("~/a")) == Path("/home/me/a")
    for other in ("~nobody-is-called-so/a", "a/~/b", "/a", "."):
        assert user_path(other) == Path(other)


def test_a_folder_whose_name_begins_with_a_tilde_is_missing_like_any_other() -> None:
    with pytest.raises(MmmonoError, match=r"~nobody-is-called-so.* is no folder"):
        Folder(root="~nobody-is-called-so/a").source("val").parts()
    with pytest.raises(MmmonoError, match=r"~nobody-is-called-so/i\.npy"):
        ExistingStore(image="~nobody-is-called-so/i.npy", text="~nobody-is-called-so/t.npy").fingerprint()
