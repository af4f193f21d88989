"""What belongs to weights and a bare file does not say: preprocessing, activation, sizes, tokenizer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmmono.core.errors import ModelError

CONFIG_FILE = "open_clip_config.json"
INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class WeightSettings:
    """What belongs to weights. None leaves a setting to the tag or the configuration that they come with.

    Attributes:
        preprocess_of: a tag of the architecture, or `architecture/tag`: its preprocessing and activation are wanted.
        mean: of the pixels between 0 and 1 that is subtracted, for red, green and blue.
        std: what they are divided by.
        interpolation: `bicubic` or `bilinear`.
        resize_mode: `shortest` side, then crop; `longest` side, then pad; or `squash` to a square.
        fill_color: of the padding, from 0 to 255.
        image_size: side of the square pictures, or height and width, in pixels.
        context_length: tokens of a caption.
        tokenizer: a Hugging Face tokenizer's id, or a folder with one.
        quick_gelu: whether they want QuickGELU, as OpenAI's do.
        named: how an error names the settings.

    Raises:
        ModelError: a setting that cannot work.
    """

    preprocess_of: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None
    fill_color: int | None = None
    image_size: int | Sequence[int] | None = None
    context_length: int | None = None
    tokenizer: str | None = None
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

    def over(self, other: WeightSettings) -> WeightSettings:
        """These settings, and the other ones' where these say nothing."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return WeightSettings(**{name: theirs if own is None else own for name, (own, theirs) in pairs.items()})

    def preprocessing(self) -> dict[str, Any]:
        """The preprocessing alone, under open_clip's names, as far as it is set."""
        names = ("mean", "std", "interpolation", "resize_mode", "fill_color")
        given = {name: getattr(self, name) for name in names}
        return {name: tuple(v) if _is_sequence(v) else v for name, v in given.items() if v is not None}


def settings_of_tag(tag: Mapping[str, Any]) -> WeightSettings:
    """What open_clip's entry for a tag says."""
    known: dict[str, Any] = {
        name: tag.get(name) for name in ("mean", "std", "interpolation", "resize_mode", "quick_gelu")
    }
    return WeightSettings(**known)


def settings_beside(file: Path) -> WeightSettings:
    """What an `open_clip_config.json` says, and the tokenizer beside it. Raises ModelError if it is broken."""
    content = read_config(file)
    model, preprocess = content.get("model_cfg", {}), content.get("preprocess_cfg", {})
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    own_tokenizer = text.get("hf_tokenizer_name") and any((file.parent / name).exists() for name in _TOKENIZER_FILES)
    return WeightSettings(
        **{name: preprocess.get(name) for name in ("mean", "std", "interpolation", "resize_mode", "fill_color")},
        image_size=vision.get("image_size"),
        context_length=text.get("context_length"),
        tokenizer=str(file.parent) if own_tokenizer else None,
        quick_gelu=model.get("quick_gelu"),
        named=f"{file}: ",
    )


def read_config(file: Path) -> dict[str, Any]:
    """A configuration in open_clip's layout. Raises ModelError unless it is a mapping of mappings."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no readable JSON ({error}): fetch it again") from error
    parts = [content, *(content.get(name, {}) for name in ("model_cfg", "preprocess_cfg"))] if content else [None]
    model = parts[1] if len(parts) > 1 else None
    towers = [model.get(name, {}) for name in ("vision_cfg", "text_cfg")] if isinstance(model, dict) else []
    if not all(isinstance(part, dict) for part in [*parts, *towers]):
        raise ModelError(f"{file} is no configuration of open_clip: it must have model_cfg and preprocess_cfg")
    return content


def _are_channels(values: Any, above: float) -> bool:
    numbers = _is_sequence(values) and len(values) == 3 and all(_is_number(value) for value in values)
    return bool(numbers) and all(math.isfinite(value) and value > above for value in values)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
