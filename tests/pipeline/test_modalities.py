"""A store of audio and texts from the command line: whatever says what its sides are says audio and text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from PIL import Image

from mmmono.analyses import ANALYSES
from mmmono.core.modality_names import ModalityNames
from mmmono.features.synthetic import SyntheticParameters, synthesize
from mmmono.pipeline.analysis import Analysis, shown_figures
from mmmono.pipeline.shared_settings import TOGETHER
from mmmono.reporting.contents import contents
from mmmono.reporting.drawn import drawn
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command, newest

AUDIO = ModalityNames("audio", "text")
PAIRS = 700
LABEL = "dataset.label=genre"  # of what is said about them; zero-shot classification would embed its values by a model
# Analyses that need no picture, with what each needs beside the store.
RUN = {
    "train": (), "mds": (), "certainty": ("certainty.n_permutations=50", "certainty.n_bootstrap=50"), "sharedness": (),
    "robustness": (), "faithfulness": (), "ablation": (LABEL, "ablation.n_random=2", "ablation.folds=1"),
    "consequences": ("consequences.n_random=2",), "consensus": ("consensus.n_seeds=1", "consensus.n_bootstrap=20"),
    "names": ("names.phrase=1", "names.max_share=0.9"), "concepts": (LABEL, "concepts.min_groups=2", "concepts.k=3"),
    "steering": ("steering.per_class=0", "steering.queries=10", "steering.images=100"),
    "objectives": ("objectives.n_seeds=1", "objectives.n_random=2"),
}  # fmt: skip
SAE = (
    "features=sae", "features.k=3", "features.expansion=2", "trainer=cpu", "trainer.max_steps=60", "trainer.min_steps=60",
    "trainer.val_check_interval=20",
)  # fmt: skip
PICTURED = re.compile(r"\b(ImgD|TextD|[Ii]mages?|[Tt]exts?|Visual|Textual)\b")  # what nobody says of X-rays and reports
SAID = re.compile(r"\b(ImgD|[Ii]mages?|i→t|t→i)\b")  # what nobody says of audio


def store(folder: Path, pictures: bool = False) -> tuple[str, ...]:
    pairs = synthesize(SyntheticParameters(pairs=PAIRS, dim=16, image_atoms=6, text_atoms=6, shared_atoms=6, active=3))
    np.save(folder / "audio.npy", pairs.image.numpy())
    np.save(folder / "words.npy", pairs.text.numpy())
    captions = [" ".join(f"word{i}" for i in np.flatnonzero(row)) or "silence" for row in pairs.text_codes.numpy()]
    strongest = pairs.image_codes[:, pairs.kind == 2].argmax(1).tolist()
    rows = {"key": range(PAIRS), "caption": captions, "genre": [f"genre {i % 3}" for i in strongest]}
    if pictures:
        rows["image_path"] = [f"{row}.png" for row in range(PAIRS)]
        rows["caption"] = [f"a {('man', 'woman')[row % 2]} with {caption}" for row, caption in enumerate(captions)]
        for row in range(PAIRS):
            Image.new("RGB", (8, 8), (row % 256, 0, row // 3)).save(folder / f"{row}.png")
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return (
        "dataset=store", f"dataset.image={folder / 'audio.npy'}", f"dataset.text={folder / 'words.npy'}",
        f"dataset.metadata={folder / 'rows.csv'}", "dataset.train_fraction=0.5", "model.name=clap",
        "mds.min_pairs=2", f"artifacts={folder / 'artifacts'}",
    )  # fmt: skip


def visible(page: str) -> Iterator[str]:
    """Text of the sections of a report that have results, without the recipes, which have the code's words."""
    for section in re.findall(r'<section class="results" id="section-.*?</section>', page, flags=re.S):
        if "Not computed yet" not in section:
            shown = re.sub(r"<pre>.*?</pre>|<code>.*?</code>|<[^>]*>", " ", section, flags=re.S)
            yield " ".join(html.unescape(shown).split())


