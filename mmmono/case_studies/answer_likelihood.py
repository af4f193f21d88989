"""How likely a LLaVA is to say something of an image: mean log-probability of words as the continuation of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from PIL.Image import Image
from torch import Tensor

from mmmono.case_studies.adversarial.victims import Llava
from mmmono.core.gpu_memory import enough_gpu_memory


def mean_log_probabilities(
    llava: Llava, image: Image, question: str, lead: str, words: Sequence[str]
) -> Float64[Tensor, " words"]:
    """Mean log-probability, in nats, of the tokens of each word or phrase as what comes next.

    Args:
        llava: the model, loaded.
        image: what it is asked about.
        question: what it is asked.
        lead: how its answer begins, such as `The image shows`; may be empty.
        words: words or phrases that may come next.

    Raises:
        ConfigError: the GPU runs out of memory.
    """
    prompt = " ".join(part for part in (llava.prompt.replace("{request}", question), lead) if part)
    prefix = llava.inputs(image, prompt)["input_ids"][0]
    rows, starts, pixels = [], [], None
    for word in words:
        inputs = llava.inputs(image, f"{prompt} {word}")
        rows.append(inputs["input_ids"][0])
        starts.append(_shared(prefix, rows[-1]))
        pixels = inputs["pixel_values"]
    if pixels is None:
        return torch.empty(0, dtype=torch.float64)
    parts = range(0, len(rows), llava.batch_size)
    return torch.cat([
        _means(llava, pixels, rows[at : at + llava.batch_size], starts[at : at + llava.batch_size]) for at in parts
    ])  # fmt: skip


def _shared(prefix: Tensor, row: Tensor) -> int:
    """Number of first tokens that are the same; at least one token of the row is left."""
    count = min(len(prefix), len(row) - 1)
    different = (prefix[:count] != row[:count]).nonzero()
    return int(different[0]) if len(different) else count


def _means(llava: Llava, pixels: Tensor, rows: Sequence[Tensor], starts: Sequence[int]) -> Float64[Tensor, " rows"]:
    """Mean log-probability of the tokens of each row from its start on; rows are padded on the right, which none sees."""
    model = llava.parts[1]
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    kept = ids.shape[1] - min(starts) + 1  # the logits that tell of the first counted token, and all after them
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device)
    with enough_gpu_memory(llava.less_memory), torch.inference_mode():
        logits = model(
            input_ids=ids, attention_mask=(places < lengths[:, None]).long(), logits_to_keep=kept,
            pixel_values=pixels.expand(len(rows), *pixels.shape[1:]),
        ).logits  # fmt: skip
    own = logits[:, :-1].double().log_softmax(-1).gather(2, ids[:, 1 - kept :, None])[..., 0]
    counted = (places[1 - kept :] >= torch.tensor(starts, device=ids.device)[:, None]) & (
        places[1 - kept :] < lengths[:, None]
    )
    return ((own * counted).sum(1) / counted.sum(1)).cpu()
