"""Attack an image encoder, defend with classes of features, and measure which defense undoes the attack.

Each image and answer is saved as soon as it is made, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from hydra.utils import instantiate
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmmono.analyses.adversarial import AlignmentSettings, Settings
from mmmono.analyses.adversarial.asking import ask, judged
from mmmono.analyses.adversarial.attack_images import AttackImages
from mmmono.analyses.adversarial.cases import Defense, draw_cases, draw_defenses
from mmmono.analyses.adversarial.counting import Counted, Margins, count, table3
from mmmono.analyses.adversarial.moving import Folders, attack, carry_out, defend, friendly_pixels, save_given
from mmmono.case_studies.adversarial.alignment import Alignment
from mmmono.case_studies.adversarial.folder import IMAGES, ConditionFolder
from mmmono.case_studies.adversarial.judges import Judge
from mmmono.case_studies.adversarial.outcomes import ATTACKED, BENIGN, CONTRAST, Condition
from mmmono.case_studies.adversarial.requests import read_requests
from mmmono.case_studies.adversarial.victims import Victim
from mmmono.core.errors import ConfigError
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import finished_features
from mmmono.pipeline.maker import encoder_of_pairs
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.vlm import Encoder


def prepare(workspace: Workspace) -> Study:
    """Attack, defend with classes of features, and measure the attack's success (Table 3, Figure 8).

    Raises:
        ConfigError: a setting is invalid.
        DataError: requests or images are missing or unreadable.
    """
    study = AttackStudy(workspace)
    return Study(study.recipe(), study.compute, resumable=True)


class AttackStudy:
    """The attack study; the constructor checks settings and inputs before any heavy computation.

    Raises:
        ConfigError: a setting is invalid.
        DataError: requests or images are missing or unreadable.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = read_settings(workspace.cfg, "adversarial", Settings)
        self.match = workspace.settings.random_sets
        self.requests = read_requests(self.settings.requests)
        self.attack = _alignment("attack", self.settings.attack)
        self.defense = _alignment("defense", self.settings.defense)
        self.victim: Victim = instantiate(workspace.cfg.victim)
        self.judge: Judge = self.victim.own_judge or instantiate(workspace.cfg.judge)
        if finished_features(workspace, workspace.dataset.whole_split()) is None:  # check before hours of extraction
            self._check()
        images = AttackImages(workspace, self.settings)
        self.contrasts = [images.contrast(request) for request in self.requests]
        self.benign = images.benign()
        self.cases = draw_cases(self.requests, self.contrasts, self.benign, self.settings.runs, workspace.seed)

    def _check(self) -> None:
        """Raise an error if the victim or the judge is not available."""
        self.victim.check()
        self.judge.check()

    def recipe(self) -> dict[str, object]:
        """Everything that determines the results; the batch size does not. The requests' file counts by its content."""
        settings = {key: value for key, value in asdict(self.settings).items() if key not in ("batch_size", "requests")}
        return {
            **self.workspace.partitions_recipe(),
            "features": self.workspace.features(self.workspace.dataset.split).recipe,
            "model": self.workspace.model.identity,
            "adversarial": settings,
            "random_sets": self.match,
            "requests": [asdict(request) for request in self.requests],
            "benign": [[one.caption, _digest(one.image)] for one in self.benign],
            "contrasts": [_digest(image) if image else None for image in self.contrasts],
            "victim": {**self.victim.identity(), "measure": self.victim.measure},
            "judge": self.judge.identity(),
            "seed": self.workspace.seed,
        }

    def compute(self, folder: Path) -> Tables:
        """Attack, defend, ask the victim, judge its answers, and count the successes."""
        self._check()
        workspace, cases = self.workspace, self.cases
        defenses = draw_defenses(workspace, self.settings)
        encoder = encoder_of_pairs(workspace, "an attack")
        self.victim.load(encoder, workspace.device)
        given = [Condition(BENIGN), Condition(CONTRAST), Condition(ATTACKED)]
        folders = {
            condition: ConditionFolder(folder / IMAGES / condition.slug, len(cases))
            for condition in (*given, *(defense.condition for defense in defenses))
        }
        self._make_images(folders, defenses, encoder)
        ask(self.victim, cases, folders, workspace.seed)
        verdicts = {condition: judged(self.judge, cases, images) for condition, images in folders.items()}
        margins = Margins(encoder, cases, self.settings.batch_size, workspace.device)
        carried = {defense.condition: defense.carried for defense in defenses}
        outcomes = count(Counted(cases, folders, verdicts, carried), margins, self.match)
        return {
            "table3": table3(outcomes),
            "distances": [row for outcome in outcomes for row in outcome.distance_rows()],
            "cases": [case.to_row(number) for number, case in enumerate(cases)],
        }

    def _make_images(self, folders: Folders, defenses: Sequence[Defense], encoder: Encoder) -> None:
        """Save the images of all conditions."""

        def embed(pixels: Tensor) -> Tensor:
            embeddings = encoder.encode_pixels(pixels)
            return F.normalize(embeddings, dim=1) if self.workspace.settings.features.normalize else embeddings

        save_given(self.cases, folders, encoder)
        friendly = friendly_pixels(self.cases, encoder, self.settings.friendly_text)
        moves = [
            attack(folders, embed, self.attack),
            *(defend(defense, folders, friendly, embed, self.defense) for defense in defenses),
        ]
        carry_out(moves, self.cases, self.settings.batch_size, self.workspace.device)


def _alignment(name: str, settings: AlignmentSettings) -> Alignment:
    try:
        return Alignment(**asdict(settings))
    except ConfigError as error:
        raise ConfigError(f"adversarial.{name}.{error}") from error


def _digest(image: Image.Image) -> str:
    return sha256(repr((image.size, image.mode)).encode() + image.tobytes()).hexdigest()[:16]
