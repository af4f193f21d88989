"""Ask a vision-language model about images, with and without a steered feature; what it says is saved answer by answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from PIL import Image
from torch import Tensor

from mmmono.analyses.steered_answers import Settings
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.adversarial.victims import Llava
from mmmono.case_studies.answer_likelihood import mean_log_probabilities
from mmmono.case_studies.visual_tokens import Steering, steered_tokens
from mmmono.core.lines import append_lines, read_lines


@dataclass(frozen=True)
class Said:
    """What the model says of every image.

    Attributes:
        answers: its answers.
        log_probabilities: mean log-probability of each name as the answer.
    """

    answers: list[str]
    log_probabilities: Float64[Tensor, "images names"]


class Interview:
    """Asks about images, one steered feature after another; goes on where it was interrupted.

    Args:
        llava: the model, loaded.
        images: what it is asked about, each by the position of its pair in the split: which images can be read may differ
            when an interrupted run goes on.
        names: words whose likelihood is looked at.
        settings: the question, and how the answer begins.
        file: where answers are saved.
        seed: of answers that are sampled.
    """

    def __init__(
        self,
        llava: Llava,
        images: Mapping[int, Image.Image],
        names: Sequence[str],
        settings: Settings,
        file: Path,
        seed: int,
    ) -> None:
        self._llava, self._images, self._names, self._settings = llava, images, names, settings
        self._file, self._seed = file, seed
        self._known = {(line["of"], line["row"]): line for line in read_lines(file)}

    def ask(self, of: str, steering: Steering | None = None, advance: Callable[[], None] = lambda: None) -> Said:
        """Ask about every image.

        Args:
            of: what is steered, under which answers are saved.
            steering: steers visual tokens; None: nothing does.
            advance: called after each image.

        Raises:
            ConfigError: the GPU runs out of memory.
        """
        answers, likely = [], []
        for row in self._images:
            if (of, row) not in self._known:
                self._known[of, row] = self._asked(of, row, steering)
                append_lines(self._file, [self._known[of, row]])
            answers.append(str(self._known[of, row]["answer"]))
            likely.append(torch.tensor(self._known[of, row]["log_probabilities"], dtype=torch.float64))
            advance()
        return Said(answers, torch.stack(likely))

    def _asked(self, of: str, row: int, steering: Steering | None) -> dict[str, object]:
        image, settings = self._images[row], self._settings
        hook: AbstractContextManager[None] = nullcontext()
        if steering is not None:
            hook = steered_tokens(self._llava.parts[1], steering)
        with hook:
            [answer, *_] = self._llava.answers(image, Request(settings.question, ""), "", self._seed + row)
            likely = mean_log_probabilities(self._llava, image, settings.question, settings.lead, self._names)
        return {"of": of, "row": row, "answer": answer, "log_probabilities": likely.tolist()}
