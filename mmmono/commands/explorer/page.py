"""The feature explorer: an HTML page that opens from disk, with its data and thumbnails in small files next to it.

    index.html, *.css, *.js      the page
    data/index.js                feature sets with their summaries, and how the page was made
    data/<set>/table.js          the table of features, by column
    data/<set>/cards-<n>.js      contents of the cards of CARDS_A_FILE consecutive features
    data/<set>/texts.js          captions of the top texts, for search
    data/<set>/counterparts.js   the most correlated features of the other feature sets
    thumbnails/<n>/<row>.webp    thumbnails, one per image, however many features the image activates

Browsers do not let a page on disk fetch files, but it may add script elements. So each data file is a script that
assigns one value to `explorerData[<name>]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, Float64
from PIL.Image import Image
from torch import Tensor

from mmmono.commands.explorer.likeness import Likeness
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.features import MODALITIES, Modality
from mmmono.interpretability import ActivationHistograms, Neighbors, TopSamples
from mmmono.modality.intervals import score_intervals
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.escaping import script_json
from mmmono.reporting.pages import colors_css, render, web_file

CARDS_A_FILE = 32
THUMBNAILS_PER_FOLDER = 1000
THUMBNAIL_PIXELS = 144  # shown at up to 112
DIGITS = 4  # significant digits of numbers
LABEL_CHARACTERS = 90
SCRIPTS = (
    "dom.js", "search.js", "filter.js", "store.js", "charts.js", "drag.js", "squares.js", "plot.js", "views.js", "table.js",
    "card.js", "classes.js", "counterparts.js", "compare.js", "printing.js", "app.js",
)  # fmt: skip


@dataclass(frozen=True)
class FoundAgain:
    """How features compare with those of dictionaries of other seeds; results of the analysis `consensus`.

    Attributes:
        match: smallest correlation of each feature with its matches under the other seeds.
        consensus: whether it is a consensus feature, found under every seed.
    """

    match: Float64[Tensor, " features"]
    consensus: Bool[Tensor, " features"]


@dataclass(frozen=True)
class Named:
    """What features are called, and how well it detects them.

    Attributes:
        words: name of each feature; empty if it has none that holds.
        auroc: AUROC of each feature's name on held-out images and texts; NaN where it was not tested.
    """

    words: Sequence[str]
    auroc: dict[Modality, Float64[Tensor, " features"]]


@dataclass(frozen=True)
class ExploredFeatures:
    """Results of one feature set that the page shows.

    Attributes:
        dominance: scores and classes, with the name that the set has on the page.
        min_pairs: groups of pairs that must activate a feature for it to have a class.
        p_value, q_value: significance of the dominance, see `DominanceResamples`; NaN without an informative pair.
        energy: share of each feature in the energy Σ z² of all, mean over both modalities.
        top: the most activating samples by modality.
        histograms: histograms of the activations.
        active: share of images, and of texts, with an activation on the side of 0 that the top samples are of.
        likeness: which features are alike.
        mono: monosemanticity of every feature by modality, minus that of random samples; NaN for features not scored;
            None if it was not computed.
        consensus: which features dictionaries of other seeds have too; None if they were not compared.
        sharedness: sharedness of every feature and its q-value; None if they were not computed.
        named: what features are called; None if they were not named.
        probability: by class, share of resamples of the pairs in which each feature is of it; None if not computed.
        run: number of the run that the set is of: 0, or 1 if it is of the run that this one is compared with.
    """

    dominance: FeatureSetDominance
    min_pairs: int
    p_value: Float64[Tensor, " features"]
    q_value: Float64[Tensor, " features"]
    energy: Float64[Tensor, " features"]
    top: dict[Modality, TopSamples]
    histograms: ActivationHistograms
    active: Float64[Tensor, "modalities features"]
    likeness: Likeness
    mono: dict[Modality, Float64[Tensor, " features"]] | None = None
    consensus: FoundAgain | None = None
    sharedness: tuple[Float64[Tensor, " features"], Float64[Tensor, " features"]] | None = None
    named: Named | None = None
    probability: dict[str, Float64[Tensor, " features"]] | None = None
    run: int = 0

    @property
    def name(self) -> str:
        """Name of the feature set."""
        return self.dominance.name


class ExplorerWriter:
    """Write the explorer's files, one feature set at a time.

    Args:
        directory: an empty folder.
        captions: caption of every row of the split.
        thumbnails: whether to show images and captions, or captions only.
        modalities: what the two sides of a pair are called.
    """

    def __init__(
        self, directory: Path, captions: Sequence[str], thumbnails: bool, modalities: ModalityNames = IMAGE_AND_TEXT
    ) -> None:
        self.directory = directory
        self._modalities = modalities
        self._captions = captions
        self._thumbnails = thumbnails
        self._sets: list[dict[str, object]] = []

    def add(self, explored: ExploredFeatures) -> None:
        """Write a feature set's data (not its thumbnails, see `rows` and `write_thumbnail`)."""
        cards = [self._card(explored, feature) for feature in range(len(explored.dominance.partition))]
        folder = f"{explored.name}/"
        for start in range(0, len(cards), CARDS_A_FILE):
            self._write(f"{folder}cards-{start // CARDS_A_FILE}", cards[start : start + CARDS_A_FILE])
        self._write(f"{folder}texts", self._texts(explored.top["text"]))
        self._write(f"{folder}counterparts", _counterparts(explored.likeness))
        self._write(f"{folder}table", self._table(explored))
        self._sets.append(
            {
                **{key: _short(value) for key, value in explored.dominance.to_row().items()},
                "name": explored.name,
                "run": explored.run,
                "minPairs": explored.min_pairs,
                "alikeBy": explored.likeness.alike_by,
                "alikePairs": explored.likeness.pairs,
                "mono": explored.mono is not None,
                "shared": explored.sharedness is not None,
                "cardsAFile": CARDS_A_FILE,
            }
        )

    def rows(self, explored: ExploredFeatures) -> list[int]:
        """Rows of the feature set's top images whose thumbnails are not written yet."""
        if not self._thumbnails:
            return []
        rows = sorted(set(explored.top["image"].rows.flatten().tolist()) - {-1})
        return [row for row in rows if not self._thumbnail_file(row).exists()]

    def write_thumbnail(self, row: int, image: Image) -> None:
        """Write a row's thumbnail."""
        file = self._thumbnail_file(row)
        file.parent.mkdir(parents=True, exist_ok=True)
        square(image, THUMBNAIL_PIXELS).save(file, "WEBP", quality=82, method=4)

    def finish(self, title: str, made: Mapping[str, object]) -> Path:
        """Write the index and the page itself, and return the page's path.

        Args:
            title: model, dataset and split, of both runs if two are compared.
            made: description of how the results were made, shown on the page.
        """
        index = {"title": title, "sets": self._sets, "thumbnails": self._thumbnails, "made": made}
        self._write("index", {**index, "called": self._modalities.fields})
        for name in ("base.css", "explorer.css", *SCRIPTS):
            (self.directory / name).write_text(web_file(name), encoding="utf-8")
        page = self.directory / "index.html"
        page.write_text(render("explorer.html", title=title, colors=colors_css(), scripts=SCRIPTS), encoding="utf-8")
        return page

    def _write(self, name: str, value: object) -> None:
        file = self.directory / "data" / f"{name}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"explorerData[{script_json(name)}]={script_json(value)};\n", encoding="utf-8")

    def _thumbnail_file(self, row: int) -> Path:
        return self.directory / "thumbnails" / str(row // THUMBNAILS_PER_FOLDER) / f"{row}.webp"

    def _table(self, explored: ExploredFeatures) -> dict[str, object]:
        scores, text = explored.dominance.scores, explored.top["text"]
        low, high = score_intervals(scores)
        labels = [self._captions[row][:LABEL_CHARACTERS] if row >= 0 else "" for row in text.rows[:, 0].tolist()]
        table: dict[str, object] = {
            "class": explored.dominance.partition.class_of(),
            "mds": _column(scores.scores),
            "low": _column(low),
            "high": _column(high),
            "informative": scores.informative_pairs.tolist(),
            "groups": scores.informative_groups.tolist(),
            "energy": _column(explored.energy),
            "image": _column(explored.active[0]),
            "text": _column(explored.active[1]),
            "p": _column(explored.p_value),
            "q": _column(explored.q_value),
            "label": labels,
        }
        if (places := explored.likeness.places) is not None:
            table |= {"x": _column(places[:, 0]), "y": _column(places[:, 1])}
        if explored.sharedness is not None:
            table |= dict(zip(("sharedness", "shared_q"), map(_column, explored.sharedness), strict=True))
        if explored.probability is not None:
            table |= {f"probability_{name}": _column(values) for name, values in explored.probability.items()}
        if explored.mono is not None:
            table |= {f"mono_{modality}": _column(explored.mono[modality]) for modality in MODALITIES}
        if explored.consensus is not None:
            table |= {"match": _column(explored.consensus.match), "consensus": explored.consensus.consensus.tolist()}
        if explored.named is not None:
            table |= {"name": list(explored.named.words)}
            table |= {f"auroc_{modality}": _column(explored.named.auroc[modality]) for modality in MODALITIES}
        return table

    def _card(self, explored: ExploredFeatures, feature: int) -> dict[str, object]:
        card: dict[str, object] = {
            f"{modality}s": [
                [row, _short(value), self._captions[row]]
                for row, value in zip(best.rows[feature].tolist(), best.values[feature].tolist(), strict=True)
                if row >= 0
            ]
            for modality, best in explored.top.items()
        }
        counts = explored.histograms.counts[:, feature]
        filled = counts.sum(0).nonzero().squeeze(1)
        if len(filled):
            first, last = int(filled[0]), int(filled[-1]) + 1
            width = float(explored.histograms.width[feature])
            image, text = counts[:, first:last].tolist()
            low = (first - counts.shape[1] // 2) * width
            card["histogram"] = {"low": low, "width": width, "image": image, "text": text}
        card["neighbors"] = _listed(explored.likeness.neighbors, feature)
        card["together"] = _listed(explored.likeness.together, feature)
        return card

    def _texts(self, top: TopSamples) -> dict[str, object]:
        """Unique captions, and for each feature the indices of its captions, strongest first."""
        number: dict[str, int] = {}
        features = [
            [number.setdefault(self._captions[row], len(number)) for row in rows if row >= 0]
            for rows in top.rows.tolist()
        ]
        return {"captions": list(number), "features": features}


def _listed(neighbors: Neighbors, feature: int) -> list[tuple[int, object]]:
    """A feature's neighbors with their likeness, without padding."""
    found = zip(neighbors.features[feature].tolist(), neighbors.cosines[feature].tolist(), strict=True)
    return [(neighbor, _short(cosine)) for neighbor, cosine in found if neighbor >= 0]


def _counterparts(likeness: Likeness) -> dict[str, object]:
    """The most correlated features of each other feature set, by column."""
    return {
        other: {"feature": found.features.tolist(), "r": _column(found.r), "chance": _short(found.chance)}
        for other, found in likeness.counterparts.items()
    }


def _column(values: Tensor) -> list[float | None]:
    return [_short(value) for value in values.tolist()]  # type: ignore[misc]


def _short(value: object) -> object:
    """Round a float to `DIGITS` significant digits; None for NaN and infinity, which JSON lacks."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
