"""Messages that ask for a name, and the names in replies."""

from __future__ import annotations

import numpy as np
import pytest

from mmmono.interpretability.name_asking import LONGEST, check_prompt, naming_message, read_name, shown_samples


def test_the_strongest_samples_of_each_group_are_shown_and_random_silent_ones() -> None:
    strength = np.array([1.0, 5.0, 4.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    active = strength > 0
    groups = np.array([0, 1, 1, 2, 3, 4, 5, 5, 6])
    texts = ["a", "five\n", "four", "", "two", "x", "y", "z", "five"]
    shown, others = shown_samples(strength, active, groups, texts, 3, np.random.default_rng(0))
    assert shown == ["five", "two", "a"]  # `four` is of the group of `five`, and the third has no text
    assert sorted(others) in (["x", "y"], ["x", "z"])  # y and z are one group, and `five` is shown as active
    again = shown_samples(strength, active, groups, texts, 3, np.random.default_rng(0))
    assert again == (shown, others)


def test_silent_samples_are_random() -> None:
    active = np.arange(200) < 10
    groups, texts = np.arange(200), [str(i) for i in range(200)]
    drawn = [
        set(shown_samples(active * 1.0, active, groups, texts, 8, np.random.default_rng(seed))[1]) for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]
    assert all(len(of) == 8 and min(map(int, of)) >= 10 for of in drawn)


def test_samples_stand_in_the_prompt_as_they_are() -> None:
    message = naming_message("A {active} B {inactive} {other} {}", ["{inactive}", "y"], ["z"])
    assert message == "A - {inactive}\n- y B - z {other} {}"
    check_prompt("{inactive} {active}")
    with pytest.raises(ValueError, match=r"has no \{inactive\}"):
        check_prompt("only {active}")


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("dogs", "dogs"), ('"Dogs."', "dogs"), ("- **Dogs on grass**\n", "dogs on grass"), ("\n  犬  \n", "犬"),
        ("it's", "it's"), ("1", "1"), ("", ""), ("   ", ""), ("...", ""), ("None", ""), ("unclear.", ""),
        ("dogs\ncats", ""), ("They all have in common that there is a dog in them", ""), ("x" * (LONGEST + 1), ""),
        ("a\x00b\u202ec", "abc"),
    ],
)  # fmt: skip
def test_a_reply_is_a_name_or_none(reply: str, name: str) -> None:
    assert read_name(reply) == name


def test_what_was_shown_of_the_other_side_is_not_shown_again() -> None:
    texts = ["cat", "dog", "tree", "sky", "sea", "car"]
    active = np.array([True, True, False, False, False, False])
    shown, others = shown_samples(
        np.arange(6)[::-1].astype(float), active, np.arange(6), texts, 3, np.random.default_rng(0), {"cat", "sea"}
    )
    assert shown == ["dog"]
    assert set(others) == {"tree", "sky", "car"}
