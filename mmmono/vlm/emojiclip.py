"""EmojiCLIP, the default model: two frozen pretrained towers with projection heads fitted on OpenMoji.

The heads are fitted contrastively on cached tower outputs, as in LiT (Zhai et al., 2022) with both towers locked.
The result is an ordinary open_clip checkpoint of a `CustomTextCLIP`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import ModelError
from mmmono.vlm.demo_towers import minilm_folder
from mmmono.vlm.folding import fold_batch_norms
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder, OpenCLIPModel
from mmmono.vlm.tower_outputs import CONFIG, load_pretrained_towers

NAME = "emojiclip"
WEIGHTS_FILE = "open_clip_model.safetensors"
REPORT_FILE = "fit.json"


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


def fit_emojiclip(
    directory: Path,
    image: Float[Tensor, "pairs image_width"],
    text: Float[Tensor, "pairs text_width"],
    seed: int = 0,
) -> FitReport:
    """Fit the heads on the towers' outputs for pairs and write the whole model into `directory`.

    Args:
        directory: receives `open_clip_model.safetensors` and `fit.json`.
        image, text: outputs of the towers; see `mmmono.vlm.tower_outputs`.
        seed: of initialization, batches and dropout; the global random state is not changed.

    Raises:
        ModelError: the demo extra is missing, a tower's file has another digest, or there are fewer than two pairs.
    """
    if len(image) < 2:
        raise ModelError(f"EmojiCLIP cannot be fitted on {len(image)} pairs: it takes at least two")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _register_architecture()
        encoder = load_open_clip(NAME, None)
        load_pretrained_towers(encoder)
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
    encoder = load_open_clip(NAME, str(directory / WEIGHTS_FILE))
    fold_batch_norms(encoder.model.visual.trunk)
    return encoder.to(device)


@cache
def _register_architecture() -> None:
    """Register `emojiclip` with open_clip, with the text tower's folder on this machine."""
    config = json.loads(CONFIG.read_text())
    config["text_cfg"] |= dict.fromkeys(("hf_model_name", "hf_tokenizer_name"), str(minilm_folder()))
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{NAME}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)


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
