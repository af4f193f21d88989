"""Images for an attack: the benign images and the contrast images of the requests."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmmono.analyses.adversarial import Settings, words_of
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.images import CaptionedImage, find_image
from mmmono.core.errors import ConfigError, DataError
from mmmono.pipeline.images import SplitImages, image_source, known_locators
from mmmono.pipeline.workspace import Workspace


class AttackImages:
    """Find the images that `adversarial.*` names, or draw them from the pairs of the whole split.

    Args:
        workspace: provides the pairs.
        settings: settings of the section `adversarial`.
    """

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace = workspace
        self._settings = settings
        self._split = workspace.dataset.whole_split()
        self._source = image_source(workspace, self._split)
        self._locators = known_locators(workspace, self._split)

    def benign(self) -> list[CaptionedImage]:
        """Return the benign images with their captions.

        Raises:
            ConfigError: no pair matches, or an image has no caption.
            DataError: a named image is missing or unreadable.
        """
        settings = self._settings.benign
        names = list(settings.images or ())
        if not names:
            return self._scenery(set(settings.words), settings.count)
        images = []
        for name in names:
            found = find_image(name, self._source, self._locators)
            caption = found.caption or settings.text
            if not caption:
                raise ConfigError(f"{name} has no caption: say what it shows, adversarial.benign.text='...'")
            images.append(CaptionedImage(found.image, caption))
        return images

    def _scenery(self, words: set[str], count: int) -> list[CaptionedImage]:
        """Draw images whose captions contain one of the words; unreadable images are replaced by others."""
        captions = self._workspace.features(self._split).view.captions()
        rows = np.flatnonzero([not words.isdisjoint(words_of(caption)) for caption in captions])
        if not len(rows) or count < 1:
            raise ConfigError(
                "no benign image: no caption holds one of adversarial.benign.words, or adversarial.benign.count is 0; "
                "give other words, or adversarial.benign.images=[...]"
            )
        left = np.random.default_rng(self._workspace.seed).permutation(rows).tolist()
        images = SplitImages(self._workspace, self._split)
        found: dict[int, CaptionedImage] = {}
        while left and len(found) < count:
            drawn = left[: count - len(found)]
            left = left[len(drawn) :]
            had = ((row, pair) for row, pair in images.pairs(drawn) if pair is not None)
            found |= {row: CaptionedImage(pair.image, captions.iloc[row]) for row, pair in had}
        return [found[row] for row in sorted(found)]

    def contrast(self, request: Request) -> Image.Image | None:
        """Return the request's image, or None if its text is drawn instead. Raises DataError if there is no image."""
        kind = self._settings.contrast
        if kind == "typographic" or (kind == "auto" and not request.image):
            return None
        if not request.image:
            raise DataError(
                f"request {request.text!r} has no image: add a column 'image' to adversarial.requests, "
                "or set adversarial.contrast=typographic"
            )
        return find_image(request.image, self._source, self._locators).image
