"""Ask for a name: samples that activate a feature and samples that do not, as a message, and the name in a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmmono.core.text import one_line

PLACES = re.compile(r"\{(active|inactive)\}")
LONGEST = 60  # characters of a name
WORDS = 8  # of a name
SHOWN = 300  # characters of a sample
NO_NAMES = frozenset({"none", "unknown", "unclear", "nothing", "n/a", "no name", "nothing in common"})

Array = np.ndarray[Any, Any]


def shown_samples(
    strength: Float[Array, " samples"],
    active: Bool[Array, " samples"],
    groups: Int[Array, " samples"],
    texts: Sequence[str],
    count: int,
    rng: np.random.Generator,
    before: Set[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    """Choose texts of the samples that activate a feature most, and of random ones that do not activate it.

    Each group of samples is shown once in either list, and each text once in both; samples without a text are not shown.

    Args:
        strength: of the activation, on the feature's dominant side of 0.
        active: which samples activate the feature.
        groups: group of each sample.
        texts: what each sample is.
        count: number of texts of either kind, at most.
        rng: draws the random ones.
        before: texts that are shown already, as of the other side of the pairs.
    """
    strongest = np.flatnonzero(active)[np.argsort(-strength[active], kind="stable")]
    shown = _distinct(strongest, groups, texts, count, set(before))
    others = rng.permutation(np.flatnonzero(~active))
    return shown, _distinct(others, groups, texts, count, {*before, *shown})


def _distinct(order: Array, groups: Array, texts: Sequence[str], count: int, seen: set[str]) -> list[str]:
    """Texts of the first samples of an order, none of a group or a text that was there before."""
    found: list[str] = []
    held: set[int] = set()
    for sample in order.tolist():
        text = one_line(texts[sample])[:SHOWN]
        if len(found) == count:
            break
        if text and text not in seen and int(groups[sample]) not in held:
            found.append(text)
            seen.add(text)
            held.add(int(groups[sample]))
    return found


def naming_message(prompt: str, active: Sequence[str], inactive: Sequence[str]) -> str:
    """Return the prompt with the samples in place of `{active}` and `{inactive}`, one a line."""
    lines = {"active": active, "inactive": inactive}
    # Not `str.format`: samples and prompts may contain other braces.
    return PLACES.sub(lambda place: "\n".join(f"- {text}" for text in lines[place[1]]), prompt)


def check_prompt(prompt: str) -> None:
    """Raise ValueError unless a prompt has a place for the samples of either kind."""
    if missing := {"active", "inactive"} - set(PLACES.findall(prompt)):
        raise ValueError(f"has no {{{min(missing)}}}, where these samples are filled in")


def read_name(reply: str) -> str:
    """Return the name in a reply, in lower case and without marks around it; empty if the reply is no name."""
    lines = [line for line in reply.splitlines() if line.strip()]
    if len(lines) != 1:
        return ""
    name = one_line(lines[0]).strip(" \t-–—•*_#`'\"“”‘’.,;:!").lower()
    too_long = len(name) > LONGEST or len(name.split()) > WORDS
    return "" if too_long or name in NO_NAMES or not any(map(str.isalnum, name)) else name
