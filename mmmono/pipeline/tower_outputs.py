"""One pass of the default model's towers over its drawings, kept as an artifact: fits of heads and extractions share it.

The address is made from the towers' weights, their preprocessing, the source's fingerprint and the version of the decoder:
another image size, package or choice of captions is another pass. The seed and the split of a fit are no part of it.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import RECIPE_FILE, Artifacts
from mmmono.data.images import DECODER_VERSION
from mmmono.data.pairs import PairSource
from mmmono.features import extract_features
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.losses import Allowance
from mmmono.features.outputs import TowerOutputs

KIND = "towers"  # folder under the artifacts root
# Pairs that pass through the towers at a time: as many as in an extraction on a CPU. The padding of captions depends on
# their batch, and the last bits of a text's output on the padding.
BATCH = 32
# Nothing may be lost: a fit on fewer pairs would be another fit. Drawings are rendered beside the towers, which takes long.
PASS = ExtractionSettings(batch_size=BATCH, workers=1, precision="32", dtype="float32", allowance=Allowance(0, 0))


def outputs_recipe(source: PairSource) -> dict[str, Any]:
    """Everything that determines the towers' outputs for a source. Loads no weights."""
    from mmmono.vlm.tower_outputs import towers_recipe  # it takes open_clip, which most commands do without

    return {"towers": towers_recipe(), "dataset": source.fingerprint(), "decoder": DECODER_VERSION}


def tower_outputs(artifacts: Artifacts, source: PairSource) -> TowerOutputs:
    """Return the towers' outputs for all pairs of a source, on the CPU in float32: made unless there, resumed if cut short.

    A source that consists of others, such as `DrawingPairs`, has no outputs of its own: they are those of its members.

    Args:
        artifacts: the artifacts root.
        source: pairs that can all be read; its `limit` is ignored.

    Raises:
        DataError: a pair cannot be read.
        ModelError: the demo extra is missing.
    """
    members = getattr(source, "members", [source])
    return TowerOutputs([_outputs_of(artifacts, member) for member in members], BATCH)


def kept_outputs(artifacts: Artifacts, source: PairSource, settings: ExtractionSettings) -> TowerOutputs | None:
    """Return a source's outputs if they are there and an extraction on the CPU would compute the same bits, else None.

    Args:
        artifacts: the artifacts root.
        source: the pairs.
        settings: of the extraction. Another precision, or another number of pairs in a batch, means other bits.
    """
    same_bits = settings.precision == PASS.precision and settings.batch_size in (None, BATCH)
    same_bits = same_bits and settings.resize == PASS.resize
    members = getattr(source, "members", [source])
    there = (artifacts.path(KIND, member.name, outputs_recipe(member)) / RECIPE_FILE for member in members)
    return tower_outputs(artifacts, source) if same_bits and all(file.exists() for file in there) else None


def _outputs_of(artifacts: Artifacts, source: PairSource) -> Path:
    def make(directory: Path) -> None:
        from mmmono.vlm.tower_outputs import locked_towers

        whole: Any = copy(source)
        whole.limit = None
        extract_features(whole, locked_towers(), directory, settings=PASS)

    return artifacts.build(KIND, source.name, outputs_recipe(source), make, resumable=True).path
