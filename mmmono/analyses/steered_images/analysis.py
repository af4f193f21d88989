"""Generate images from prompts one of whose features is set, and measure whether they follow and what else changes.

Each image is saved as soon as it is generated, so an interrupted run draws only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from PIL import Image

from mmmono.analyses.steered_images import Settings
from mmmono.analyses.steered_images.drawing import REAL, DrawnImages, Moved, Prompts, at_own_length
from mmmono.analyses.steered_images.measuring import Eyes, Seen
from mmmono.case_studies.generators import Generator
from mmmono.core.errors import ConfigError, DataError
from mmmono.interpretability.steer import SteeredEmbeddings
from mmmono.interpretability.steerability import Steerability, Steered
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.generators import GeneratorOption
from mmmono.pipeline.image_judges import image_judge
from mmmono.pipeline.images import GIVE_UP, SplitImages, read_image, save_image
from mmmono.pipeline.independence import shared_towers
from mmmono.pipeline.maker import encoder_of_pairs
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
from mmmono.vlm import Encoder

SECTION = "steered_images"
MEANS = ("move", "control", "stay", "score", "likeness", "likeness_control")


def prepare(workspace: Workspace) -> Study:
    """Steer what a generator draws, by features of all selected feature sets.

    Raises:
        ConfigError: a setting is invalid, a feature set has no decoder, or the generator is not conditioned on embeddings
            in the joint space.
        ModelError: the generator's weights are missing or do not fit the model.
    """
    study = _DrawingStudy(workspace)
    return Study(study.recipe(), study.compute, resumable=True)


class _DrawingStudy:
    """The study; the constructor checks settings and inputs before any heavy computation."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = read_settings(workspace.cfg, SECTION, Settings)
        self.match = workspace.settings.random_sets
        check_decoders(workspace)
        self.option: GeneratorOption = instantiate(workspace.cfg.generator)
        if not self.option.joint:
            raise ConfigError(
                "generator=sd2 draws from tokens, which are not in the joint space that features are of: set "
                "generator.projected=true"
            )
        self.option.check(workspace)
        workspace.dataset.check_images(workspace.dataset.split)
        self.judge = image_judge(workspace)
        check_groups(workspace, SECTION, self.settings.k)

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the results."""
        workspace = self.workspace
        return {
            "features": workspace.features(workspace.dataset.split).recipe,
            **self.option.training_recipe(workspace),
            **workspace.partitions_recipe(),
            "model": workspace.model.identity,
            "generator": self.option.recipe(),
            SECTION: asdict(self.settings),
            "random_sets": self.match,
            "embedder": self.judge.fingerprint,
            "judge": self.judge.name,
            "independent": "image" not in shared_towers(workspace, self.judge),
            "seed": workspace.seed,
        }

    def compute(self, folder: Path) -> Tables:
        """Generate the images that are missing in the folder, and measure all."""
        workspace, settings = self.workspace, self.settings
        check_shown(workspace, SECTION, settings.show)
        positions = np.sort(one_of_each_group(workspace, settings.images, np.random.default_rng(workspace.seed)))
        steerable = {name: Steerable.of(workspace, name, positions, settings.k) for name in workspace.specs}
        plans = {name: self._plan(of) for name, of in steerable.items()}
        encoder = encoder_of_pairs(workspace, "a generator")
        generator = self.option.load(workspace, encoder)
        real = SplitImages(workspace, workspace.dataset.split)
        prompts = Prompts.encoded(generator, settings.prompts, settings.seeds, _reference(folder, real, positions))
        drawn = DrawnImages(folder, prompts)
        drawn.draw(generator, [(drawn.plain(), None)], "generate images")
        tables: dict[str, list[Row]] = {
            name: [] for name in ("features", "summary", "images", "most", "controls", "samples")
        }
        for name, of in steerable.items():
            run = _SetRun(self, of, plans[name], drawn)
            for table, rows in run.tables(generator, encoder, real, positions).items():
                tables[table] += rows
        real.report(folder)
        return tables

    def _plan(self, of: Steerable) -> dict[int, list[int]]:
        """Random features beside each feature that is steered. Raises ConfigError if there are none."""
        chosen = of.chosen(self.settings, SECTION, self.workspace.seed)
        plan = of.matched(chosen, self.settings.controls, self.match, self.workspace.seed)
        live = len(of.scored.partition.live)
        if not chosen:
            raise ConfigError(
                f"features={of.scored.name}: not one of {live} live features is activated by any of {len(of.codes)} images, "
                f"so that there is nothing to steer: lower mds.min_pairs, raise {SECTION}.images, or choose other features="
            )
        if not all(plan.values()):
            raise ConfigError(
                f"features={of.scored.name}: of {live} live features {len(chosen)} are steered, and none is left that an "
                f"image activates for a comparison: lower {SECTION}.per_class, or mds.min_pairs"
            )
        return plan


@dataclass(frozen=True)
class _SetRun:
    """The images of one feature set, from the drawing to the tables."""

    study: _DrawingStudy
    of: Steerable
    plan: dict[int, list[int]]
    drawn: DrawnImages

    def tables(
        self, generator: Generator, encoder: Encoder, real: SplitImages, positions: np.ndarray[Any, Any]
    ) -> dict[str, list[Row]]:
        """Draw, look and compare."""
        study, name = self.study, self.of.scored.name
        workspace, settings = study.workspace, study.settings
        every = list(dict.fromkeys([*self.plan, *(control for of in self.plan.values() for control in of)]))
        planned = [
            (self.drawn.of(name, feature, strength), self._moved(feature, strength))
            for feature in every
            for strength in settings.strengths
        ]
        self.drawn.draw(generator, planned, f"generate images, {name}")
        normalize = workspace.settings.features.normalize
        eyes = Eyes(encoder, self.of.features, study.judge, normalize, workspace.device)
        most = list(self._most(real, positions, eyes))
        before = eyes.see(self.drawn.plain())
        rows, images = [], list(self._images(None, before, self.drawn.plain()))
        for strength in settings.strengths:
            after = {feature: eyes.see(self.drawn.of(name, feature, strength)) for feature in every}
            rows += list(self._compared(strength, before, after))
            for feature in self.plan:
                files = self.drawn.of(name, feature, strength)
                images += self._images(strength, after[feature], files, feature)
        return {
            "features": rows, "summary": list(class_rows(rows, MEANS)), "images": images, "most": most,
            "controls": list(self._controls()),
            "samples": [{
                "feature_set": name, "generator": generator.name, "features": len(self.plan),
                "controls": len(every) - len(self.plan), "prompts": len(settings.prompts), "seeds": settings.seeds,
                "images": len(positions), "mismatch": self._mismatch(),
            }],
        }  # fmt: skip

    def _moved(self, feature: int, strength: float) -> Moved:
        workspace = self.study.workspace
        steer = self.of.steer(feature, strength, self.study.settings.how)
        moved = SteeredEmbeddings(
            self.of.features, "text", steer, workspace.settings.features.normalize, workspace.device
        )
        return at_own_length(moved) if self.study.settings.keep_length else moved

    def _most(self, real: SplitImages, positions: np.ndarray[Any, Any], eyes: Eyes) -> Iterator[Row]:
        """Rows of the real images that activate each feature most, which are saved and which the judge looks for."""
        k, name = self.study.settings.k, self.of.scored.name
        found: dict[int, list[Image.Image]] = {}
        for feature in self.plan:
            activation = self.of.codes[:, feature] / self.of.reference[feature]
            top = [place for place in activation.topk(k).indices.tolist() if activation[place] > 0]
            pairs = dict(real.pairs(positions[top].tolist()))
            found[feature] = []
            for rank, place in enumerate(top):
                if (pair := pairs[int(positions[place])]) is None:
                    continue
                file = self.drawn.folder / REAL / f"{positions[place]}.png"
                save_image(pair.image, file)
                found[feature].append(pair.image)
                yield {
                    "feature_set": name, "feature": feature, "rank": rank, "row": int(positions[place]),
                    "activation": float(activation[place]), "image": self.drawn.relative(file),
                }  # fmt: skip
            if not found[feature]:
                raise DataError(f"not one of the images that activate feature {feature} of {name} most can be read")
        eyes.look_for(found)

    def _compared(self, strength: float, before: Seen, after: dict[int, Seen]) -> Iterator[Row]:
        """Rows of all features at one strength."""
        seeds, chosen = self.drawn.prompts.seeds, list(self.plan)
        start, columns = before.by_prompt(seeds), torch.tensor(chosen)
        moves = Steerability(start[0], start[0].mean(0), columns, self.of.reference[columns])
        likeness = Steerability(start[1], start[1].mean(0), torch.arange(len(chosen)), torch.ones(len(chosen)).double())
        for feature, seen in after.items():
            activations, likely = seen.by_prompt(seeds)
            for scores, profile in ((moves, activations), (likeness, likely)):
                if feature in self.plan:
                    scores.add(chosen.index(feature), profile)
                beside = [place for place, own in enumerate(chosen) if feature in self.plan[own]]
                scores.add_control(torch.tensor(beside, dtype=torch.int64), profile)
        judged = steered_rows(self.of.scored, chosen, likeness.result(strength))
        for row, own in zip(self._rows(chosen, moves.result(strength)), judged, strict=True):
            yield {
                **row, "likeness": own["move"], "likeness_control": own["control"],
                **{f"likeness_{key}": own[key] for key in ("beyond", "beyond_low", "beyond_high", "q_value")},
            }  # fmt: skip

    def _rows(self, chosen: Sequence[int], steered: Steered) -> Iterator[Row]:
        return steered_rows(self.of.scored, chosen, steered, self.of.reference)

    def _images(
        self, strength: float | None, seen: Seen, files: Sequence[Path], feature: int | None = None
    ) -> Iterator[Row]:
        """Rows of generated images: of one feature, or of each (None) if none is steered."""
        seeds, scored = self.drawn.prompts.seeds, self.of.scored
        classes = scored.partition.class_of()
        for own in self.plan if feature is None else [feature]:
            column = list(self.plan).index(own)
            for number, file in enumerate(files):
                yield {
                    "feature_set": scored.name, "feature": own, "class": classes[own],
                    "mds": float(scored.scores.scores[own]), "prompt": self.drawn.prompts.texts[number // seeds],
                    "strength": strength, "seed": number % seeds,
                    "activation": float(seen.codes[number, own] / self.of.reference[own]),
                    "likeness": float(seen.likeness[number, column]), "image": self.drawn.relative(file),
                }  # fmt: skip

    def _mismatch(self) -> float:
        """Largest relative difference between a steered feature and its controls in what these are matched in."""
        weights = self.of.activity.weights(self.study.match)
        pairs = ((feature, control) for feature, controls in self.plan.items() for control in controls)
        return max(float(abs(weights[control] - weights[feature]) / weights[feature]) for feature, control in pairs)

    def _controls(self) -> Iterator[Row]:
        energy = self.of.activity.energy
        for feature, controls in self.plan.items():
            for control in controls:
                yield {
                    "feature_set": self.of.scored.name, "feature": feature, "control": control,
                    "energy": float(energy[feature]), "control_energy": float(energy[control]),
                }  # fmt: skip


def _reference(folder: Path, real: SplitImages, positions: np.ndarray[Any, Any]) -> Image.Image:
    """The first readable image, whose embedding's length some generators give to the prompts.

    It is saved, so that a resumed run takes the same, whatever can be read then. Raises DataError if none can be read.
    """
    file = folder / REAL / "reference.png"
    if file.exists():
        return read_image(file)
    for _, pair in real.pairs(positions[:GIVE_UP].tolist()):
        if pair is not None:
            save_image(pair.image, file)
            return read_image(file)
    raise DataError("not one image of the dataset's split can be read")
