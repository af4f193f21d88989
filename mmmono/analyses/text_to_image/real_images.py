"""Real images to compare generated ones with: those that match the prompt, and those nearest to an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.analyses.text_to_image import Settings
from mmmono.features.rows import prepare
from mmmono.interpretability.embedders import Embedder
from mmmono.pipeline.images import SplitImages, save_image
from mmmono.pipeline.workspace import Workspace

NEAREST = "nearest"  # folder of the nearest real images


def prompt_images(
    workspace: Workspace, settings: Settings, embedder: Embedder, images: SplitImages, left_out: set[str | None]
) -> Float[Tensor, "images dim"]:
    """Embed the real images whose captions are most similar to the prompt.

    Args:
        workspace: provides the pairs.
        settings: the prompt, the number of images, and that of captions among which they are searched.
        embedder: embeds captions, prompt and images.
        images: images of the whole split.
        left_out: keys of pairs to exclude, such as the references.
    """
    split = workspace.dataset.whole_split()
    view = workspace.features(split).view
    metadata = view.metadata().assign(caption=view.captions(), group=view.groups())
    candidates = metadata[~metadata["key"].isin({key for key in left_out if key is not None})]
    candidates = candidates[~candidates["group"].duplicated()]  # one of several variants of an image
    if len(candidates) > settings.measures.pool:
        candidates = candidates.sample(settings.measures.pool, random_state=workspace.seed)
    count = min(settings.measures.prompt_images, len(candidates))
    captions = embedder.embed_texts(candidates["caption"].tolist())
    best = (captions @ embedder.embed_texts([settings.prompt])[0]).topk(count).indices.tolist()
    found = images.pairs(candidates.index[best].tolist())
    return embedder.embed_images([pair.image for _, pair in found if pair is not None])


@dataclass(frozen=True)
class NearestPair:
    """The real pair nearest to an embedding.

    Attributes:
        caption: its caption; empty if it has none.
        file: PNG file of its image, cropped to the central square.
    """

    caption: str
    file: Path


def nearest_pairs(
    workspace: Workspace, embeddings: Float[Tensor, "queries dim"], images: SplitImages, folder: Path
) -> list[NearestPair]:
    """Find, for each embedding, the pair of the whole split whose image embedding has the largest cosine with it.

    Args:
        workspace: provides the pairs.
        embeddings: embeddings in the joint space.
        images: images of the whole split.
        folder: folder of the result, below which the images are saved.
    """
    view = workspace.features(workspace.dataset.whole_split()).view
    queries = F.normalize(embeddings, dim=1)
    best = torch.full((len(queries),), -torch.inf)
    where = torch.zeros(len(queries), dtype=torch.int64)
    for block in view.blocks(4096):
        similarity = queries @ prepare(block.image, True, "cpu", view.origin("image", block.start)).T
        value, place = similarity.max(1)
        nearer = value > best
        best[nearer], where[nearer] = value[nearer], place[nearer] + block.start
    metadata = view.metadata()
    captions = metadata["caption"] if "caption" in metadata else pd.Series([""] * len(metadata))
    files = {row: folder / NEAREST / f"{row}.png" for row in where.tolist()}
    for row, image in images.shown(files).items():
        save_image(image, files[row])
    return [NearestPair(captions.iloc[row], files[row]) for row in where.tolist()]
