"""What .oxlintrc.json says of the explorer's scripts, which share their names."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "mmmono" / "reporting" / "web"


def test_the_linter_knows_the_names_that_scripts_share() -> None:
    text = re.sub(r"(^|,|\s)//.*", r"\1", (REPOSITORY / ".oxlintrc.json").read_text())
    settings = json.loads(text)
    code = {file.name: re.sub(r"//.*", "", file.read_text()) for file in SCRIPTS.glob("*.js")}
    assert len(code) > 3
    defined = {
        (file, name)
        for file, script in code.items()
        for name in re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, re.MULTILINE)
    }
    names = [name for _, name in defined]
    assert len(names) == len(set(names)), "two scripts define the same name"
    listed = set(settings["globals"])
    assert listed <= set(names)
    unused = settings["rules"]["no-unused-vars"][1]["varsIgnorePattern"]
    assert set(unused.removeprefix("^(").removesuffix(")$").split("|")) == listed
    for file, name in defined:
        if name in listed:
            others = [script for other, script in code.items() if other != file]
            assert any(re.search(rf"\b{name}\b", script) for script in others), f"{name} is used by no other script"
