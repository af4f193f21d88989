"""Translate command-line arguments to Hydra's grammar, and check that the artifacts root is usable."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException

from mmmono.core.errors import ConfigError
from mmmono.core.files import user_path
from mmmono.core.shipped import shipped

CONF = shipped("conf")
OWN_FOLDERS = ("--config-dir", "-cd", "hydra.searchpath")  # arguments that name folders with options of the user's own
# Settings that are paths: their values are taken literally.
PATHS = frozenset(
    {
        "artifacts", "dataset.root", "dataset.val_root", "dataset.path", "dataset.val_path", "dataset.image", "dataset.text",
        "dataset.metadata", "dataset.id", "dataset.noise_from", "dataset.cache", "dataset.cache_root", "dictionary.path",
        "model.pretrained", "model.checkpoint", "model.id", "model.tokenizer", "model.preprocess_of",
        "embedder.image_checkpoint", "embedder.image_model", "embedder.text_model", "adversarial.requests",
        "generator.weights", "victim.model", "labels.model", "judge.cache", "names.vocabulary", "plan.coco",
        "publish.folder", "hydra.run.dir", "hydra.sweep.dir",
    }
)  # fmt: skip
# Those of them that are written to, and are folders on a disk.
WRITTEN = frozenset(
    {
        "artifacts", "dataset.cache", "dataset.cache_root", "judge.cache", "publish.folder", "hydra.run.dir",
        "hydra.sweep.dir",
    }
)  # fmt: skip
# Settings that are lists of paths, which commas may separate.
PATH_LISTS = frozenset({"dataset.shards", "dataset.val_shards", "references", "adversarial.benign.images"})
INIT_FROM = "init_from"  # of each kind of autoencoder, such as `sae.init_from`: a path as well
SWITCHES = frozenset({"dataset.cache"})  # paths that may also be booleans
ARGUMENT = re.compile(r"(\+{0,2}[\w.@/+~-]+?)=(.*)", re.DOTALL)
NO_RUN = frozenset(
    {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
)


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """Translate arguments to Hydra's grammar; redirect Hydra's logs if the artifacts root is read-only.

    Raises:
        ConfigError: the artifacts root is not a path, is a file, or cannot be made or read; what is to be written to is
            no folder but an address; a shell has expanded a range; a sweep has no job.
    """
    _check_ranges(arguments)
    _check_written(arguments)
    switches = [argument for argument in arguments if argument in ("-m", "--multirun")]
    multirun = bool(switches)
    # First, since Hydra takes no settings after a switch that stands between settings.
    read = [*switches, *(quote(argument, multirun) for argument in _from_here(arguments) if argument not in switches)]
    if multirun and not any(argument.startswith(OWN_FOLDERS) for argument in arguments):
        _check_globs(read)
    if any(argument.partition("=")[0] in NO_RUN for argument in arguments):
        return read
    return [*read, *_elsewhere(_root(read), read)]


def _from_here(arguments: Sequence[str]) -> list[str]:
    """Make the folder of `--config-path` one of the working folder, as that of `--config-dir` is; Hydra would not."""
    found, names = list(arguments), ("--config-path", "-cp")
    for place, argument in enumerate(arguments):
        name, equals, folder = argument.partition("=")
        if name in names and equals:
            found[place] = f"{name}={user_path(folder).absolute()}"
        elif place and arguments[place - 1] in names:
            found[place] = str(user_path(argument).absolute())
    return found


def _check_globs(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a sweep over `glob(...)` that matches no option of a group: Hydra would run nothing."""
    for argument in arguments:
        parsed = _parsed(argument)
        if parsed is None or parsed.value_type != ValueType.GLOB_CHOICE_SWEEP:
            continue
        options = [file.stem for file in (CONF / parsed.key_or_group).glob("*.yaml")]
        if not parsed.value().filter(options):  # type: ignore[union-attr]
            known = f"its options are {', '.join(sorted(options))}" if options else f"{parsed.key_or_group} is no group"
            raise ConfigError(f"{argument} matches nothing: glob() chooses options of a group, and {known}")


def _check_written(arguments: Sequence[str]) -> None:
    """Raise ConfigError for an address, such as `s3://bucket`, as a folder to write to: it would be one called `s3:`."""
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key in WRITTEN and (address := re.match(r"['\"]?([A-Za-z][A-Za-z0-9+.-]*)://", value)):
            raise ConfigError(
                f"{key}={address[1]}://… is no folder: what is written needs a disk; give {key}=/path, on a disk that all "
                "machines see if there are several"
            )


def _check_ranges(arguments: Sequence[str]) -> None:
    """Raise ConfigError for what a shell makes of `dataset.shards=a-{0..4}.tar`: five settings, of which one counts."""
    for before, after in pairwise(arguments):
        key, _, first = before.partition("=")
        again, _, second = after.partition("=")
        if key == again and key.lstrip("+") in PATH_LISTS and _count_on(first, second):
            raise ConfigError(
                f"{before} and {after}: only the last one would be read. A shell makes that of a range such as "
                f"{{0000..0004}} without quotation marks: give '{key}=…{{0000..0004}}…'"
            )


def _count_on(first: str, second: str) -> bool:
    """Whether two texts differ in one number alone, as the elements of a range do that follow each other."""
    one, other = (re.split(r"(\d+)", text) for text in (first, second))
    differing = [(a, b) for a, b in zip_longest(one, other) if a != b]
    return len(differing) == 1 and all(str(number).isdigit() for number in differing[0])