@pytest.mark.slow
def test_everything_says_the_names(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOGETHER, " ".join([*RUN, "report"]))  # each takes the settings that it has
    given = (*store(tmp_path), *SAE, "dataset.modalities=[audio,text]")
    artifacts = tmp_path / "artifacts"
    for analysis, more in RUN.items():
        run = command(analysis, *given, *more)
        assert run.status == 0, run.err
        assert not SAID.findall(run.out.partition(str(artifacts))[0]), run.out
    run = command("report", *given)
    assert run.status == 0, run.err
    sections = list(visible((newest(artifacts, "report") / "index.html").read_text()))
    assert len(sections) == len(RUN) - 2  # those with a label are of other settings
    assert not [found for section in sections for found in SAID.findall(section)]
    assert "AudioD" in " ".join(sections)
    for analysis in ANALYSES:
        if analysis.name in RUN:
            kind = "dictionaries/sae-*" if analysis.name == "train" else f"results/{analysis.name}-*"
            looked_at(analysis, next(folder for folder in artifacts.glob(kind) if (folder / "recipe.json").exists()))


def looked_at(analysis: Analysis, folder: Path) -> None:
    """Look at the figures of a result, and at its tables as W&B and TensorBoard show them."""
    recipe = json.loads((folder / "recipe.json").read_text())
    for name, figure in analysis.draw(Result(folder, recipe, "clap", "store", AUDIO)):
        texts = [text.get_text() for text in figure.findobj(Text)]
        plt.close(figure)
        assert not [found for text in texts for found in SAID.findall(text)], name
        assert drawn(folder)[1] == AUDIO
    tables = contents(folder, AUDIO)
    for name, frame in tables.tables.items():
        shown = tables.shown(frame)
        assert not [column for column in shown if re.search(r"(^|[_/ ])(image|ImgD|i2t)($|[_/ ])", str(column))], name
        assert not set(shown.get("class", [])) & {"ImgD"}


@pytest.mark.slow
def test_what_shows_pictures_says_the_names_as_well(tmp_path: Path, command: Command) -> None:
    """As of X-ray images and their reports."""
    given = (*store(tmp_path, pictures=True), *SAE, "dataset.modalities=[x-ray,report]", "partition=counts")
    given = (*given, "partition.image_dominant=8", "partition.text_dominant=8")
    names = ModalityNames("x-ray", "report")
    runs = {
        "top_samples": ("top_samples.m=3", "top_samples.shown=3"),
        "gender": ("gender.min_samples=20", "gender.draws=2", "gender.references=5"),
        "interpretability": ("interpretability.m=2", "interpretability.n_draws=2", "interpretability.random_pool=50"),
    }
    for analysis in ANALYSES:
        if analysis.name not in runs:
            continue
        run = command(analysis.name, *given, *runs[analysis.name])
        assert run.status == 0, run.err
        assert not PICTURED.findall(run.out.partition(str(tmp_path / "artifacts"))[0]), run.out
        folder = newest(tmp_path / "artifacts", analysis.name)
        result = Result(folder, json.loads((folder / "recipe.json").read_text()), "clap", "store", names)
        said = [caption for _, caption in shown_figures(analysis, result)]
        for _, figure in analysis.draw(result):
            said += [text.get_text() for text in figure.findobj(Text)]
            plt.close(figure)
        assert not [found for text in [*said, analysis.asked(names)] for found in PICTURED.findall(text)]
        assert "XRayD" in run.out + "".join(said)


@pytest.mark.slow
def test_a_store_can_be_named_otherwise_and_nothing_is_computed(tmp_path: Path, command: Command) -> None:
    given = (*store(tmp_path), "features=raw")
    first = command("sharedness", *given)
    assert "ImgD" in first.out
    folder = newest(tmp_path / "artifacts", "sharedness")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*.parquet")}
    figure = (folder / "sharedness.png").read_bytes()
    second = command("sharedness", *given, "dataset.modalities=[audio,text]")
    assert "AudioD" in second.out
    assert "ImgD" not in second.out
    assert (folder / "sharedness.png").read_bytes() != figure
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*.parquet")} == before
    assert command("sharedness", *given).out == first.out
    assert (folder / "sharedness.png").read_bytes() == figure


