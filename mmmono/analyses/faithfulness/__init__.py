"""Faithfulness: what do features and reconstructions keep of the embeddings? (beyond Section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, TableView
from mmmono.pipeline.prompts import check_prompt
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Result, Rows

KS = (1, 5, 10)  # of R@k


@dataclass(frozen=True)
class Settings:
    """Settings of the section `faithfulness`.

    Attributes:
        max_pairs: number of pairs, at most; more are sampled.
        temperature: temperature of the contrastive loss.
        prompt: text of a class for zero-shot classification, with `{}` for its name.
    """

    max_pairs: int
    temperature: float
    prompt: str

    def __post_init__(self) -> None:
        if self.max_pairs < 1:
            raise ValueError(f"max_pairs={self.max_pairs} must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be positive")
        check_prompt(self.prompt)


def reconstruction_rows(result: Result) -> Rows:
    """Error of the reconstruction and sparsity, by feature set and modality; no error without a decoder."""
    return headed(result.rows("reconstruction"), result.modalities)


def function_rows(result: Result) -> Rows:
    """Retrieval, zero-shot accuracy, modality gap and contrastive loss of the embeddings and of each feature set."""
    return headed(result.rows("function"), result.modalities)


FAITHFULNESS = Analysis(
    name="faithfulness",
    section="+",
    title="What features keep",
    question=("What do features and reconstructions keep of the embeddings that they are made from? Not in the paper."),
    paper="beyond 3.1",
    targets=("section-3",),
    version=5,
    settings=Settings,
    columns={
        "reconstruction": {
            "feature_set": "name of the feature set",
            "samples": "image or text",
            "fvu": "fraction of the embeddings' variance that the reconstruction does not explain",
            "cosine": "mean cosine of embeddings and reconstructions",
            "l0": "mean number of active features per sample",
            "active": "number of features that are active on some sample",
            "dead_share": "share of features that are active on no sample",
        },
        "function": {
            "feature_set": "name of the feature set; empty for the embeddings",
            "space": "embeddings, features or reconstruction",
            **{f"i2t_r{k}": f"share of images with a text of their group among the {k} nearest" for k in KS},
            **{f"t2i_r{k}": f"share of texts with an image of their group among the {k} nearest" for k in KS},
            "zero_shot": "accuracy of zero-shot classification of images; empty without labels",
            "gap": "modality gap: distance between the modalities' centroids, of normalized vectors",
            "contrastive_loss": "CLIP's symmetric loss with all other pairs as negatives, in nats",
        },
    },
    tables=[
        TableView("reconstruction", "Reconstruction and sparsity", reconstruction_rows),
        TableView("function", "What still works", function_rows),
    ],
    covers_all=True,
    embeds_labels=True,
)
