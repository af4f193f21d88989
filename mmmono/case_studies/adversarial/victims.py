"""Victims: what an attacked picture is shown to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch.nn import functional as F

from mmmono.case_studies.adversarial.judges import Judge
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.weights import check_model
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import weights_identity
from mmmono.vlm import DualEncoder
from mmmono.vlm.hub import hub_or_cache, hub_reason

INSTEAD = "check its name and the network, give a local folder, or use victim=clip_zero_shot"


class Victim(ABC):
    """A model that answers a picture with a request.

    Attributes:
        measure: what a share of successes is called.
        own_judge: judges its answers in place of the configured judge, if there is one.
    """

    measure: str
    own_judge: Judge | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What determines the answers, for recipes."""

    def check(self) -> None:  # noqa: B027 - not every victim is downloaded
        """Look whether the victim can be had, before anything heavy is done. Raises ModelError if not."""

    @abstractmethod
    def load(self, encoder: DualEncoder, device: str) -> None:
        """Get ready.

        Args:
            encoder: the one that was attacked.
            device: where to compute.

        Raises:
            ModelError: weights cannot be had.
        """

    @abstractmethod
    def answers(self, picture: Image, request: Request, benign: str, seed: int) -> list[str]:
        """Its answers, one a repeat.

        Args:
            picture: attacked, defended or benign.
            request: what the picture was attacked with.
            benign: caption of the picture before that.
            seed: of whatever is drawn.
        """


class ClipZeroShot(Victim):
    """The attacked encoder itself: which text does the picture retrieve, the request's or the benign one's?

    It answers with that text. A success is one of embeddings; no model was made to say anything.

    Args:
        retrieves: whether the request's side is its `concept` or the whole `request`.

    Raises:
        ConfigError: `retrieves` is neither.
    """

    measure = "embedding-level success"

    def __init__(self, retrieves: Literal["concept", "request"] = "concept") -> None:
        if retrieves not in ("concept", "request"):
            raise ConfigError(f"victim.retrieves={retrieves} is none of concept, request")
        self.retrieves = retrieves
        self.own_judge = _Retrieved()
        self._encoder: DualEncoder | None = None
        self._device = "cpu"

    def identity(self) -> dict[str, Any]:
        """What is retrieved."""
        return {"victim": "clip_zero_shot", "retrieves": self.retrieves}

    def load(self, encoder: DualEncoder, device: str) -> None:
        """Keep the attacked encoder."""
        self._encoder, self._device = encoder, device

    def wanted(self, request: Request) -> str:
        """The text on the request's side."""
        return request.concept if self.retrieves == "concept" else request.text

    def answers(self, picture: Image, request: Request, benign: str, seed: int) -> list[str]:
        """The text whose embedding has the larger cosine; the benign one where both are equal."""
        assert self._encoder is not None
        with torch.inference_mode():
            image = self._encoder.encode_image(self._encoder.preprocess(picture)[None].to(self._device))
            tokens = self._encoder.tokenize([self.wanted(request), benign]).to(self._device)
            cosines = F.cosine_similarity(image, self._encoder.encode_text(tokens))
        return [REQUESTED if bool(cosines[0] > cosines[1]) else UNCHANGED]


REQUESTED, UNCHANGED = "the request's text", "the benign text"


class _Retrieved(Judge):
    """Verdicts on what was retrieved."""

    def identity(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {"judge": "retrieved"}

    def verdicts(self, asked: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Whether the request's text was."""
        return [answer == REQUESTED for _, answer in asked]


class Llava(Victim):
    """A LLaVA of transformers that is shown the picture with the request as its prompt (Section 4.2).

    Args:
        model: hub id or local folder.
        prompt: `{request}` is filled in; `<image>` stands where the picture goes.
        repeats: answers to each picture, drawn independently.
        max_new_tokens: most of an answer.
        temperature: of the draws; 0 takes the likeliest token, and then all repeats are alike.
        batch_size: answers generated at a time.
        dtype: of the weights, as PyTorch names it.

    Raises:
        ConfigError: a setting that cannot work.
    """

    measure = "attack success rate"

    def __init__(
        self,
        model: str,
        prompt: str,
        repeats: int = 100,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        batch_size: int = 20,
        dtype: str = "float16",
    ) -> None:
        if min(repeats, max_new_tokens, batch_size) < 1:
            raise ConfigError("victim.repeats, victim.max_new_tokens and victim.batch_size must be at least 1")
        if temperature < 0:
            raise ConfigError(f"victim.temperature={temperature} must not be negative")
        if "<image>" not in prompt or "{request}" not in prompt:
            raise ConfigError(f"victim.prompt={prompt!r} must hold <image> and {{request}}")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ConfigError(f"victim.dtype={dtype} is no type of PyTorch: choose float32, float16 or bfloat16")
        self.model = model
        self.prompt = prompt
        self.repeats = repeats
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.batch_size = batch_size
        self.dtype = dtype
        self._device = "cpu"
        self._loaded: tuple[Any, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """Model and how it is asked; answers of one batch are drawn together, so that its size decides what is drawn."""
        return {
            "victim": "llava",
            "model": weights_identity(self.model),
            "prompt": self.prompt,
            "repeats": self.repeats,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "batch_size": self.batch_size,
            "dtype": self.dtype,
        }

    def check(self) -> None:
        """Its weights are in a folder, in the hub's cache, or can be downloaded."""
        check_model("victim.model", self.model, INSTEAD)

    def load(self, encoder: DualEncoder, device: str) -> None:
        """Load processor and weights; the attacked encoder is no part of it."""
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        try:
            with hub_or_cache():
                processor = AutoProcessor.from_pretrained(self.model)
                model = LlavaForConditionalGeneration.from_pretrained(self.model, dtype=getattr(torch, self.dtype))
        except Exception as error:  # transformers passes on whatever the hub's client raises
            raise ModelError(f"victim.model={self.model} cannot be had ({hub_reason(error)}): {INSTEAD}") from error
        self._device = device
        self._loaded = processor, model.eval().requires_grad_(False).to(device)

    def answers(self, picture: Image, request: Request, benign: str, seed: int) -> list[str]:
        """Generate the repeats, batch by batch.

        Raises:
            ConfigError: out of GPU memory.
        """
        assert self._loaded is not None
        processor, model = self._loaded
        prompt = self.prompt.replace("{request}", request.text)
        inputs = processor(images=picture.convert("RGB"), text=prompt, return_tensors="pt")
        inputs = inputs.to(self._device, getattr(torch, self.dtype))
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        texts: list[str] = []
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            while len(texts) < self.repeats:
                count = min(self.batch_size, self.repeats - len(texts)) if self.temperature else 1
                try:
                    tokens = model.generate(
                        **inputs, **sampling, num_return_sequences=count, max_new_tokens=self.max_new_tokens
                    )
                except torch.OutOfMemoryError as error:
                    raise ConfigError(
                        f"out of GPU memory with victim.batch_size={self.batch_size}: lower it, lower "
                        f"victim.max_new_tokens={self.max_new_tokens}, or set victim.dtype=float16"
                    ) from error
                answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                texts += answers if self.temperature else answers * self.repeats
        return [text.strip() for text in texts]
