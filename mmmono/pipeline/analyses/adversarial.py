"""`experiments/adversarial.py`: which features carry an attack, and which defend against it? (Section 4.2)

Each image and answer is saved as soon as it is made, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

from mmmono.case_studies.adversarial.alignment import Alignment, Features, align
from mmmono.case_studies.adversarial.folder import PictureFolder
from mmmono.case_studies.adversarial.judges import Judge
from mmmono.case_studies.adversarial.outcomes import (
    ALL,
    ATTACKED,
    BENIGN,
    CONTRAST,
    RANDOM,
    AttackOutcome,
    Condition,
    attack_outcome,
    defending_features,
)
from mmmono.case_studies.adversarial.requests import Request, read_requests
from mmmono.case_studies.adversarial.typography import text_picture, with_text
from mmmono.case_studies.adversarial.victims import Victim
from mmmono.case_studies.pictures import Picture
from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.features import FeatureSet
from mmmono.modality import LIVE_CLASSES
from mmmono.pipeline.analyses.attack_pictures import AttackPictures
from mmmono.pipeline.pictures import finished_features
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.adversarial_figures import AttackExample, attack_examples, success_by_size
from mmmono.reporting.published import published
from mmmono.reporting.rows import adversarial_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table
from mmmono.vlm import DualEncoder

Pixels = Callable[[Sequence[int]], Tensor]


def study_attacks(workspace: Workspace) -> None:
    """Attack, defend with classes of features, and measure the attack's success (Table 3, Figure 8).

    Raises:
        ConfigError: a setting is invalid.
        DataError: requests or images are missing or unreadable.
    """
    study = AttackStudy(workspace)
    artifact = workspace.results("adversarial", study.recipe(), study.make, resumable=True)
    _show(workspace, study, artifact.path)


@dataclass(frozen=True)
class Case:
    """A benign image that is attacked with a request."""

    run: int
    request_number: int
    request: Request
    benign: Picture


class AttackStudy:
    """The attack study; the constructor checks settings and inputs before any heavy computation.

    Raises:
        ConfigError: a setting is invalid.
        DataError: requests or images are missing or unreadable.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = settings = workspace.cfg.adversarial
        self.requests = read_requests(settings.requests)
        self.attack, self.defense = (_alignment(settings, name) for name in ("attack", "defense"))
        for key in ("runs", "batch_size", "shown"):
            if settings[key] < 1:
                raise ConfigError(f"adversarial.{key}={settings[key]} must be at least 1")
        if settings.contrast not in ("auto", "picture", "typographic"):
            raise ConfigError(f"adversarial.contrast={settings.contrast} is none of auto, picture, typographic")
        self.victim: Victim = instantiate(workspace.cfg.victim)
        self.judge: Judge = self.victim.own_judge or instantiate(workspace.cfg.judge)
        if finished_features(workspace, workspace.whole_split("auto")) is None:  # check before hours of extraction
            self._check()
        pictures = AttackPictures(workspace)
        self.contrasts = [pictures.contrast(request) for request in self.requests]
        self.benign = pictures.benign()
        order = np.random.default_rng(workspace.seed).permutation(len(self.benign))
        self.cases = [
            Case(run, number, request, self.benign[order[(number + run) % len(order)]])
            for run in range(settings.runs)
            for number, request in enumerate(self.requests)
        ]

    def recipe(self) -> dict[str, object]:
        """Everything that determines the results; the batch size does not."""
        settings = {key: value for key, value in _plain(self.settings).items() if key not in ("batch_size", "requests")}
        return {
            **self.workspace.partitions_recipe(),
            "features": self.workspace.features(self.workspace.dataset.split).recipe,
            "model": self.workspace.model.recipe(),
            "adversarial": settings,
            "requests": [asdict(request) for request in self.requests],
            "benign": [[picture.caption, _digest(picture.image)] for picture in self.benign],
            "contrasts": [_digest(image) if image else None for image in self.contrasts],
            "victim": self.victim.identity(),
            "judge": self.judge.identity(),
            "seed": self.workspace.seed,
        }

    def _check(self) -> None:
        """Raise an error if the victim or the judge is not available."""
        self.victim.check()
        self.judge.check()

    def make(self, directory: Path) -> None:
        """Attack, defend, ask the victim, judge its answers, and save tables and figures."""
        self._check()
        feature_sets = {name: self.workspace.feature_set(name) for name in self.workspace.recipes}
        chosen = {c: by_run for name in feature_sets for c, by_run in self._chosen(name, feature_sets[name]).items()}
        encoder = self.workspace.model.load(self.workspace.artifacts, self.workspace.device)
        self.victim.load(encoder, self.workspace.device)
        conditions = [Condition(BENIGN), Condition(CONTRAST), Condition(ATTACKED), *chosen]
        folders = {c: PictureFolder(directory / "pictures" / c.slug, len(self.cases)) for c in conditions}
        self._move_all(folders, chosen, feature_sets, encoder)
        self._ask(folders)
        outcomes = self._count(folders, encoder)
        save_table([outcome.to_row() for outcome in outcomes], directory / "table3")
        save_table([self._row(case) for case in self.cases], directory / "cases")
        for name in feature_sets:
            own = [outcome for outcome in outcomes if outcome.condition.feature_set in ("", name)]
            save_figure(attack_examples(self._examples(folders, own), own), directory / f"{name}-figure8")
            save_figure(success_by_size(own, self.victim.measure), directory / f"{name}-sizes")

    def _chosen(self, name: str, feature_set: FeatureSet) -> dict[Condition, list[Tensor]]:
        """Indices of the features that each defense aligns, one tensor per run."""
        partition = self.workspace.partition(name)
        chosen: dict[Condition, list[Tensor]] = {}
        for run in range(self.settings.runs):
            rng = np.random.default_rng([self.workspace.seed, run])
            try:
                features = defending_features(partition, self.settings.sizes, rng)
            except ValueError as error:
                raise ConfigError(f"feature set {name!r}: {error}; see adversarial.sizes and partition") from error
            if self.settings.all_features:
                features[ALL, feature_set.num_features] = torch.arange(feature_set.num_features)
            for (target, size), indices in features.items():
                chosen.setdefault(Condition(target, name, size), []).append(indices)
        return chosen

    def _move_all(
        self,
        folders: dict[Condition, PictureFolder],
        chosen: dict[Condition, list[Tensor]],
        feature_sets: dict[str, FeatureSet],
        encoder: DualEncoder,
    ) -> None:
        benign, contrast, attacked = (folders[Condition(name)] for name in (BENIGN, CONTRAST, ATTACKED))
        friendly = [with_text(_seen(encoder, case.benign.image), self.settings.friendly_text) for case in self.cases]
        for number, case in enumerate(self.cases):
            benign.keep(number, _seen(encoder, case.benign.image))
            picture = self.contrasts[case.request_number]
            if picture is None:
                picture = text_picture(case.request.text, encoder.preprocess(case.benign.image).shape[-1])
            contrast.keep(number, _seen(encoder, picture))

        def embed(pixels: Tensor) -> Tensor:
            embeddings = encoder.encode_pixels(pixels)
            return F.normalize(embeddings, dim=1) if self.workspace.cfg.features.normalize else embeddings

        def friendly_pixels(numbers: Sequence[int]) -> Tensor:
            return torch.stack([encoder.preprocess(friendly[number]) for number in numbers]).float() / 255

        with progress_bar() as bar:
            steps = self.attack.steps + len(chosen) * self.defense.steps
            task = bar.add_task("attack and defend", total=len(self.cases) * steps)
            self._move(attacked, benign.pixels, contrast.pixels, embed, self.attack, None, bar, task)
            for condition, by_run in chosen.items():

                def see(pixels: Tensor, feature_set: FeatureSet = feature_sets[condition.feature_set]) -> Tensor:
                    return feature_set.encode(embed(pixels), "image")

                self._move(folders[condition], attacked.pixels, friendly_pixels, see, self.defense, by_run, bar, task)

    def _move(
        self,
        folder: PictureFolder,
        start: Pixels,
        target: Pixels,
        features: Features,
        plan: Alignment,
        chosen: list[Tensor] | None,
        bar: Progress,
        task: TaskID,
    ) -> None:
        """Align the images that are not on disk yet, batch by batch, and save them."""
        todo = folder.unmoved()
        bar.advance(task, (folder.count - len(todo)) * plan.steps)
        size, device = self.settings.batch_size, self.workspace.device
        for run in range(self.settings.runs):
            own = [number for number in todo if self.cases[number].run == run]
            for batch in (own[i : i + size] for i in range(0, len(own), size)):
                try:
                    with torch.no_grad():
                        wanted = features(target(batch).to(device))
                    indices = None if chosen is None else chosen[run].to(device)
                    moved = align(start(batch).to(device), wanted, features, plan, indices)
                except torch.OutOfMemoryError as error:
                    raise ConfigError(
                        f"out of GPU memory with adversarial.batch_size={size}: lower it, and run again to go on"
                    ) from error
                folder.keep_moved(batch, moved)
                bar.advance(task, len(batch) * plan.steps)

    def _ask(self, folders: dict[Condition, PictureFolder]) -> None:
        """Ask the victim about every image that it has not answered yet."""
        with progress_bar() as bar:
            task = bar.add_task("ask the victim", total=len(folders) * len(self.cases))
            for folder in folders.values():
                answered = folder.answers()
                for number, case in enumerate(self.cases):
                    if number not in answered:
                        # Seed by case, so that all conditions of a case share their random draws.
                        state = np.random.SeedSequence([self.workspace.seed, number]).generate_state(1)
                        folder.keep_answers(
                            number,
                            self.victim.answers(
                                folder.picture(number), case.request, case.benign.caption, int(state[0])
                            ),
                        )
                    bar.advance(task)

    def _count(self, folders: dict[Condition, PictureFolder], encoder: DualEncoder) -> list[AttackOutcome]:
        """Judge the answers, measure the margins, and summarize every condition."""
        lean = self._lean(encoder)
        requests = np.array([case.request_number for case in self.cases])
        verdicts, outcomes = {}, []
        for condition, folder in folders.items():
            answers = folder.answers()
            numbers = range(len(self.cases))
            found = iter(
                self.judge.verdicts([(self.cases[n].request.text, answer) for n in numbers for answer in answers[n]])
            )
            verdicts[condition] = [[next(found) for _ in answers[number]] for number in numbers]
        for condition, folder in folders.items():
            random = verdicts.get(Condition(RANDOM, condition.feature_set, condition.features))
            margins = self._margins(folder, encoder, lean)
            outcomes.append(
                attack_outcome(
                    condition, verdicts[condition], margins, requests, folder.distances(),
                    random if condition.aligned in LIVE_CLASSES else None, self.workspace.seed,
                )
            )  # fmt: skip
        return outcomes

    def _lean(self, encoder: DualEncoder) -> Tensor:
        """Text embedding of each case's concept minus that of its benign caption, of shape `[cases, dim]`."""

        def embed(texts: list[str]) -> Tensor:
            unique = list(dict.fromkeys(texts))
            with torch.inference_mode():
                rows = F.normalize(encoder.encode_text(encoder.tokenize(unique).to(self.workspace.device)), dim=1)
            return rows[[unique.index(text) for text in texts]]

        return embed([c.request.concept for c in self.cases]) - embed([c.benign.caption for c in self.cases])

    def _margins(self, folder: PictureFolder, encoder: DualEncoder, lean: Tensor) -> np.ndarray:
        """Cosine of every image to the request's concept minus that to the benign caption."""
        margins = []
        with torch.inference_mode():
            for start in range(0, folder.count, self.settings.batch_size):
                batch = list(range(start, min(start + self.settings.batch_size, folder.count)))
                embeddings = encoder.encode_pixels(folder.pixels(batch).to(self.workspace.device))
                margins.append((F.normalize(embeddings, dim=1) * lean[batch]).sum(1).cpu())
        return torch.cat(margins).numpy()

    def _row(self, case: Case) -> dict[str, object]:
        return {
            "run": case.run,
            "request": case.request.text,
            "concept": case.request.concept,
            "benign": case.benign.caption,
        }

    def _examples(
        self, folders: dict[Condition, PictureFolder], outcomes: Sequence[AttackOutcome]
    ) -> list[AttackExample]:
        """Examples from the first run, with the defenses that align the most features."""
        most = max(o.condition.features for o in outcomes if o.condition.aligned in LIVE_CLASSES)
        shown = [o.condition for o in outcomes if o.condition.features in (0, most) and o.condition.aligned != ALL]
        return [
            AttackExample(
                case.request.concept,
                case.benign.caption,
                {condition.aligned: folders[condition].picture(number) for condition in shown},
            )
            for number, case in enumerate(self.cases[: min(self.settings.shown, len(self.requests))])
        ]


def _alignment(settings: DictConfig, name: str) -> Alignment:
    try:
        return Alignment(**settings[name])
    except ConfigError as error:
        raise ConfigError(f"adversarial.{name}.{error}") from error


def _plain(settings: DictConfig) -> dict[str, object]:
    container = OmegaConf.to_container(settings)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _digest(image: Image.Image) -> str:
    return sha256(repr((image.size, image.mode)).encode() + image.tobytes()).hexdigest()[:16]


def _seen(encoder: DualEncoder, picture: Image.Image) -> Image.Image:
    """The image after the encoder's resizing and center crop."""
    return to_pil_image(encoder.preprocess(picture))


def _show(workspace: Workspace, study: AttackStudy, path: Path) -> None:
    rows = json.loads((path / "table3.json").read_text())
    for name in workspace.recipes:
        show_table(adversarial_rows(rows, name), f"Table 3, {name}: {study.victim.measure}, {workspace.title}")
    if difference := published("table3").difference(workspace.model.name, workspace.dataset_name):
        console.print(difference)
    console.print(f"{study.victim.measure}: what may be concluded from it is in docs/ethics.md")
    console.print(f"Table 3, Figure 8, pictures: {path}/*.png, table3.parquet, pictures/")
