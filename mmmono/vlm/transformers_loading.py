"""Loads models of transformers as a `TransformersEncoder`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoModel, AutoProcessor

from mmmono.core.artifacts import digest
from mmmono.core.errors import ModelError
from mmmono.vlm.checkpoints import not_finite
from mmmono.vlm.hub import hub_reason
from mmmono.vlm.transformers_encoder import TokenizeAndMask, TransformersEncoder
from mmmono.vlm.transformers_sources import CONFIG, TransformersSource, quiet, transformers_source


def load_transformers(
    id: str, name: str | None = None, context_length: int | None = None, source: TransformersSource | None = None
) -> TransformersEncoder:
    """Load a two-tower model of transformers on the CPU, in float32.

    Args:
        id: `organisation/name` or `organisation/name@revision` on the hub, or a folder as `save_pretrained` writes it.
        name: of the model in tables and figures; by default the id.
        context_length: tokens per caption; None for the model's own.
        source: the resolved id, if it is known already.

    Raises:
        ModelError: there is no such model, its type is unknown, it has only pickled weights, or they do not fit.
    """
    source = source or transformers_source(id)
    length = source.context_length(context_length)
    folder = source.fetch()
    with quiet():
        model = _model(folder, source)
        processor = _processor(folder, source)
    identity = {**source.recipe(), "context_length": length}
    with _processing(source, "image processor", "preprocessor_config.json"):
        encoder = TransformersEncoder(
            model,
            processor.image_processor,
            TokenizeAndMask(processor.tokenizer, length, source.family.padded),
            name=name or id,
            dim=source.dim,
            fingerprint=f"transformers:{source.config.model_type}:{digest(identity, 16)}",
        )
        image_width = _image_width(encoder)
    with _processing(source, "tokenizer", "tokenizer_config.json"):
        text_width = _text_width(encoder)
    if (image_width, text_width) != (source.dim, source.dim):
        raise ModelError(
            f"model.id={id}: embeddings of images are {image_width} wide and those of texts {text_width}, where its "
            f"{CONFIG} says {source.dim}: they must lie in one space"
        )
    return encoder


def _model(folder: Path, source: TransformersSource) -> nn.Module:
    try:
        model, told = AutoModel.from_pretrained(
            folder, config=source.config, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # broken files and foreign weights can fail anywhere in transformers
        raise ModelError(f"model.id={source.id}: its weights cannot be loaded ({_short(error)})") from error
    missing = sorted(name for name in told["missing_keys"] if not name.endswith(("logit_scale", "logit_bias")))
    if missing:
        raise ModelError(
            f"model.id={source.id}: its weights lack {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        )
    if name := not_finite(model.state_dict()):
        raise ModelError(
            f"model.id={source.id}: {name} holds NaN or infinite numbers: its training diverged, or it is broken"
        )
    return model


def _processor(folder: Path, source: TransformersSource) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except Exception as error:  # processors of any version can fail anywhere in transformers
        raise ModelError(
            f"model.id={source.id}: its processor cannot be loaded ({_short(error)}): its folder must hold the files of the "
            "image processor and the tokenizer too"
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(f"model.id={source.id}: {type(processor).__name__} is no processor of images and texts")
    return processor


def _image_width(encoder: TransformersEncoder) -> int:
    """Width of image embeddings. Raises ModelError if the processor does not bring images of any shape to one size."""
    images = [encoder.preprocess(Image.new("RGB", shape, "gray")) for shape in ((64, 64), (96, 64), (64, 96))]
    shapes = {tuple(image.shape[1:]) for image in images}
    if len(shapes) > 1:
        listed = ", ".join(f"{height} × {width}" for height, width in sorted(shapes))
        raise ModelError(
            f"model.id={encoder.name}: its image processor brings images of other shapes to other sizes ({listed} pixels), "
            "and a batch has one: in its preprocessor_config.json, crop (do_center_crop) or give height and width as size"
        )
    with torch.inference_mode():
        return encoder.encode_image(images[0].unsqueeze(0)).shape[1]


def _text_width(encoder: TransformersEncoder) -> int:
    with torch.inference_mode():
        return encoder.encode_text(encoder.tokenize(["a", "a cat"])).shape[1]


@contextmanager
def _processing(source: TransformersSource, what: str, file: str) -> Iterator[None]:
    """Turn the errors of a processor, or of a model that cannot take what it made, into a ModelError."""
    try:
        yield
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # settings that do not fit can fail anywhere in transformers
        raise ModelError(
            f"model.id={source.id}: its {what} makes nothing that the model takes ({_short(error)}): compare its {file}, or "
            "processor_config.json, with that of the model it was trained from"
        ) from error


def _short(error: Exception) -> str:
    return hub_reason(error)[:200]
