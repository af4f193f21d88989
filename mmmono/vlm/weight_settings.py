"""Settings that belong to weights and that a bare file lacks: preprocessing, activation, sizes, tokenizer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmmono.core.errors import ModelError

HUB, FOLDER = "hf-hub:", "local-dir:"  # what an architecture begins with that is no name of open_clip's
# Weights of a repository in this layout, in order of preference.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG_FILE = "open_clip_config.json"
INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")  # open_clip's names of these settings
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class GivenSettings:
    """Settings that users may give for weights. None keeps the value of the tag or configuration.

    Attributes:
        preprocess_of: a tag of the architecture, or `architecture/tag`, whose preprocessing and activation are used.
        mean: subtracted from pixels in [0, 1]; red, green and blue.
        std: divisor of pixels after that; red, green and blue.
        interpolation: `bicubic` or `bilinear`.
        resize_mode: resize the `shortest` side, then crop; the `longest` side, then pad; or `squash` to a square.
        image_size: side of the square input, or (height, width), in pixels.
        context_length: tokens per caption.
        tokenizer: a Hugging Face tokenizer's id, or a folder with one.
    """

    preprocess_of: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None
    image_size: int | Sequence[int] | None = None
    context_length: int | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class WeightSettings(GivenSettings):
    """Settings that belong to weights: those of `GivenSettings`, and those that only tags and configurations have.

    Attributes:
        fill_color: of the padding, 0 to 255.
        quick_gelu: whether the model uses QuickGELU, as OpenAI's do.
        named: prefix of the settings' names in errors.

    Raises:
        ModelError: a setting is invalid.
    """

    fill_color: int | None = None
    quick_gelu: bool | None = None
    named: str = "model."

    def __post_init__(self) -> None:
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            if (values := getattr(self, name)) is not None and not _are_channels(values, least):
                above = " above 0" if least == 0 else ""
                raise ModelError(f"{self.named}{name}={values} must be three numbers{above}, for red, green and blue")
        for name, known in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
            if (value := getattr(self, name)) is not None and value not in known:
                raise ModelError(f"{self.named}{name}={value} is none of {', '.join(known)}")
        sides: list[Any] = [*self.image_size] if isinstance(self.image_size, Sequence) else [self.image_size]
        for name, numbers in (("image_size", sides), ("context_length", [self.context_length])):
            if any(number is not None and not _is_count(number) for number in numbers):
                raise ModelError(f"{self.named}{name}={getattr(self, name)} must be a whole number of at least 1")
        shade = self.fill_color
        if shade is not None and not (isinstance(shade, int) and not isinstance(shade, bool) and 0 <= shade <= 255):
            raise ModelError(f"{self.named}fill_color={shade} must be a whole number from 0 to 255")

    def over(self, other: WeightSettings) -> WeightSettings:
        """Return these settings, with values that are None taken from `other`."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return WeightSettings(**{name: theirs if own is None else own for name, (own, theirs) in pairs.items()})

    def preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing settings that are not None, under open_clip's names."""
        given = {name: getattr(self, name) for name in PREPROCESSING}
        return {name: tuple(v) if _is_sequence(v) else v for name, v in given.items() if v is not None}


def settings_of_tag(tag: Mapping[str, Any]) -> WeightSettings:
    """Return the settings in open_clip's entry for a tag."""
    known: dict[str, Any] = {name: tag.get(name) for name in (*PREPROCESSING, "quick_gelu")}
    return WeightSettings(**known)


def settings_beside(file: Path) -> WeightSettings:
    """Return settings and tokenizer of an `open_clip_config.json`. Raises ModelError if it is broken."""
    content = read_config(file)
    model, preprocess = content.get("model_cfg", {}), content.get("preprocess_cfg", {})
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    own_tokenizer = text.get("hf_tokenizer_name") and any((file.parent / name).exists() for name in _TOKENIZER_FILES)
    return WeightSettings(
        **{name: preprocess.get(name) for name in PREPROCESSING},
        image_size=vision.get("image_size"),
        context_length=text.get("context_length"),
        tokenizer=str(file.parent) if own_tokenizer else None,
        quick_gelu=model.get("quick_gelu"),
        named=f"{file}: ",
    )


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration in open_clip's layout. Raises ModelError unless it is a mapping of mappings."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no readable JSON ({error}): fetch it again") from error
    model, preprocess = _parts(content, "model_cfg", "preprocess_cfg")
    parts = model, preprocess, *_parts(model, "vision_cfg", "text_cfg")
    if not content or not all(isinstance(part, dict) for part in parts):
        raise ModelError(f"{file} is no configuration of open_clip: it must have model_cfg and preprocess_cfg")
    return content


def _parts(content: Any, *names: str) -> list[Any]:
    """Parts of a mapping, empty where it lacks them; None if it is no mapping."""
    return [content.get(name, {}) if isinstance(content, dict) else None for name in names]


def _are_channels(values: Any, above: float) -> bool:
    numbers = _is_sequence(values) and len(values) == 3 and all(_is_number(value) for value in values)
    return bool(numbers) and all(math.isfinite(value) and value > above for value in values)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
