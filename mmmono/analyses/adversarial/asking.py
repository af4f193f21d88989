"""Ask the victim about every image, and let the judge decide which attacks succeeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmmono.analyses.adversarial.cases import Case
from mmmono.analyses.adversarial.moving import Folders
from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.case_studies.adversarial.judges import Judge
from mmmono.case_studies.adversarial.victims import Victim
from mmmono.core.progress import progress_bar


def ask(victim: Victim, cases: Sequence[Case], folders: Folders, seed: int) -> None:
    """Ask the victim about every image that it has not answered yet; each answer is saved at once.

    Raises:
        ConfigError: the GPU runs out of memory.
    """
    with progress_bar() as bar:
        task = bar.add_task("ask the victim", total=len(folders) * len(cases))
        for folder in folders.values():
            answered = folder.answers()
            for number, case in enumerate(cases):
                if number not in answered:
                    # Seed by case, so that all conditions of a case share their random draws.
                    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
                    answers = victim.answers(folder.image(number), case.request, case.benign.caption, state)
                    folder.keep_answers(number, answers)
                bar.advance(task)


def judged(judge: Judge, cases: Sequence[Case], folder: ConditionFolder) -> list[list[bool | None]]:
    """Return the verdict on each answer of each case; None for an answer without a verdict.

    Raises:
        ConfigError, ModelError: the judge cannot be asked.
    """
    answers = folder.answers()
    asked = [(case.request.text, answer) for number, case in enumerate(cases) for answer in answers[number]]
    verdicts = iter(judge.verdicts(asked))
    return [[next(verdicts) for _ in answers[number]] for number in range(len(cases))]
