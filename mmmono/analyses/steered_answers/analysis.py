"""Ask a vision-language model about images while features of its visual tokens are set, and measure what it says.

Each answer is saved as soon as it is made, so an interrupted run asks only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from PIL import Image

from mmmono.analyses.steered_answers import Settings
from mmmono.analyses.steered_answers.asking import Interview, Said
from mmmono.analyses.steered_answers.naming import SECTION, Names, activated, check_names, names_of
from mmmono.case_studies.adversarial.victims import Llava
from mmmono.case_studies.visual_tokens import JointSpace, Steering, joint_space, token_width
from mmmono.core.errors import ConfigError, DataError, ModelError
from mmmono.core.progress import progress_bar
from mmmono.interpretability.steer import SteeredEmbeddings
from mmmono.interpretability.steerability import Steerability
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.images import GIVE_UP, SplitImages, save_image
from mmmono.pipeline.maker import check_maker, embeddings_given
from mmmono.pipeline.steering import (
    Row,
    Steerable,
    check_decoders,
    check_groups,
    check_shown,
    class_rows,
    one_of_each_group,
    steered_rows,
)
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

IMAGES = "images"  # folder of the images that the model is asked about
OWN_TOWER = "model=transformers model.id=openai/clip-vit-large-patch14-336 is LLaVA-1.5's own"


def prepare(workspace: Workspace) -> Study:
    """Steer what a vision-language model says, by features of all selected feature sets.

    Raises:
        ConfigError: a setting is invalid, a feature set has no decoder, the features are not of the victim's visual tokens,
            or they have no names.
        ModelError: the victim cannot be had.
    """
    study = _AnswerStudy(workspace)
    return Study(study.recipe(), study.compute, resumable=True)


class _AnswerStudy:
    """The study; the constructor checks settings and inputs before any heavy computation."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = read_settings(workspace.cfg, SECTION, Settings)
        check_decoders(workspace)
        self.llava = _llava(workspace)
        self.width = token_width(self.llava.model)
        self._check_width()
        workspace.dataset.check_images(workspace.dataset.split)
        check_names(workspace, self.settings)
        check_groups(workspace, SECTION, self.settings.k)
        self.names = {name: names_of(workspace, self.settings, name) for name in workspace.specs}

    @property
    def as_wide(self) -> bool:
        """Whether the model's image tower has tokens as wide as the victim's: it may be the victim's own."""
        return self.workspace.model.image_width == self.width

    @property
    def given(self) -> bool:
        """Whether the dataset is embeddings, which may be of visual tokens; else they are the model's."""
        return embeddings_given(self.workspace)

    def _check_width(self) -> None:
        """Raise ConfigError unless the model may have the victim's tower, or given embeddings are as wide as its tokens."""
        model = self.workspace.model
        dim = self.workspace.dataset.dim_of(model.dim)
        if self.as_wide or (dim in (None, self.width) and self.given):
            return
        own = f"tokens of {model.image_width} dimensions" if model.image_width else "no tokens of a known width"
        raise ConfigError(
            f"visual tokens of victim.model={self.llava.model} have {self.width} dimensions, and features="
            f"{','.join(self.workspace.specs)} are of embeddings with {dim}, of model={model.name}, whose image tower has "
            f"{own}: choose the model whose image tower is the victim's ({OWN_TOWER}), or give embeddings of such tokens, "
            f"{self.width} wide (dataset=store)"
        )

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the results."""
        workspace = self.workspace
        return {
            "features": workspace.features(workspace.dataset.split).recipe,
            **workspace.partitions_recipe(),
            "model": workspace.model.identity if self.as_wide else None,
            "victim": self.llava.identity(),
            SECTION: {key: value for key, value in asdict(self.settings).items() if key != "names"},
            "names": {of: [[feature, name] for feature, name in names.items()] for of, names in self.names.items()},
            "seed": workspace.seed,
        }

    def compute(self, folder: Path) -> Tables:
        """Ask what was not asked yet, and compare."""
        workspace, settings = self.workspace, self.settings
        self.llava.check()
        check_shown(workspace, SECTION, list(settings.named), "names")
        order = one_of_each_group(workspace, settings.images, np.random.default_rng(workspace.seed))
        steerable = {name: Steerable.of(workspace, name, np.sort(order), settings.k) for name in workspace.specs}
        named = {name: activated(self.names[name], of, settings) for name, of in steerable.items()}
        real = SplitImages(workspace, workspace.dataset.split)
        rows, images = _readable(real, order, settings.asked)
        files = [folder / IMAGES / f"{row}.png" for row in rows]
        for file, image in zip(files, images, strict=True):
            save_image(image, file)
        space = self._load()
        shown = [(row, file.relative_to(folder).as_posix()) for row, file in zip(rows, files, strict=True)]
        tables: dict[str, list[Row]] = {name: [] for name in ("features", "summary", "answers", "samples")}
        for name, of in steerable.items():
            words, said = list(named[name].values()), folder / f"said-{name}.jsonl"
            asked = dict(zip(rows, images, strict=True))
            interview = Interview(self.llava, asked, words, settings, said, workspace.seed)
            run = _SetRun(self, of, named[name], space)
            for table, found in run.tables(interview, shown).items():
                tables[table] += found
        real.report(folder)
        return tables

    def _load(self) -> JointSpace | None:
        """Load the victim; return the way of its tokens into the joint space, None if they are steered as they are.

        Raises:
            ModelError: the weights cannot be loaded, or they are steered neither way.
        """
        workspace = self.workspace
        encoder = workspace.model.load_checked(workspace.artifacts, workspace.device) if self.as_wide else None
        self.llava.load(encoder, workspace.device)
        space = None if encoder is None else joint_space(encoder, self.llava.parts[1], self.width)
        dim = workspace.features(workspace.dataset.split).view.dim
        if encoder is not None and space is not None and space.projection.shape[1] == dim:
            check_maker(workspace, encoder, f"victim.model={self.llava.model}")
            return space
        if self.given and dim == self.width:
            return None
        raise ModelError(
            f"the vision tower of victim.model={self.llava.model}, {self.width} dimensions wide, is not the image tower of "
            f"model={workspace.model.name}, whose embeddings have {dim}: their weights differ; choose the model whose image "
            f"tower is the victim's ({OWN_TOWER})"
        )


@dataclass(frozen=True)
class _SetRun:
    """The answers with one feature set, from the question to the tables."""

    study: _AnswerStudy
    of: Steerable
    names: Names
    space: JointSpace | None

    def tables(self, interview: Interview, shown: list[tuple[int, str]]) -> dict[str, list[Row]]:
        """Ask, and compare."""
        settings, name, chosen = self.study.settings, self.of.scored.name, list(self.names)
        features: list[Row] = []
        with progress_bar() as bar:
            total = (1 + len(chosen) * len(settings.strengths)) * len(shown)
            advance = partial(bar.advance, bar.add_task(f"ask, {name}", total=total))
            before = interview.ask("", None, advance)
            answers = [row for feature in chosen for row in self._answers(None, feature, before, shown)]
            for strength in settings.strengths:
                after = {
                    feature: interview.ask(f"{feature} {float(strength)!r}", self._steering(feature, strength), advance)
                    for feature in chosen
                }
                features += list(self._compared(strength, before, after))
                for feature, said in after.items():
                    answers += self._answers(strength, feature, said, shown)
        return {
            "features": features, "summary": list(class_rows(features)), "answers": answers,
            "samples": [{
                "feature_set": name, "features": len(chosen), "asked": len(shown), "images": len(self.of.codes),
                "silent": len(self.study.names[name]) - len(chosen), "joint": int(self.space is not None),
            }],
        }  # fmt: skip

    def _steering(self, feature: int, strength: float) -> Steering:
        """What steers visual tokens, `[images, tokens, width]`."""
        workspace, settings = self.study.workspace, self.study.settings
        steer = self.of.steer(feature, strength, settings.how)
        normalize = workspace.settings.features.normalize
        moved = SteeredEmbeddings(self.of.features, "image", steer, normalize, workspace.device)
        return moved if self.space is None else partial(self.space.steered, steering=moved)

    def _compared(self, strength: float, before: Said, after: Mapping[int, Said]) -> Iterator[Row]:
        """Rows of all features at one strength; each is a control of the others."""
        chosen = list(self.names)
        likely = before.log_probabilities
        ones = torch.ones(len(chosen), dtype=torch.float64)
        found = Steerability(likely, likely.mean(0), torch.arange(len(chosen)), ones)
        for place, feature in enumerate(chosen):
            found.add(place, after[feature].log_probabilities)
            others = torch.tensor([other for other in range(len(chosen)) if other != place])
            found.add_control(others, after[feature].log_probabilities)
        for row in steered_rows(self.of.scored, chosen, found.result(strength), self.of.reference):
            yield {**row, "name": self.names[row["feature"]]}

    def _answers(self, strength: float | None, feature: int, said: Said, shown: list[tuple[int, str]]) -> Iterator[Row]:
        """What was said of each image with one feature steered; without a strength, beside the likelihood of its name."""
        column = list(self.names).index(feature)
        for place, (row, file) in enumerate(shown):
            yield {
                "feature_set": self.of.scored.name, "feature": feature, "name": self.names[feature],
                "strength": strength, "place": place, "row": row,
                "log_probability": float(said.log_probabilities[place, column]), "answer": said.answers[place],
                "image": file,
            }  # fmt: skip


def _llava(workspace: Workspace) -> Llava:
    """Return the chosen victim, not loaded. Raises ConfigError if it has no visual tokens."""
    target = str(workspace.cfg.victim.get("_target_"))
    if not issubclass(get_class(target), Llava):
        raise ConfigError(
            f"victim={target.rpartition('.')[2]} has no visual tokens that a language model reads: use victim=llava15"
        )
    llava: Llava = instantiate(workspace.cfg.victim)
    if llava.repeats != 1:
        raise ConfigError(
            f"victim.repeats={llava.repeats} makes as many answers, of which one is kept: set victim.repeats=1"
        )
    llava.check()
    return llava


def _readable(real: SplitImages, order: np.ndarray[Any, Any], count: int) -> tuple[list[int], list[Image.Image]]:
    """The first images that can be read, in ascending order of their positions. Raises DataError if they are too few."""
    found: dict[int, Image.Image] = {}
    step = max(count, GIVE_UP)  # so that a few that cannot be read are no reason to give up
    for start in range(0, len(order), step):
        wanted = order[start : start + step].tolist()
        pairs = {row: pair.image for row, pair in real.pairs(wanted) if pair is not None}
        found |= {row: pairs[row] for row in wanted if row in pairs}
        if len(found) >= count:
            break
    if len(found) < 2:
        raise DataError("not two images of the dataset's split can be read")
    rows = sorted(list(found)[:count])
    return rows, [found[row] for row in rows]
