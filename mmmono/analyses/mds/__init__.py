"""Modality dominance: which modality activates each feature more? (Section 2.1, Eq. 1, Figure 4)."""

from __future__ import annotations

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Result, Rows

CLASSES = ("ImgD", "TextD", "CrossD")
# Columns of two tables that fit a terminal of 80 characters.
CLASSES_SHOWN = ("feature_set", "pairs", "groups", "features", "ImgD", "TextD", "CrossD", "dead")
SPREAD_SHOWN = ("feature_set", "mean", "std", "null_std", "reliability", "skewness", "gap")
# Columns of a table with a row for each feature.
SCORES = {
    "feature_set": "name of the feature set",
    "feature": "index of the feature",
    "class": "ImgD, TextD, CrossD or dead",
    "mds": "R(d) of Eq. 1, between 0 (text) and 1 (image)",
    "standard_error": "standard error of R(d) by group of pairs (cluster-robust)",
    "design_effect": "squared standard error by group, by that of as many independent pairs",
    "informative_pairs": "number of pairs whose image or text activates the feature",
    "informative_groups": "number of groups of pairs with such a pair",
    "image_active": "number of images that activate the feature",
    "text_active": "number of texts that activate the feature",
}
TWO_AXES = SCORES | {
    "sharedness": "correlation across pairs of firing (sparse features) or of activations (dense ones)",
    "sharedness_q_value": "q-value of a positive association within pairs, against broken pairs, among live features",
}


def summary_rows(result: Result) -> Rows:
    """Number of pairs and groups, and counts of the classes."""
    return headed([{key: row[key] for key in CLASSES_SHOWN} for row in result.rows("summary")], result.modalities)


def spread_rows(result: Result) -> Rows:
    """Mean and spread of the scores, beside the spread that chance gives."""
    return headed([{key: row[key] for key in SPREAD_SHOWN} for row in result.rows("summary")])


def sharedness_rows(result: Result) -> Rows:
    """The second axis: how many features of each class image and text of a pair activate together, and the median."""
    return [
        {
            "feature set": row["feature_set"],
            **{
                result.modalities.said(of): f"{row[f'{of}_shared']} of {row[of]}{_median(row[f'{of}_sharedness'])}"
                for of in CLASSES
            },
        }
        for row in result.rows("summary")
    ]


def _median(value: float | None) -> str:
    return "" if value is None else f"; {value:.2f}"


MDS = Analysis(
    name="mds",
    section="2.1",
    title="Modality dominance",
    question=(
        "Which modality activates each feature more? Features above μ + σ are {ImgD}, below μ − σ {TextD}, the others "
        "{CrossD}."
    ),
    paper="Figure 4",
    targets=("section-2.1", "appendix-a.2", "demo"),
    version=8,
    reads=("sharedness",),
    columns={
        "scores": TWO_AXES,
        "summary": {
            "feature_set": "name of the feature set",
            "pairs": "number of pairs",
            "groups": "number of groups of pairs that are not independent, the unit of all errors",
            "effective_groups": "n² / Σ n_g² for n_g pairs of a group: as many groups of equal size say as much",
            "features": "number of features",
            "ImgD": "number of image-dominant features",
            "TextD": "number of text-dominant features",
            "CrossD": "number of cross-modal features",
            "dead": "features with too few informative groups of pairs for a score",
            "mean": "μ of the live features' scores",
            "std": "σ of the live features' scores",
            "null_std": "σ to expect if no feature preferred a modality: image and text of each group swapped at random",
            "reliability": "share of the scores' variance that is not error: (σ² − mean error variance) / σ²",
            "corrected_std": "σ without the scores' errors: the root of that numerator",
            "skewness": "third standardized moment of the scores",
            "lowest": "lowest score",
            "highest": "highest score",
            "half_width": "mean half-width of the scores' 95 % confidence intervals (Wilson, by effective number of trials)",
            "design_effect": "median of the features' design effects",
            "gap": "modality gap: distance between the modalities' centroids, of normalized embeddings",
            **{
                f"{of}_shared": f"{of} features shared beyond broken pairs (sharedness_q_value ≤ 0.05)"
                for of in CLASSES
            },
            **{f"{of}_sharedness": f"median sharedness of {of} features" for of in CLASSES},
        },
        "modality_gap": {
            "centroid_distance": "distance between the modalities' centroids, of normalized embeddings",
            "mean_norm_difference": "mean norm of image embeddings minus that of text embeddings (Section 2.1)",
        },
    },
    tables=[
        TableView("mds", "Classes of the features", summary_rows),
        TableView(
            "mds_spread", "Moments of the scores, and σ if no feature preferred a modality (null std)", spread_rows
        ),
        TableView(
            "mds_sharedness", "Features shared beyond broken pairs (q ≤ 0.05), and median sharedness", sharedness_rows
        ),
    ],
    drawing=3,
    figures=[
        FigureView(
            "mds",
            "Figure 4: modality dominance scores by class; the line is their mean, the dotted one ½. σ₀ is the σ to expect "
            "if no feature preferred a modality.",
        )
    ],
    paper_setting=PaperSetting("figure4", more={"DeCLIP": ("declip_rn50", "cc3m")}),
    covers_all=True,
    bars=("summary/{feature_set}/std",),
    histograms=("scores/mds",),
)
