"""DrawingCLIP, the default model: two frozen pretrained towers with projection heads fitted on drawings with their names.

The heads are fitted contrastively on cached tower outputs, as in LiT (Zhai et al., 2022) with both towers locked. Features
of the image tower's own classes join the pairs, and the image head starts from its classifier (`mmmono.vlm.class_features`),
so that photographs are placed too.
The result is an ordinary open_clip checkpoint of a `CustomTextCLIP`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import ModelError
from mmmono.vlm.class_features import Classifier, class_features, imagenet_descriptions, start_as_classifier
from mmmono.vlm.demo_towers import efficientnet_state_dict
from mmmono.vlm.folding import folded
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder, OpenCLIPModel
from mmmono.vlm.tower_outputs import CONFIG, TEXT_WIDTH, load_pretrained_towers, register

NAME = "drawingclip"
WEIGHTS_FILE = "open_clip_model.safetensors"
REPORT_FILE = "fit.json"
TEMPERATURE = 90.0  # a modality gap like a real CLIP's; open_clip starts at 1 / 0.07
STEPS = 500
DESCRIPTIONS = 32  # of classes in a forward pass


@dataclass(frozen=True)
class FitReport:
    """Settings and results of fitting the heads.

    Attributes:
        pairs: number of image-text pairs.
        groups: number of groups of pairs that are not independent; each is drawn in proportion to the root of its size.
        seed: of initialization, batches, dropout and class features.
        class_features: per step, beside the pairs; 0 for none.
        steps: of AdamW, with a one-cycle schedule.
        batch_size: pairs per step; each is contrasted with all others in the batch, and class features with one another.
        learning_rate: at the peak of the schedule.
        weight_decay: of the heads.
        dropout: of the text tower's outputs; the image head has its own.
        temperature: factor of the cosine similarities, exp(logit_scale), at the start; it is learned, too. The larger, the
            farther apart images and texts stay (Liang et al. 2022, Mind the gap); open_clip's is 1 / 0.07.
        loss: mean over the last tenth of the steps, of pairs and class features together, in nats.
        last_temperature: the learned factor at the end.
    """

    pairs: int
    groups: int
    seed: int
    class_features: int = 320
    steps: int = STEPS
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.3
    temperature: float = TEMPERATURE
    loss: float = float("nan")
    last_temperature: float = float("nan")


@dataclass(frozen=True)
class Plan:
    """What can be chosen of a fit.

    Attributes:
        seed: of all that is random; the global random state is not changed.
        classes: whether features of the image tower's classes join the pairs, and the image head starts from its classifier.
        temperature, steps: see `FitReport`.
    """

    seed: int = 0
    classes: bool = True
    temperature: float = TEMPERATURE
    steps: int = STEPS


def fit_drawingclip(
    directory: Path,
    image: Float[Tensor, "pairs image_width"],
    text: Float[Tensor, "pairs text_width"],
    groups: Sequence[str] | None = None,
    plan: Plan | None = None,
) -> FitReport:
    """Fit the heads on the towers' outputs for pairs and write the whole model into `directory`.

    Args:
        directory: receives `open_clip_model.safetensors` and `fit.json`.
        image, text: outputs of the towers; see `mmmono.vlm.tower_outputs`.
        groups: group of each pair, such as a drawing's in all skin tones; by default each pair is its own.
        plan: what can be chosen of the fit; by default all defaults.

    Raises:
        ModelError: the demo extra is missing, a tower's file has another digest, or there are fewer than two pairs.
    """
    if len(image) < 2:
        raise ModelError(f"DrawingCLIP cannot be fitted on {len(image)} pairs: it takes at least two")
    of_pairs = np.unique(np.arange(len(image)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    plan = plan or Plan()
    report = FitReport(len(image), int(of_pairs.max()) + 1, plan.seed, steps=plan.steps, temperature=plan.temperature)
    report = report if plan.classes else replace(report, class_features=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        _register_architecture()
        encoder = load_open_clip(NAME, None)
        load_pretrained_towers(encoder)
        classifier = imagenet_classifier(encoder) if plan.classes else None
        batches = _Batches(image, text, torch.from_numpy(of_pairs), classifier)
        _start_heads(encoder.model, classifier, batches.image_scale)
        report = _fit_heads(encoder.model, batches, report)
    state = {key: value.contiguous() for key, value in encoder.model.state_dict().items()}
    (directory / WEIGHTS_FILE).write_bytes(save(state))
    write_text_atomically(directory / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
    return report


def load_drawingclip(directory: Path, device: str | torch.device = "cpu") -> OpenCLIPEncoder:
    """Load the output of `fit_drawingclip` with open_clip.

    Raises:
        ModelError: the demo extra is missing, or `directory` contains no fitted model.
    """
    _register_architecture()
    encoder = load_open_clip(NAME, str(directory / WEIGHTS_FILE))
    encoder.model.visual.trunk = folded(encoder.model.visual.trunk)
    return encoder.to(device)


@cache
def _register_architecture() -> None:
    register(NAME, json.loads(CONFIG.read_text(encoding="utf-8")))


def imagenet_classifier(encoder: OpenCLIPEncoder) -> Classifier:
    """Return the image tower's classifier, with the text tower's outputs for the names and definitions of its classes."""
    state = efficientnet_state_dict()
    head, encoder.model.text.proj = encoder.model.text.proj, nn.Identity()
    descriptions = imagenet_descriptions()
    order = sorted(range(len(descriptions)), key=lambda index: len(descriptions[index]))  # less padding: half the time
    names = torch.empty(len(descriptions), TEXT_WIDTH)
    with torch.no_grad():
        for start in range(0, len(order), DESCRIPTIONS):
            batch = order[start : start + DESCRIPTIONS]
            names[batch] = encoder.encode_text(encoder.tokenize([descriptions[index] for index in batch]))
    encoder.model.text.proj = head
    return Classifier(state["classifier.weight"], state["classifier.bias"], F.normalize(names, dim=1))


class _Batches:
    """Pairs and class features for one step, in units of the image outputs' and the text outputs' standard deviations.

    Attributes:
        image_scale, text_scale: these units.
    """

    def __init__(
        self,
        image: Float[Tensor, "pairs image_width"],
        text: Float[Tensor, "pairs text_width"],
        groups: Int[Tensor, " pairs"],
        classifier: Classifier | None,
    ) -> None:
        self.image, self.text = image, F.normalize(text, dim=1)
        self.draw = None if classifier is None else class_features(classifier, image)
        self.weights = groups.bincount()[groups].double().rsqrt()  # square-root sampling (Mahajan et al. 2018, 2.1)
        self.image_scale, self.text_scale = image.std(), text.std()
        self._unit_scale = self.text.std()

    def next(self, pairs: int, class_features: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return images and texts of so many pairs and then of so many class features, and how many there are of each.

        A group is drawn in proportion to the root of its size: some groups are one thing in many variants, others many
        things, such as all icons of one family.
        """
        chosen = torch.multinomial(self.weights, min(pairs, len(self.weights)))
        image, text, counts = self.image[chosen], self.text[chosen], [len(chosen)]
        if self.draw is not None:
            drawn = self.draw(class_features)
            image, text = torch.cat([image, drawn[0]]), torch.cat([text, drawn[1]])
            counts.append(class_features)
        return image / self.image_scale, text / self._unit_scale, counts


