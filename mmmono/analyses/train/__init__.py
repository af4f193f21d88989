"""Dictionaries: training of the sparse autoencoder and the non-negative contrastive head (Section 3.1, Appendix A.1)."""

from __future__ import annotations

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.reporting.result import Fields, Result, Rows

FIGURES = {"sae": "Figure 11", "ncl": "Figure 12"}
VALIDATION = "val/"  # prefix of the metrics of a validation


def metric_rows(result: Result) -> Rows:
    """Metrics at the last validation, one row each."""
    last = result.rows("history")[-1]
    metrics = {name.removeprefix(VALIDATION): value for name, value in last.items() if name.startswith(VALIDATION)}
    ends = result.rows("end") if (result.folder / "end.parquet").exists() else []
    end = {"steps": int(last["step"]), **({"ended by": ends[0]["ended_by"]} if ends else {})}
    return [{"metric": result.modalities.column(name), "value": value} for name, value in {**end, **metrics}.items()]


def _fields(result: Result) -> Fields:
    kind = result.recipe["kind"]
    return {"kind": kind, "figure": FIGURES.get(kind, "As Figures 11 and 12")}


TRAIN = Analysis(
    name="train",
    section="3.1, A.1",
    title="Dictionaries",
    question=(
        "A TopK sparse autoencoder and a non-negative contrastive head, each shared by both modalities, trained until their "
        "active dimensions and their validation loss no longer fall."
    ),
    paper="Figures 11, 12",
    targets=("appendix-a.1", "demo"),
    kind="dictionaries",
    columns={
        "end": {
            "steps": "training steps",
            "ended_by": "what ended the training: max_steps, max_epochs, min_steps, active dimensions or loss",
        },
        "history": {
            "step": "training steps before the validation",
            "pairs": "pairs seen before the validation, repetitions included",
            **{
                f"val/{modality}/{name}": f"{meaning}, on {modality}s"
                for modality in ("image", "text")
                for name, meaning in {
                    "active": "features that are active on at least one sample",
                    "dead_fraction": "share of features that are active on no sample",
                    "l0": "mean number of active features per sample",
                    "fvu": "fraction of variance unexplained (only with a decoder)",
                    "explained_variance": "1 minus the fraction of variance unexplained (only with a decoder)",
                    "cosine": "mean cosine of embedding and reconstruction (only with a decoder)",
                }.items()
            },
            "val/loss": "contrastive loss (only of the contrastive head)",
            **{
                f"val/{a}_to_{b}_recall@{k}": f"share of {a}s with some {b} of their group among the {k} nearest (NCL only)"
                for a, b in (("image", "text"), ("text", "image"))
                for k in (1, 10)
            },
        },
    },
    tables=[TableView("training-{kind}", "At the last validation, {kind}", metric_rows)],
    figures=[FigureView("training_curves", "{figure}, {kind}: active dimensions over training.")],
    fields=_fields,
    paper_setting=PaperSetting("figure11"),
    features="[sae,ncl]",
    curves=(
        ("val/image/active", "val/text/active"),
        ("val/image/fvu", "val/text/fvu"),
        ("val/image/l0", "val/text/l0"),
        ("val/text_to_image_recall@1", "val/image_to_text_recall@1"),
        ("train/loss",),
    ),
)