def test_questions_need_no_article_that_a_name_might_not_take() -> None:
    for names in (ModalityNames("audio", "x-ray"), ModalityNames("x-ray", "audio")):
        for analysis in ANALYSES:
            assert not re.search(r"\b[Aa]n? (audio|x-ray)\b", analysis.asked(names)), analysis.name


@pytest.mark.parametrize(
    ("analysis", "instead"),
    [
        ("interpretability", ""), ("text_to_image", ""), ("steered_images", ""),
        ("top_samples", "top_samples.per_class=0 makes the table alone, without contact sheets"),
        ("gender", "gender.shown=0 leaves Figure 7 out"),
        ("steering", "steering.per_class=0 makes no contact sheets"),
        ("explorer", "explorer.thumbnails=false makes the page without"),
    ],
)  # fmt: skip
def test_without_pictures_nothing_is_made_that_needs_them(
    tmp_path: Path, command: Command, analysis: str, instead: str
) -> None:
    """No dictionary is trained first, and no model loaded."""
    given = (*store(tmp_path), "dataset.modalities=[audio,text]", *SAE, "steering.images=100")
    run = command(analysis, *(one for one in given if analysis == "steering" or not one.startswith("steering")))
    assert run.status == 1
    assert "pictures are wanted here" in run.err
    assert run.err.strip().endswith(instead or "add a column image_path to its metadata")
    assert run.err.count("\n") == 1
    made = {path.parent.name for path in (tmp_path / "artifacts").glob("*/*")}
    assert made <= {"features", "results", "runs", "locks"}


@pytest.mark.parametrize(
    ("analysis", "given", "left_out"),
    [
        ("top_samples", ("top_samples.per_class=0",), "raw-ImgD.png"),
        (
            "gender",
            ("gender.shown=0", "gender.min_samples=5", "concept.a=low", "concept.b=high", "concept.words_a=[word12,word13]",
             "concept.words_b=[word15,word16]"),
            "raw-figure7.png",
        ),
    ],
)  # fmt: skip
def test_what_needs_no_pictures_is_made_without_them(
    tmp_path: Path, command: Command, analysis: str, given: tuple[str, ...], left_out: str
) -> None:
    none, *more = given
    for pictures in (False, True):
        (tmp_path / str(pictures)).mkdir()
        given = (*store(tmp_path / str(pictures), pictures), "features=raw", "partition.n_sigma=0.5", *more)
        run = command(analysis, *given, *(() if pictures else (none,)))
        assert run.status == 0, run.err
    without, with_pictures = (newest(tmp_path / str(had) / "artifacts", analysis) for had in (False, True))
    assert (with_pictures / left_out).exists()
    assert (with_pictures / "images").exists()
    assert not (without / left_out).exists()
    assert not (without / "images").exists()
    assert {file.name for file in without.glob("*.parquet")} == {file.name for file in with_pictures.glob("*.parquet")}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("[audio]", "are not two names"), ("[audio,text,video]", "are not two names"), ("[audio,'']", "has the name ''"),
        ("audio", "must be a list"), ("[audio,audio]", "has audio twice"), ("[Audio,audio]", "are one name"),
        ("[]", "is empty"), ("[cross,text]", "would give two classes one name"),
    ],
)  # fmt: skip
def test_names_that_are_none_are_one_line_before_any_work(
    tmp_path: Path, command: Command, setting: str, says: str
) -> None:
    given = ("dataset=store", f"dataset.path={tmp_path}", "features=raw", f"artifacts={tmp_path / 'artifacts'}")
    run = command("mds", *given, f"dataset.modalities={setting}")
    assert run.status == 1
    assert says in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "artifacts" / "results").exists()