def _contrastive_loss(
    image: Float[Tensor, "rows dim"], text: Float[Tensor, "rows dim"], counts: Sequence[int]
) -> Float[Tensor, ""]:
    """CLIP's symmetric cross-entropy, its mean over rows, each contrasted with those of its own kind alone.

    A class feature's text is a mixture of names, which may well be that of a drawing.

    Args:
        image, text: row i of both belongs together; one of them has the temperature in it.
        counts: rows of each kind, in their order.
    """
    loss = torch.zeros(())
    for images, texts in zip(image.split(counts), text.split(counts), strict=True):
        logits, target = images @ texts.T, torch.arange(len(images))
        both = F.cross_entropy(logits, target, reduction="sum") + F.cross_entropy(logits.T, target, reduction="sum")
        loss = loss + both / (2 * len(image))
    return loss


def _start_heads(model: OpenCLIPModel, classifier: Classifier | None, image_scale: Tensor) -> None:
    """Texts start as similar to one another as their tower has them, images near the names of classes they are likely of."""
    nn.init.orthogonal_(model.text.proj.weight)
    if classifier is not None:
        mlp = model.visual.head.mlp
        start_as_classifier(classifier, (mlp.fc1, mlp.fc2), model.text.proj, image_scale)


def _fit_heads(model: OpenCLIPModel, batches: _Batches, plan: FitReport) -> FitReport:
    """Minimize the loss over the two heads and the temperature."""
    visual_head, text_head, logit_scale = model.visual.head.train(), model.text.proj, model.logit_scale
    parameters = [*visual_head.parameters(), *text_head.parameters(), logit_scale]
    for parameter in parameters:
        parameter.requires_grad_(True)
    nn.init.constant_(logit_scale, math.log(plan.temperature))
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
        image, text, counts = batches.next(plan.batch_size, plan.class_features)
        image_embedding = F.normalize(visual_head(image), dim=-1)
        text_embedding = logit_scale.exp() * F.normalize(text_head(F.dropout(text, plan.dropout)), dim=-1)
        loss = _contrastive_loss(image_embedding, text_embedding, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():  # fold the inputs' scaling into the heads
        visual_head.mlp.fc1.weight /= batches.image_scale
        text_head.weight /= batches.text_scale
    model.eval().requires_grad_(False)
    last = losses[-max(1, plan.steps // 10) :]
    return replace(plan, loss=sum(last) / len(last), last_temperature=logit_scale.exp().item())
