"""Victims: the models that see the attacked images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch.nn import functional as F

from mmmono.case_studies.adversarial.judges import Judge
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.weights import check_model
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import unchanged, weights_identity
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.vlm import Encoder
from mmmono.vlm.hub import hub_or_cache, hub_reason

INSTEAD = "check its name and the network, give a local folder, or use victim=clip_zero_shot"


class Victim(ABC):
    """A model that answers a request about an image.

    Attributes:
        measure: name of the success rate in tables and figures.
        own_judge: judge to use instead of the configured one, if any.
    """

    measure: str
    own_judge: Judge | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that determines the answers, for the cache key of results."""

    def check(self) -> None:  # noqa: B027 - not every victim needs a check
        """Check that the victim is available, before long computations start. Raises ModelError if not."""

    @abstractmethod
    def load(self, encoder: Encoder, device: str) -> None:
        """Load the victim.

        Args:
            encoder: the attacked encoder.
            device: device to compute on.

        Raises:
            ModelError: the weights cannot be loaded.
        """

    @abstractmethod
    def answers(self, image: Image, request: Request, benign: str, seed: int) -> list[str]:
        """Return the victim's answers, one per repeat.

        Args:
            image: benign, contrast, attacked or defended image.
            request: request that the image was attacked with.
            benign: caption of the benign image.
            seed: seed of the sampling.
        """


class ClipZeroShot(Victim):
    """The attacked encoder itself: the attack succeeds if the image is closer to the request than to the benign text.

    This measures success in the embedding space; no model generates text.

    Args:
        retrieves: compare with the `concept` of the request or with the whole `request`.

    Raises:
        ConfigError: `retrieves` is unknown.
    """

    measure = "embedding-level success"

    def __init__(self, retrieves: Literal["concept", "request"] = "concept") -> None:
        if retrieves not in ("concept", "request"):
            raise ConfigError(f"victim.retrieves={retrieves} is none of concept, request")
        self.retrieves = retrieves
        self.own_judge = _Retrieved()
        self._encoder: Encoder | None = None
        self._device = "cpu"

    def identity(self) -> dict[str, Any]:
        """The name of the victim and the text it compares with."""
        return {"victim": "clip_zero_shot", "retrieves": self.retrieves}

    def load(self, encoder: Encoder, device: str) -> None:
        """Keep the attacked encoder and the device."""
        self._encoder, self._device = encoder, device

    def text_of(self, request: Request) -> str:
        """Return the text of the request to compare with."""
        return request.concept if self.retrieves == "concept" else request.text

    def answers(self, image: Image, request: Request, benign: str, seed: int) -> list[str]:
        """Return which text has the larger cosine with the image, REQUESTED or UNCHANGED; a tie is UNCHANGED."""
        assert self._encoder is not None
        with torch.inference_mode():
            embedding = self._encoder.encode_image(self._encoder.preprocess(image)[None].to(self._device))
            tokens = self._encoder.tokenize([self.text_of(request), benign]).to(self._device)
            cosines = F.cosine_similarity(embedding, self._encoder.encode_text(tokens))
        return [REQUESTED if bool(cosines[0] > cosines[1]) else UNCHANGED]


REQUESTED, UNCHANGED = "the request's text", "the benign text"


