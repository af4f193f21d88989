"""EmojiCLIP, the default model: two frozen pretrained towers with projection heads fitted on OpenMoji.

The heads are fitted contrastively on cached tower outputs, as in LiT (Zhai et al., 2022) with both towers locked.
The result is an ordinary open_clip checkpoint of a `CustomTextCLIP`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from jaxtyping import Float
from PIL.Image import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import ModelError
from mmmono.core.progress import progress_bar
from mmmono.vlm.demo_towers import efficientnet_state_dict, minilm_folder, minilm_state_dict
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder, OpenCLIPModel

NAME = "emojiclip"
WEIGHTS_FILE = "open_clip_model.safetensors"
REPORT_FILE = "fit.json"
CONFIG = Path(__file__).parent / "configs" / "emojiclip.json"


@dataclass(frozen=True)
class FitReport:
    """Settings and results of fitting the heads.

    Attributes:
        pairs: number of image-text pairs.
        seed: of initialization, batches and dropout.
        steps: of AdamW, with a one-cycle schedule.
        batch_size: pairs per step; each is contrasted with all others in the batch.
        learning_rate: at the peak of the schedule.
        weight_decay: of the heads.
        dropout: of the text tower's outputs; the image head has its own.
        loss: mean over the last tenth of the steps, in nats.
        temperature: learned factor of the cosine similarities, exp(logit_scale).
    """

    pairs: int
    seed: int
    steps: int = 200
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.4
    loss: float = float("nan")
    temperature: float = float("nan")


def fit_emojiclip(directory: Path, pairs: Iterable[tuple[Image, str]], seed: int = 0) -> FitReport:
    """Fit the heads on image-caption pairs and write the whole model into `directory`.

    Args:
        directory: receives `open_clip_model.safetensors` and `fit.json`.
        pairs: images of any size with their captions; iterated once.
        seed: of initialization, batches and dropout; the global random state is not changed.

    Raises:
        ModelError: the demo extra is missing, a tower's file has another digest, or there are fewer than two pairs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _with_pretrained_towers()
        image, text = _tower_outputs(encoder, pairs)
        if len(image) < 2:
            raise ModelError(f"EmojiCLIP cannot be fitted on {len(image)} pairs: it takes at least two")
        report = _fit_heads(encoder.model, image, text, FitReport(len(image), seed))
    state = {key: value.contiguous() for key, value in encoder.model.state_dict().items()}
    (directory / WEIGHTS_FILE).write_bytes(save(state))
    write_text_atomically(directory / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
    return report


def load_emojiclip(directory: Path, device: str | torch.device = "cpu") -> OpenCLIPEncoder:
    """Load the output of `fit_emojiclip` with open_clip.

    Raises:
        ModelError: the demo extra is missing, or `directory` contains no fitted model.
    """
    _register_architecture()
    return load_open_clip(NAME, str(directory / WEIGHTS_FILE)).to(device)


@cache
def _register_architecture() -> None:
    """Register `emojiclip` with open_clip, with the text tower's folder on this machine."""
    config = json.loads(CONFIG.read_text())
    config["text_cfg"] |= dict.fromkeys(("hf_model_name", "hf_tokenizer_name"), str(minilm_folder()))
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{NAME}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)


def _with_pretrained_towers() -> OpenCLIPEncoder:
    _register_architecture()
    encoder = load_open_clip(NAME, None)
    trunk = efficientnet_state_dict()
    encoder.model.visual.trunk.load_state_dict({key: trunk[key] for key in trunk if not key.startswith("classifier.")})
    encoder.model.text.transformer.load_state_dict(minilm_state_dict())
    return encoder


def _tower_outputs(
    encoder: OpenCLIPEncoder, pairs: Iterable[tuple[Image, str]], batch_size: int = 32
) -> tuple[Float[Tensor, "pairs image_width"], Float[Tensor, "pairs text_width"]]:
    """Return the outputs of the frozen towers, which are the inputs of the heads."""
    visual, text = encoder.model.visual, encoder.model.text
    heads = visual.head, text.proj
    visual.head, text.proj = nn.Identity(), nn.Identity()
    images, texts = [torch.empty(0)], [torch.empty(0)]
    with progress_bar() as bar, torch.no_grad():
        task = bar.add_task(f"fit {NAME}: tower outputs", total=None)
        for batch in _batches(pairs, batch_size):
            images.append(encoder.encode_image(torch.stack([encoder.preprocess(image) for image, _ in batch])))
            texts.append(encoder.encode_text(encoder.tokenize([caption for _, caption in batch])))
            bar.advance(task, len(batch))
    visual.head, text.proj = heads
    return torch.cat(images), torch.cat(texts)


def _fit_heads(
    model: OpenCLIPModel,
    image: Float[Tensor, "pairs image_width"],
    text: Float[Tensor, "pairs text_width"],
    plan: FitReport,
) -> FitReport:
    """Minimize CLIP's symmetric cross-entropy over the two heads and the temperature."""
    visual_head, text_head, logit_scale = model.visual.head.train(), model.text.proj, model.logit_scale
    parameters = [*visual_head.parameters(), *text_head.parameters(), logit_scale]
    for parameter in parameters:
        parameter.requires_grad_(True)
    image_scale, text_scale = image.std(), text.std()
    image, text = image / image_scale, text / text_scale
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters[:-1], "weight_decay": plan.weight_decay},
            {"params": [logit_scale], "weight_decay": 0.0},
        ],
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, plan.steps, pct_start=0.1)
    losses = []
    for _ in range(plan.steps):
        batch = torch.randperm(len(image))[: plan.batch_size]
        image_embedding = F.normalize(visual_head(image[batch]), dim=-1)
        text_embedding = F.normalize(text_head(F.dropout(text[batch], plan.dropout)), dim=-1)
        logits = logit_scale.exp() * image_embedding @ text_embedding.T
        target = torch.arange(len(batch))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():  # fold the inputs' scaling into the heads
        visual_head.mlp.fc1.weight /= image_scale
        text_head.weight /= text_scale
    model.eval().requires_grad_(False)
    last = losses[-max(1, plan.steps // 10) :]
    return FitReport(plan.pairs, plan.seed, loss=sum(last) / len(last), temperature=logit_scale.exp().item())


def _batches(pairs: Iterable[tuple[Image, str]], size: int) -> Iterator[list[tuple[Image, str]]]:
    iterator = iter(pairs)
    while batch := list(islice(iterator, size)):
        yield batch
