"""Names by a language model, which sees samples that activate a feature and samples that do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from jaxtyping import Float
from torch import Tensor

from mmmono.analyses.names import Settings
from mmmono.analyses.names.choice import LEAST_ACTIVE
from mmmono.analyses.names.words import caption_column
from mmmono.case_studies.adversarial.judges import OpenAICompatible
from mmmono.core.chat import ChatModel, KeptReplies, digest_of
from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.features import Modality
from mmmono.interpretability.activity import ActivityRule
from mmmono.interpretability.name_asking import check_prompt, naming_message, read_name, shown_samples
from mmmono.pipeline.held_out import PairSample
from mmmono.pipeline.workspace import Workspace

TOKENS = 40  # of a reply
SIDES_OF: dict[str, tuple[Modality, ...]] = {"ImgD": ("image",), "TextD": ("text",), "CrossD": ("image", "text")}


@dataclass(frozen=True)
class NamingJudge:
    """A language model that names features, with what it replied before.

    Attributes:
        chat: the model at its endpoint.
        prompt: with places for the samples of either kind.
        cache: folder of the replies; None keeps none.
    """

    chat: ChatModel
    prompt: str
    cache: Path | None

    @classmethod
    def of(cls, workspace: Workspace) -> NamingJudge | None:
        """Return the judge that is chosen; None if none is.

        Raises:
            ConfigError: the judge cannot name features, has no key, or its prompt lacks a place.
        """
        chosen = workspace.cfg.judge
        if "_target_" not in chosen:
            return None
        kind = get_class(str(chosen._target_))
        if not issubclass(kind, OpenAICompatible):
            raise ConfigError(
                f"a judge of the kind {kind.__name__} gives verdicts, no names: choose judge=openai_compatible, or leave "
                "judge= out"
            )
        try:
            check_prompt(chosen.prompt)
        except ValueError as error:
            raise ConfigError(f"judge.prompt {error}") from error
        judge: OpenAICompatible = instantiate(chosen)
        judge.chat.gives = "name"
        return cls(judge.chat, judge.prompt, None if judge.cache is None else Path(judge.cache))

    def recipe(self, settings: Settings) -> dict[str, Any]:
        """Everything that determines which names are given to which samples."""
        return {**self.chat.identity(), "prompt": self.prompt, "samples": settings.samples, "judged": settings.judged}

    def names(self, messages: dict[int, str]) -> dict[int, str]:
        """Ask for the names that no earlier run was told; a feature whose reply is no name has an empty one.

        Args:
            messages: by feature.

        Raises:
            ConfigError: the endpoint refuses the key or the model.
            ModelError: the endpoint does not answer or violates the protocol. Replies received before are kept.
        """
        file = None if self.cache is None else self.cache / f"{digest_of({'names': self.chat.identity()})}.jsonl"
        kept = KeptReplies(file, "reply")
        keys = {feature: digest_of(message) for feature, message in messages.items()}
        new = {key: messages[feature] for feature, key in keys.items() if key not in kept}
        replies = self.chat.replies(list(new.values()), TOKENS)
        with progress_bar() as bar:
            for key, reply in bar.track(zip(new, replies, strict=True), len(new), description="names asked for"):
                kept.keep(key, reply)
        return {feature: read_name(kept[key]) for feature, key in keys.items()}


@dataclass(frozen=True)
class Shown:
    """What the features of a set are active on, among the pairs that names are chosen by.

    Attributes:
        classes: class of each feature.
        rule: says which sample activates which feature.
        strength: activations by modality.
    """

    classes: list[Any]
    rule: ActivityRule
    strength: dict[Modality, Float[Tensor, "pairs features"]]

    def asked(self, judged: int | None) -> dict[int, list[Modality]]:
        """Sides of the live features that enough samples on the side of their class activate, of CrossD on either side.

        Of more than `judged` features, those with the largest energy are asked about.
        """
        energy = torch.stack([side.double().square().sum(0) for side in self.strength.values()]).sum(0)
        active = {side: self.rule.active(strength, side).sum(0) for side, strength in self.strength.items()}
        sides = {
            feature: [side for side in SIDES_OF.get(of, ()) if int(active[side][feature]) >= LEAST_ACTIVE]
            for feature, of in enumerate(self.classes)
        }
        found = sorted((f for f in sides if sides[f]), key=lambda feature: -float(energy[feature]))
        return {feature: sides[feature] for feature in sorted(found[:judged])}


def messages_about(shown: Shown, pairs: PairSample, prompt: str, settings: Settings, seed: int) -> dict[int, str]:
    """Message about each feature that is asked about, with samples on the side of its class, of CrossD on both.

    A feature without a sample of either kind that has a text is not asked about.
    """
    texts = {m: pairs.metadata[caption_column(m, settings)].tolist() for m in shown.strength}
    made = {}
    for feature, sides in shown.asked(settings.judged).items():
        count = -(-settings.samples // len(sides))
        active: list[str] = []
        inactive: list[str] = []
        rng = np.random.default_rng((seed, feature))
        for side in sides:
            strength = (shown.strength[side][:, feature] * shown.rule.sign[feature]).numpy()
            members = strength > float(shown.rule.threshold[side][feature])
            before = {*active, *inactive}
            top, others = shown_samples(strength, members, pairs.groups, texts[side], count, rng, before)
            active += top
            inactive += others
        if active and inactive:
            made[feature] = naming_message(prompt, active, inactive)
    return made