class _Retrieved(Judge):
    """Judge of `ClipZeroShot`: a success if the image retrieves the request's text."""

    def identity(self) -> dict[str, Any]:
        """The name of the judge; it has no settings."""
        return {"judge": "retrieved"}

    def verdicts(self, asked: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Decide whether each answer is REQUESTED."""
        return [answer == REQUESTED for _, answer in asked]


@dataclass(eq=False)
class Llava(Victim):
    """A LLaVA model of transformers that gets the image with the request as its prompt (Section 4.2).

    Attributes:
        model: hub id or local folder.
        prompt: prompt template; `{request}` is filled in, `<image>` marks the place of the image.
        repeats: number of answers sampled per image.
        max_new_tokens: maximum length of an answer in tokens.
        temperature: sampling temperature; 0 decodes greedily, so that all repeats are equal.
        batch_size: answers generated at a time.
        dtype: PyTorch type of the weights.

    Raises:
        ConfigError: a setting is invalid.
    """

    measure = "attack success rate"

    model: str
    prompt: str
    repeats: int = 100
    max_new_tokens: int = 256
    temperature: float = 1.0
    batch_size: int = 20
    dtype: str = "float16"

    def __post_init__(self) -> None:
        for name in ("repeats", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"victim.{name}={getattr(self, name)} must be at least 1")
        if self.temperature < 0:
            raise ConfigError(f"victim.temperature={self.temperature} must not be negative")
        if "<image>" not in self.prompt or "{request}" not in self.prompt:
            raise ConfigError(f"victim.prompt={self.prompt!r} must hold <image> and {{request}}")
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ConfigError(f"victim.dtype={self.dtype} is no type of PyTorch: choose float32, float16 or bfloat16")
        self._device = "cpu"
        self._loaded: tuple[Any, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """All settings; includes `batch_size`, because the answers of a batch are sampled together."""
        return {"victim": "llava", **asdict(self), "model": self.weights}

    @cached_property
    def weights(self) -> str:
        """What identifies the weights, when it was first asked for."""
        return weights_identity(self.model)

    def check(self) -> None:
        """Raise ModelError unless the weights are in a folder or in the hub's cache, or can be downloaded."""
        check_model("victim.model", self.model, INSTEAD)

    def load(self, encoder: Encoder | None, device: str) -> None:
        """Load processor and weights; the attacked encoder is not used, and may be None.

        Raises:
            ModelError: they cannot be had, or a folder was changed since `weights`.
        """
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        files = f"the files of victim.model={self.model}"
        with unchanged(self.weights, lambda: weights_identity(self.model), files):
            try:
                with hub_or_cache():
                    processor = AutoProcessor.from_pretrained(self.model)
                    model = LlavaForConditionalGeneration.from_pretrained(self.model, dtype=getattr(torch, self.dtype))
            except Exception as error:  # transformers passes on all errors of the hub client
                raise ModelError(f"victim.model={self.model} cannot be had ({hub_reason(error)}): {INSTEAD}") from error
        self._device = device
        self._loaded = processor, model.eval().requires_grad_(False).to(device)

    @property
    def parts(self) -> tuple[Any, Any]:
        """Processor and model of transformers; `load` loads them."""
        assert self._loaded is not None
        return self._loaded

    def inputs(self, image: Image, text: str) -> Any:
        """What the model takes of an image and a text with `<image>` in it, on its device and in its type."""
        inputs = self.parts[0](images=image.convert("RGB"), text=text, return_tensors="pt")
        return inputs.to(self._device, getattr(torch, self.dtype))

    @property
    def less_memory(self) -> str:
        """What to do where a GPU has too little memory; see `enough_gpu_memory`."""
        smaller = "" if self.dtype != "float32" else ", or set victim.dtype=float16"
        return f"lower victim.batch_size={self.batch_size} or victim.max_new_tokens={self.max_new_tokens}{smaller}"

    def answers(self, image: Image, request: Request, benign: str, seed: int) -> list[str]:
        """Generate `repeats` answers in batches.

        Raises:
            ConfigError: the GPU runs out of memory.
        """
        processor, model = self.parts
        inputs = self.inputs(image, self.prompt.replace("{request}", request.text))
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        texts: list[str] = []
        own = [self._device] if self._device.startswith("cuda") else []  # not those of all GPUs of the machine
        with torch.random.fork_rng(own), torch.inference_mode():
            torch.manual_seed(seed)
            while len(texts) < self.repeats:
                count = min(self.batch_size, self.repeats - len(texts)) if self.temperature else 1
                with enough_gpu_memory(self.less_memory):
                    tokens = model.generate(
                        **inputs, **sampling, num_return_sequences=count, max_new_tokens=self.max_new_tokens
                    )
                answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                texts += answers if self.temperature else answers * self.repeats
        return [text.strip() for text in texts]
