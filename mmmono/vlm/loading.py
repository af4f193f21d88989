"""Loads any open_clip model as an `OpenCLIPEncoder`, with weights from a pretrained tag, a file or a hub repository."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
import xxhash
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from mmmono.core.artifacts import digest
from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.core.text import message_of
from mmmono.vlm.checkpoints import misfit, not_finite, read_state_dict, strip_prefixes
from mmmono.vlm.hub import download, hub_or_cache, hub_reason
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder, OpenCLIPModel
from mmmono.vlm.sources import ModelSource, model_source
from mmmono.vlm.weight_settings import FOLDER, WEIGHTS, WeightSettings


def load_open_clip(
    architecture: str,
    pretrained: str | None,
    name: str | None = None,
    precision: str = "fp32",
    cache_dir: str | None = None,
    settings: WeightSettings | None = None,
    joint: bool = True,
) -> OpenCLIPEncoder:
    """Load a model that open_clip can build, on the CPU.

    Args:
        architecture: a name from `open_clip.list_models()`, `hf-hub:org/name`, or `local-dir:` and a folder.
        pretrained: one of the architecture's tags, the path of a checkpoint, or None for random weights. Must be None
            for a repository or folder, which contains its own weights.
        name: of the model in tables and figures; by default the architecture's name.
        precision: open_clip's `fp32`, `fp16`, `bf16`, `pure_fp16` or `pure_bf16`.
        cache_dir: folder for downloads; None is the hub's own cache.
        settings: preprocessing, activation, sizes and tokenizer of weights that are given by path.
        joint: both towers have to return embeddings of one width.

    Raises:
        ModelError: unknown architecture or tag; missing, unsafe or misfitting checkpoint; towers that do not fit the
            configuration or each other; or a failed download.
    """
    settings = settings or WeightSettings()
    source = model_source(architecture, pretrained, settings, cache_dir)
    with hub_or_cache() if source.wants_hub else nullcontext():
        weights = _weights_file(source, architecture, pretrained, cache_dir)
        model, tokenizer = _build(source, architecture, precision, cache_dir)
    if weights is not None:
        _load_weights(model, weights, source, settings, f"cannot load {architecture} from {pretrained or weights}")
    known_by = pretrained if source.tag else weights_digest(model) if weights is None else file_fingerprint(weights)
    identity = digest({"config": source.built(), **source.recipe()}, 16)
    encoder = OpenCLIPEncoder(
        model,
        image_transform_v2(PreprocessCfg(**source.preprocess), is_train=False),
        tokenizer,
        name=name or architecture,
        dim=source.dim,
        fingerprint=f"open_clip:{architecture.partition(':')[0].replace('/', '-')}:{known_by}:{identity}",
    )
    if precision == "fp32":  # others may need an autocast, which whoever asks for them brings
        _check_encodes(encoder, source, architecture, joint)
    return encoder


def weights_digest(model: nn.Module) -> str:
    """Return the digest of all weights, for a model that was not loaded from a file."""
    known = xxhash.xxh3_128()
    for key, tensor in model.state_dict().items():
        known.update(key.encode())
        known.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return known.hexdigest()


def download_advice(pretrained: str, tag: dict[str, Any]) -> str:
    """Return the settings that load a tag's weights from a file with the tag's preprocessing and activation."""
    quick_gelu = " model.force_quick_gelu=true" if tag.get("quick_gelu") else ""
    return f"model.pretrained=/path/to/checkpoint{quick_gelu} model.preprocess_of={pretrained}"


def _weights_file(source: ModelSource, architecture: str, pretrained: str | None, cache_dir: str | None) -> Path | None:
    """Return the file of the weights, downloaded if needed; None for random weights."""
    if "file" in source.tag:
        return Path(source.tag["file"])
    if source.repository is not None:
        return source.repository.download(*WEIGHTS)
    if not source.tag:
        return source.weights
    repository, _, named = source.tag["hf_hub"].rpartition("/")
    stem = Path(named or HF_WEIGHTS_NAME).stem
    safe = f"{stem}.safetensors" if named else HF_SAFE_WEIGHTS_NAME
    try:
        return download(repository, [safe, named or HF_WEIGHTS_NAME], cache_dir)
    except ModelError as error:
        raise ModelError(
            f"cannot download {architecture} {pretrained} from {repository}: {hub_reason(error.__cause__ or error)}; or "
            "fetch the checkpoint where there is a network and give its path, "
            f"{download_advice(str(pretrained), source.tag)}"
        ) from error


def _build(source: ModelSource, architecture: str, precision: str, cache_dir: str | None) -> tuple[OpenCLIPModel, Any]:
    """Return the model with random weights, and its tokenizer."""
    size = source.config["vision_cfg"].get("image_size")
    try:
        with _quiet_open_clip():
            model = open_clip.create_model(
                source.architecture,
                load_weights=False,
                precision=precision,
                force_quick_gelu=source.quick_gelu,
                force_image_size=size if size != _own_size(source.architecture) else None,
                force_context_length=source.context_length,
                pretrained_text=False,
                cache_dir=cache_dir,
            )
            return model, _tokenizer(source, cache_dir)
    except Exception as error:  # foreign configurations can fail anywhere in open_clip and transformers
        raise ModelError(f"cannot build {architecture}: {hub_reason(error)[:300]}") from error


def _own_size(architecture: str) -> Any:
    return open_clip.get_model_config(architecture)["vision_cfg"].get("image_size")


def _tokenizer(source: ModelSource, cache_dir: str | None) -> Any:
    """Return the tokenizer from the settings, else the configuration's, else CLIP's."""
    text = source.config["text_cfg"]
    packaged = source.architecture.startswith(FOLDER)
    if name := source.tokenizer or (text.get("hf_tokenizer_name") if packaged else None):
        return open_clip.tokenizer.HFTokenizer(
            name,
            context_length=source.context_length,
            cache_dir=cache_dir,
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )
    return open_clip.get_tokenizer(source.architecture, source.context_length, cache_dir)


def _load_weights(model: OpenCLIPModel, file: Path, source: ModelSource, settings: WeightSettings, what: str) -> None:
    """Load a file into a model, under any trainer's weight names. Raises ModelError if it does not fit."""
    if file.suffix in (".npz", ".npy"):
        try:
            open_clip.load_checkpoint(model, str(file))
        except Exception as error:  # open_clip reads such files as big_vision's arrays only
            raise ModelError(f"{what}: these are no weights of big_vision for it ({type(error).__name__})") from error
        return
    expected = model.state_dict()
    state = strip_prefixes(read_state_dict(file, f"{what}: the file"), expected)
    try:
        state = _renamed(state, model)
    except (KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{what}: its weights cannot be renamed ({error!r:.100})") from error
    if not source.tag:
        _check_sizes(state, expected, model, settings, what)
    _resize_positions(state, expected, model)
    if not state.keys() & expected.keys():
        raise ModelError(
            f"{what}: none of its names is known: it has {_first(state)}, and the model {_first(expected)}"
        )
    if problem := misfit(state, expected):
        raise ModelError(f"{what}: {problem}"[:400])
    if name := not_finite(state):
        raise ModelError(f"{what}: {name} holds NaN or infinite numbers: its training diverged, or it is broken")
    model.load_state_dict(state)


def _renamed(state: dict[str, Tensor], model: OpenCLIPModel) -> dict[str, Tensor]:
    """Rename weights of Apple's models and of the other tower layout to open_clip's names for this model."""
    state = convert_state_dict(model, state)
    custom = hasattr(model, "text")
    if custom and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    elif not custom and "text.positional_embedding" in state:
        state = {name.removeprefix("text."): weight for name, weight in state.items()}
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if own is None:
            continue
        if name in state:
            state[name] = state[name].reshape(own.shape)
        elif name == "logit_bias":
            state[name] = torch.zeros_like(own)
    if not hasattr(model, position_ids := "text.transformer.embeddings.position_ids"):
        state.pop(position_ids, None)
    return state


def _check_sizes(
    state: dict[str, Tensor], expected: dict[str, Tensor], model: OpenCLIPModel, settings: WeightSettings, what: str
) -> None:
    """Refuse weights of another image size or context length, unless set: open_clip silently interpolates."""
    images = "visual.positional_embedding"
    if _differ_in_length(state, expected, images) and settings.image_size is None:
        side = math.isqrt(len(state[images]) - 1) * model.visual.patch_size[0]
        raise ModelError(
            f"{what}: it was trained on images of {side} px, and the model takes {model.visual.image_size[0]}: set "
            f"model.image_size={side}, or another size to interpolate its positions"
        )
    for captions in ("positional_embedding", "text.positional_embedding"):
        if _differ_in_length(state, expected, captions) and settings.context_length is None:
            more = len(state[captions]) - len(expected[captions])
            text = getattr(model, "text", model)
            raise ModelError(
                f"{what}: it was trained on captions of {text.context_length + more} tokens, and the model takes "
                f"{text.context_length}: set model.context_length={text.context_length + more}"
            )


def _resize_positions(state: dict[str, Tensor], expected: dict[str, Tensor], model: OpenCLIPModel) -> None:
    if _differ_in_length(state, expected, "visual.positional_embedding"):
        resize_pos_embed(state, model)
    if any(_differ_in_length(state, expected, f"{text}positional_embedding") for text in ("", "text.")):
        resize_text_pos_embed(state, model)


def _differ_in_length(state: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> bool:
    if name not in state or name not in expected or state[name].ndim != 2:
        return False
    return state[name].shape[1] == expected[name].shape[1] and len(state[name]) != len(expected[name])


def _check_encodes(encoder: OpenCLIPEncoder, source: ModelSource, architecture: str, joint: bool) -> None:
    """Raise ModelError if a tower does not take images or captions of the sizes that are set, or returns another width."""
    try:
        with torch.no_grad():
            image = encoder.encode_image(encoder.preprocess(Image.new("RGB", (64, 64), "gray")).unsqueeze(0))
            text = encoder.encode_text(encoder.tokenize(["a " * source.context_length]))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # towers of other libraries fail in their own ways
        raise ModelError(
            f"cannot use {architecture}: its towers do not take images of {source.preprocess['size']} px or captions of "
            f"{source.context_length} tokens ({message_of(error, 200).rstrip('.')}): take back model.image_size and "
            "model.context_length, or compare image_size and context_length in its configuration with its towers' own"
        ) from error
    if joint and not image.shape[-1] == text.shape[-1] == source.dim:
        raise ModelError(
            f"cannot use {architecture}: its image tower returns {image.shape[-1]} dimensions, its text tower "
            f"{text.shape[-1]}, and embed_dim in its configuration is {source.dim}: all three must be the same"
        )


def _first(state: dict[str, Tensor], most: int = 3) -> str:
    names = sorted(state)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Silence open_clip's warning about random weights: they are replaced later, or were requested."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