def quote(argument: str, multirun: bool = False) -> str:
    """Quote the value of `key=value` if Hydra's grammar would not read it as the text it is.

    In that grammar, braces are dictionaries, brackets lists and commas sweeps; an unquoted value may not contain `=`,
    quotes or non-ASCII letters. Values of path settings always stay text, and a leading `~/` is expanded.
    """
    match = ARGUMENT.fullmatch(argument)
    if match is None or argument.startswith("-"):
        return argument
    key, value = match[1], match[2]
    setting, parsed = key.lstrip("+"), _parsed(argument)
    if _is_path(setting) or setting in PATH_LISTS:
        if multirun and (swept := _existing(value)):
            return f"{key}={swept}"
        if value.startswith("~/"):
            value, parsed = str(user_path(value)), None
        if parsed is not None and _is_meant(parsed, value, setting, multirun):
            return argument
    elif parsed is not None:
        return argument
    if Path(value).exists():
        return f"{key}={_quoted(value)}"
    if value.startswith("[") and value.endswith("]") and _parsed(listed := f"{key}=[{_each_quoted(value[1:-1])}]"):
        return listed
    if multirun and not _is_path(setting) and "," in value and _parsed(swept := f"{key}={_each_quoted(value)}"):
        return swept
    return f"{key}={_quoted(value)}"


def _existing(value: str) -> str:
    """Several paths that exist, each quoted and with the home folder for `~`, for a sweep; empty if they are none."""
    parts = value.split(",")
    paths = [user_path(part) for part in parts]
    if len(parts) < 2 or user_path(value).exists() or not all(parts) or not all(path.exists() for path in paths):
        return ""
    return ",".join(_quoted(str(path)) for path in paths)


def _is_path(setting: str) -> bool:
    return setting in PATHS or setting.rpartition(".")[2] == INIT_FROM


def _is_meant(parsed: Override, value: str, setting: str, multirun: bool) -> bool:
    """Whether Hydra's interpretation of a path setting is the intended one."""
    if parsed.is_sweep_override():
        if Path(value).exists():
            return False
        return multirun or setting in PATH_LISTS  # without -m, Hydra's error explains how to give a list
    if isinstance(parsed._value, QuotedString):
        return True
    found = parsed.value()
    if isinstance(found, bool) and setting in SWITCHES:
        return True
    if isinstance(found, bool | int | float):
        return False  # e.g. a folder called 2017
    return found == value if type(found) is str else True


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _quoted(value: str) -> str:
    """Put a string in double quotes for Hydra, escaping quotes and the backslashes before them."""
    return '"' + re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value) + '"'


def _each_quoted(values: str) -> str:
    """Quote each of several comma-separated values unless it is quoted; commas inside brackets do not separate."""
    parts, depth, opened = [""], 0, ""
    for letter in values:
        if letter in "\"'" and (not opened or opened == letter):
            opened = "" if opened else letter
        depth += (letter in "{[(") - (letter in "}])") if not opened else 0
        if letter == "," and depth == 0 and not opened:
            parts.append("")
        else:
            parts[-1] += letter
    return ",".join(part if part.strip()[:1] in ("'", '"') else _quoted(part.strip()) for part in parts)


def _root(arguments: Sequence[str]) -> Path | None:
    """The artifacts root that the arguments name; None if only Hydra can resolve it."""
    root: object = "artifacts"
    for argument in arguments:
        if argument.partition("=")[0].lstrip("+") == "artifacts" and (parsed := _parsed(argument)) is not None:
            if parsed.is_sweep_override():
                return None
            root = parsed.value()
    root = root.text if isinstance(root, QuotedString) else root
    if not isinstance(root, str) or not root.strip():
        shown = "null" if root is None else root
        raise ConfigError(f"artifacts={shown} is no folder: give the root of everything computed, artifacts=/path")
    return None if "${" in root else Path(root)


def _elsewhere(root: Path | None, arguments: Sequence[str]) -> list[str]:
    """Overrides that move Hydra's run logs to a temporary folder if the root is read-only."""
    if root is None:
        return []
    there = next(path for path in (root.absolute(), *root.absolute().parents) if _exists(path))
    if not there.is_dir():
        what = "is a file" if there == root.absolute() else f"cannot be made: {there} is a file"
        raise ConfigError(f"artifacts={root} {what}: give a folder, artifacts=/path")
    if there != root.absolute() and not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"artifacts={root} cannot be made: {there} is not writable; give artifacts=/writable/path")
    runs = root / "runs"
    if os.access(runs if _exists(runs) else there, os.W_OK | os.X_OK):
        return []
    if not os.access(root, os.R_OK | os.X_OK):
        raise ConfigError(f"artifacts={root} may not be read: give another root, artifacts=/path")
    folder = tempfile.mkdtemp(prefix="mmmono-runs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    given = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    return [f"{key}={_quoted(folder)}" for key in ("hydra.run.dir", "hydra.sweep.dir") if key not in given]


def _exists(path: Path) -> bool:
    """Whether a path exists; True if permissions prevent the check. Raises ConfigError if the path is invalid."""
    try:
        return path.exists()
    except OSError as error:
        if isinstance(error, PermissionError):
            return True
        raise ConfigError(f"{path} cannot be a path here ({error.strerror}): give another") from error
