"""Settings that cannot work end in one line, soon; paths are taken as they are typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from mmmono.core.errors import ConfigError
from mmmono.pipeline.command_line import hydra_arguments, quote
from mmmono.pipeline.settings import CONF, check_settings, known_settings
from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import REPOSITORY, Command

ENTRYPOINTS = sorted(file.stem for file in (REPOSITORY / "experiments").glob("*.py"))
ODD = (
    "split=train", "data [v2]", "дата", "a,b", "it's", 'say "hi"', "épée", "a b", "x{1}", "(1)", "key:value", "50%", "a&b",
    "2017", "true", "null1", "#1", "~tilde", "a;b", "!x", "a@b", "狗", "back\\slash", "-dash", "a=b,c=d",
)  # fmt: skip
SYNTHETIC = ("dataset=synthetic", "dataset.pairs=200", "features=raw", "mds.min_pairs=2")
paths = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text and "${" not in text and text[0] not in "'\"[{" and text != "???"
)


def command_line(
    name: str, *arguments: str, cwd: Path | None = None, **environment: str
) -> tuple[int, str, str, float]:
    """Status, both outputs and seconds of CPU of a real command."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    start = os.times()
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "experiments" / f"{name}.py"), *arguments],
        capture_output=True, text=True, cwd=cwd, env=env, check=False,
    )  # fmt: skip
    end = os.times()
    cpu = end.children_user + end.children_system - start.children_user - start.children_system
    return run.returncode, run.stdout, run.stderr, cpu


def one_line_error(err: str) -> str:
    """The one line that there is."""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@given(paths)
def test_a_path_arrives_as_it_was_typed(path: str) -> None:
    for key in ("dataset.root", "model.pretrained", "+model.checkpoint"):
        argument = quote(f"{key}={path}")
        override = OverridesParser.create().parse_override(argument)
        assert not override.is_sweep_override()
        if path.lower() not in ("null",) and not path.startswith("~/"):
            assert override.value() == path


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("dataset.shards=./split=train/s-0.tar", 'dataset.shards="./split=train/s-0.tar"'),
        ("dataset.shards=дата.tar", 'dataset.shards="дата.tar"'),
        ("dataset.shards=[a=b.tar,'c d.tar',x-{0,1}.tar]", 'dataset.shards=["a=b.tar",\'c d.tar\',"x-{0,1}.tar"]'),
        ('dataset.shards="already = quoted"', 'dataset.shards="already = quoted"'),
        ("dataset.root=2017", 'dataset.root="2017"'),
        ("dataset.root=false", 'dataset.root="false"'),
        ("dataset.cache=false", "dataset.cache=false"),
        ("dataset.cache=true", "dataset.cache=true"),
        ("dataset.root=a,b", 'dataset.root="a,b"'),
        ("model.pretrained=null", "model.pretrained=null"),
        ("model.pretrained=epoch=9-step=100.ckpt", 'model.pretrained="epoch=9-step=100.ckpt"'),
        ("model.name=x=y", 'model.name="x=y"'),
        ("artifacts=~/x", f'artifacts="{Path.home()}/x"'),
        ("dictionary.path=a,b", 'dictionary.path="a,b"'),
        ("sae.init_from=~/x", f'sae.init_from="{Path.home()}/x"'),
        ("dataset.image=2017,a.npy", 'dataset.image="2017,a.npy"'),
        ("publish.folder=~/x", f'publish.folder="{Path.home()}/x"'),
        ("names.vocabulary=2017", 'names.vocabulary="2017"'),
        ("dataset.val_root=2017", 'dataset.val_root="2017"'),
        ("features.k=8,16", "features.k=8,16"),
        ("dataset.shards=${oc.env:HOME}/a.tar", "dataset.shards=${oc.env:HOME}/a.tar"),
        ("+paper=table1", "+paper=table1"),
        ("--multirun", "--multirun"),
    ],
)
def test_values_are_quoted_where_hydra_would_not_take_them(argument: str, expected: str) -> None:
    assert quote(argument) == expected


def test_what_a_shell_made_of_a_range_without_quotation_marks_is_refused() -> None:
    expanded = [f"dataset.shards=data/a-{number:03}.tar" for number in range(8, 11)]
    with pytest.raises(
        ConfigError, match=r"a-008.tar and dataset.shards=data/a-009.tar: only the last one would be read"
    ):
        hydra_arguments(["model=drawingclip", *expanded])
    for arguments in (
        [expanded[0], expanded[0]],
        [expanded[0], "seed=1", expanded[1]],  # a script that adds what its user gives
        ["references=[1F42D,1F42E]", "references=[]"],
        ["dataset.shards=data/a-1.tar", "dataset.shards=other/a-2.tar"],
        ["seed=1", "seed=2"],
    ):
        assert len(hydra_arguments(arguments)) == len(arguments)


def test_a_sweep_may_be_asked_for_behind_settings() -> None:
    given = ["dataset=openmoji", "-m", "seed=0,1"]
    assert hydra_arguments(given) == ["-m", "dataset=openmoji", "seed=0,1"]
    assert hydra_arguments(["seed=0,1", "--multirun"]) == ["--multirun", "seed=0,1"]


def test_paths_may_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quote("dataset.shards=a=b.tar,c=d.tar", multirun=True) == 'dataset.shards="a=b.tar","c=d.tar"'
    assert quote("dataset.shards=a.tar,b.tar", multirun=True) == "dataset.shards=a.tar,b.tar"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar,b.tar").touch()
    assert quote("dataset.shards=a.tar,b.tar", multirun=True) == 'dataset.shards="a.tar,b.tar"'
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("k=8", "k=16,x=é", "b"):  # as Hydra calls the folders of a sweep
        (tmp_path / name).mkdir()
    assert quote("dictionary.path=k=8,b", multirun=True) == 'dictionary.path="k=8","b"'
    assert quote("sae.init_from=~/k=8,~/b", multirun=True) == f'sae.init_from="{tmp_path}/k=8","{tmp_path}/b"'
    assert quote("dictionary.path=k=16,x=é", multirun=True) == 'dictionary.path="k=16,x=é"'
    assert quote("dictionary.path=k=8,b") == 'dictionary.path="k=8,b"'


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    for name in ODD:
        (root / name).mkdir()
        files = [(f"{i}.{ext}", data) for i in range(3) for ext, data in (("jpg", jpeg((i, 9, 9))), ("txt", b"a dog"))]
        write_tar(root / name / "s.tar", files)
    return root


@pytest.mark.parametrize("name", ODD[:8])
def test_every_setting_that_is_a_path_takes_any_folder(
    command: Command, oddly_named: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors name the path letter by letter, so that it has arrived."""
    monkeypatch.chdir(oddly_named)
    whole = (
        (("dataset=store", f"dataset.path={name}"), f"{name} is no feature store"),
        (("dataset=coco", f"dataset.root={name}"), f"{name}/annotations"),
        (("dataset=webdataset", f"dataset.shards={name}/none.tar"), f"{name}/none.tar"),
        (("model=declip_rn50", f"model.checkpoint={name}"), f"model.checkpoint={name} is no file"),
    )
    for arguments, message in whole[:1] if ODD.index(name) % 2 else whole[1:]:
        run = command("extract", f"artifacts={tmp_path}/{name}", *arguments)
        assert run.status == 1
        assert message in one_line_error(run.err)
    assert (tmp_path / name / "runs").is_dir()


@pytest.mark.slow
def test_features_are_extracted_from_and_to_odd_places(command: Command, oddly_named: Path, tmp_path: Path) -> None:
    shards = f"dataset.shards=[{oddly_named}/split=train/s.tar,{oddly_named}/дата/s.tar]"
    run = command(
        "extract",
        f"artifacts={tmp_path}/a=b, [c]",
        "dataset=webdataset",
        shards,
        "dataset.split=all",
        "model=open_clip",
        "model.architecture=ViT-S-32-alt",
        "model.pretrained=null",
        "model.name=my=model/ü",
    )
    assert run.status == 0, run.err
    (store,) = (path for path in (tmp_path / "a=b, [c]" / "features").iterdir() if path.is_dir())
    assert store.name.startswith("my-model-ü-webdataset-")


BAD = [
    ("seed=-1", "seed=-1 must be a whole number from 0 to 4294967295"),
    ("seed=4294967296", "seed=4294967296 must be a whole number"),
    ("seed=1.5", "seed=1.5 must be a whole number"),
    ("seed=null", "seed=null must be a whole number"),
    ("seed=one", "seed=one must be"),
    ("dataset.limit=0", "dataset.limit=0 must be a whole number, at least 1"),
    ("dataset.limit=-1", "dataset.limit=-1 must be a whole number, at least 1"),
    ("dataset.limit=many", "dataset.limit=many must be a whole number, at least 1"),
    ("dataset.train_fraction=0", "dataset.train_fraction=0 must lie between 0 and 1"),
    ("dataset.train_fraction=1.0", "dataset.train_fraction=1.0 must lie between 0 and 1"),
    ("dataset.split_seed=-3", "dataset.split_seed=-3 must be"),
    ("device=gpu", "device=gpu is no device: choose auto, cpu, cuda"),
    ("device=cuda:x", "device=cuda:x is no device"),
    ("device=null", "device=null is no device"),
    ("extraction.dtype=bfloat16", "extraction.dtype=bfloat16 cannot be stored: choose float16 or float32"),
    ("extraction.dtype=int8", "extraction.dtype=int8 cannot be stored"),
    ("extraction.batch_size=0", "extraction.batch_size=0 must be a whole number, at least 1"),
    ("extraction.workers=-1", "extraction.workers=-1 must be a whole number, at least 0"),
    ("extraction.max_skipped=2", "extraction.max_skipped=2 must lie between 0 and 1"),
    ("extraction=5", "extraction is a group of settings"),
    ("dataset.size=small", "dataset.size=small must be a number"),
    ("artifacts=null", "artifacts=null is no folder"),
    ("artifacts=", "artifacts= is no folder"),
    ("model=nothing", "model=nothing names no option: choose one of"),
    ("logger=nothing", "logger=nothing names no option: choose one of"),
    ("trainer=nothing", "trainer=nothing names no option: choose one of"),
    ("dataset=nothing", "dataset=nothing names no option: choose one of"),
    ("dataset=webdataset", "dataset=webdataset needs a value for dataset.shards"),
    (
        "dataset.root=x",
        "called 'dataset.root' here: it belongs to dataset=cc3m, dataset=coco, dataset=folder and more; -",
    ),
    ("mds.min_pairs=3", "no setting is called 'mds.min_pairs' here, though another entrypoint has it; --help"),
    ("partition=sigma", "no setting is called 'partition' here, though another entrypoint has it; --help"),
    ("sede=1", "no setting is called 'sede', did you mean 'seed'?"),
    ("dataset.limit=${seed}", "dataset.limit=0 must be a whole number, at least 1; it is given as ${seed}"),
    (
        "dataset.size=${oc.env:NO_SUCH,30}",
        "dataset.size=30 must be a number; it is given as ${oc.env:NO_SUCH,30}, which is",
    ),
    ("dataset.size=${oc.env:NO_SUCH,30}", "text: try dataset.size='${oc.decode:${oc.env:NO_SUCH,30}}'"),
    ("extraction.dtype=${model.name}", "cannot be stored: choose float16 or float32; it is given as ${model.name}"),
    ("seed=${oc.env:NO_SUCH}", "seed has no value: Environment variable 'NO_SUCH' not found"),
    ("seed=${dataset.sede}", "seed has no value: Interpolation key 'dataset.sede' not found"),
    ("~seed", "~seed removes what this command reads: leave that out, or give another value, seed=…"),
    ("~dataset=openmoji", "give another value, dataset=…"),
    ("~extraction.dtype", "~extraction.dtype removes what this command reads"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_what_cannot_work_is_reported_in_one_line(
    command: Command, tmp_path: Path, override: str, message: str
) -> None:
    run = command("extract", *([] if override.startswith("artifacts") else [f"artifacts={tmp_path}"]), override)
    assert run.status == 1
    assert message in one_line_error(run.err)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("mds", "features=[]", "features=[] chooses no feature set"),
        ("mds", "features=[raw,sae,raw]", "names a feature set twice"),
        ("mds", "features=[raw,see]", "features=see names no option: choose one of"),
        ("mds", "features.normalize=no", "features.normalize=no must be true or false"),
        ("mds", "features.center=mean", "features.center=mean is none of none, pooled, per_modality"),
        ("mds", "partition=none", "partition=none names no option"),
        ("mds", "mds=5", "mds is a group of settings"),
        ("mds", "+mds.min_pair=3", "no setting is called 'mds.min_pair', did you mean 'mds.min_pairs'?"),
        ("mds", "+features.kay=3", "no setting is called 'features.kay', did you mean 'features.k'?"),
        ("mds", "+foce=true", "no setting is called 'foce', did you mean 'force'?"),
        ("mds", "+experiment=mine", "no setting is called 'experiment'"),
        ("mds", "mds={min_pair: 3}", "no setting is called 'mds.min_pair', did you mean 'mds.min_pairs'?"),
        (
            "objectives_synthetic",
            "objectives_synthetic.data={mine: {gap: 1}}",
            "objectives_synthetic.data has no entry 'mine': add it with +objectives_synthetic.data.mine=…",
        ),
        ("plan", "+names.imag=x", "no setting is called 'names.imag', did you mean 'names.image_text'?"),
        ("interpretability", "interpretability.deduplicate=yes", "must be true or false"),
        ("interpretability", "interpretability.n_draws=2.5", "must be a whole number"),
        ("interpretability", "embedder=none", "embedder=none names no option"),
        ("text_to_image", "intervention.strengths=[]", "intervention.strengths=[] is empty"),
        ("text_to_image", "intervention.strengths=[0.1,0.1]", "has 0.1 twice"),
        ("text_to_image", "intervention.strengths=0.5", "must be a list, such as intervention.strengths=[0.5]"),
        ("text_to_image", "generator=none", "generator=none names no option"),
        ("adversarial", "victim=none", "victim=none names no option"),
        ("adversarial", "judge=none", "judge=none names no option"),
        ("adversarial", "adversarial.attack.steps=-1", "must be a whole number, at least 0"),
        ("adversarial", "adversarial.attack.lr=nan", "must be a finite number"),
        ("adversarial", "~adversarial.attack.steps", "adversarial.attack.steps is missing, and this command reads it"),
        (
            "adversarial",
            "+adversarial.attack.step=3",
            "'adversarial.attack.step', did you mean 'adversarial.attack.steps'?",
        ),
        ("gender", "concept=none", "concept=none names no option"),
        ("gender", "labels=none", "labels=none names no option"),
        ("gender", "gender.confidence=1.5", "must lie between 0 and 1"),
        ("train", "sae.lr=0", "sae.lr=0 must be a number above 0"),
        ("train", "sae.lr=-1e-3", "sae.lr=-0.001 must be a number above 0"),
        ("train", "sae.lr=null", "sae.lr=null must be a number above 0"),
        ("train", "sae.auxk_coefficient=-1", "sae.auxk_coefficient=-1 must be a number, at least 0"),
        ("train", "sae.auxk_coefficient=null", "sae.auxk_coefficient=null must be a number, at least 0"),
    ],
)
def test_settings_of_analyses(command: Command, tmp_path: Path, name: str, override: str, message: str) -> None:
    run = command(name, f"artifacts={tmp_path}", override)
    assert run.status == 1
    assert message in one_line_error(run.err)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "override", "message"),
    [
        ("ncl", "ncl.input_noise=-1", "ncl.input_noise=-1 must be a number, at least 0"),
        ("ncl", "ncl.input_noise=much", "ncl.input_noise=much must be a number, at least 0"),
        ("ncl", "ncl.similarity=euclid", "ncl.similarity='euclid' is neither 'cosine' nor 'dot'"),
        ("ncl", "ncl.expansion=-1", "ncl.expansion=-1 leaves no feature"),
        ("l1", "l1.penalty_warmup_steps=-5", "l1.penalty_warmup_steps=-5 must be a whole number, at least 0"),
        ("ica", "ica.max_iter=0", "ica.max_iter=0 must be a whole number, at least 1"),
    ],
)
def test_settings_of_feature_sets(command: Command, tmp_path: Path, features: str, override: str, message: str) -> None:
    run = command(
        "mds", f"artifacts={tmp_path}", "dataset=synthetic", "dataset.pairs=300", "dataset.dim=8", f"features={features}",
        override,
    )  # fmt: skip
    assert run.status == 1
    assert message in one_line_error(run.err)


def test_known_settings_are_those_without_a_value_too() -> None:
    assert {"seed", "mds.min_pairs", "jumprelu.target_l0", "dataset.shards", "dataset"} <= known_settings()


def test_a_configuration_of_ones_own_may_have_variables_but_no_mistyped_settings(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    for content, message in (
        ("many: 0.5\nextraction:\n  batch_size: ${many}\n  workers: -1\n", "extraction.workers=-1 must be"),
        ("mds:\n  min_pair: 3\n", "no setting is called 'mds.min_pair', did you mean 'mds.min_pairs'?"),
    ):
        file.write_text(f"# @package _global_\n{content}")
        run = command(
            "mds",
            "--config-dir",
            str(tmp_path),
            f"artifacts={tmp_path}",
            "dataset=synthetic",
            "features=raw",
            "+experiment=mine",
        )
        assert run.status == 1
        assert message in one_line_error(run.err)
    run = command("mds", "--config-dir", str(tmp_path), f"artifacts={tmp_path}", "+experiment=main")
    assert "experiment=main names no option: choose one of mine" in one_line_error(run.err)


@pytest.mark.parametrize("given", [["--config-path", "mine"], ["--config-path=mine"], ["-cp", "./mine"]])
def test_a_folder_with_all_configuration_is_one_of_the_working_folder(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read = hydra_arguments([*given, "features=raw"])
    folder = read[0].partition("=")[2] or read[1]
    assert folder == str(tmp_path / "mine")
    assert "features=raw" in read


@pytest.mark.parametrize("name", ENTRYPOINTS)
def test_every_entrypoint_checks_and_its_own_settings_pass(
    command: Command, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command(name, f"artifacts={tmp_path}", "seed=-1")
    assert run.status == 1
    assert "seed=-1 must be a whole number" in one_line_error(run.err)
    run = command(name, f"artifacts={tmp_path}", "model=clip_rn5")
    assert "model=clip_rn5 names no option: choose one of clip_rn50, " in one_line_error(run.err)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        monkeypatch.setenv("HF_TOKEN", "x")
        for option in ("openmoji", "cc3m"):
            check_settings(compose(name, overrides=[f"dataset={option}"]), name)


@pytest.mark.parametrize("name", ["extract", "train", "mds", "report"])
def test_jobs_of_a_multirun_are_checked(command: Command, tmp_path: Path, name: str) -> None:
    run = command(name, "-m", f"artifacts={tmp_path}", "seed=-1,-2")
    assert run.status == 1
    assert "Traceback" not in run.err
    assert "job 0: seed=-1 must be" in run.err


# Runs every entrypoint, and prints what it said and which heavy libraries have been imported so far. Listing the options for
# --help takes most of the time, and is Hydra's: a few entrypoints with other groups stand for all.
HELPED = ("extract", "mds", "adversarial", "steered_images", "report", "plan")
LIGHT = """
import contextlib, io, json, runpy, sys
for path in sys.argv[2:]:
    helped = any(path.endswith(f"/{name}.py") for name in HELPED)
    for arguments in ([["--help"]] if helped else []) + [[f"artifacts={sys.argv[1]}", "dataset=webdataset"]]:
        script, sys.argv = sys.argv, [path, *arguments]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                runpy.run_path(path, run_name="__main__")
                status = 0
            except SystemExit as stop:
                status = stop.code or 0
        sys.argv = script
        heavy = [name for name in ("torch", "pandas") if name in sys.modules]
        print(json.dumps([status, out.getvalue(), err.getvalue(), heavy]))
"""


def test_help_and_obvious_errors_come_before_heavy_imports(tmp_path: Path) -> None:
    """In one process for all entrypoints: none of them may import what is heavy."""
    scripts = [str(REPOSITORY / "experiments" / f"{name}.py") for name in ENTRYPOINTS]
    run = subprocess.run(
        [sys.executable, "-c", f"HELPED = {HELPED!r}{LIGHT}", str(tmp_path), *scripts],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == len(ENTRYPOINTS) + len(HELPED)
    datasets = "cc3m, coco, drawings, folder, huggingface, icons, openmoji, store, synthetic, table, webdataset"
    for name in ENTRYPOINTS:
        if name in HELPED:
            status, out, _, heavy = found.pop(0)
            assert (status, heavy) == (0, []), name
            assert f"python experiments/{name}.py" in out
            assert f"dataset: {datasets}" in out
        status, _, err, heavy = found.pop(0)
        assert (status, heavy) == (1, []), name
        assert "needs a value for dataset.shards" in one_line_error(err)


def test_a_missing_token_is_reported_soon(tmp_path: Path) -> None:
    hidden = {"HF_TOKEN": "", "HF_HOME": str(tmp_path), "HUGGING_FACE_HUB_TOKEN": ""}
    status, _, err, cpu = command_line("extract", f"artifacts={tmp_path}", "dataset=cc3m", **hidden)
    assert status == 1
    assert "dataset=cc3m streams from a hub that wants a token: set HF_TOKEN" in one_line_error(err)
    assert cpu < 6


def test_errors_within_instantiate_are_one_line(command: Command, tmp_path: Path) -> None:
    root = f"artifacts={tmp_path}"
    for arguments in (
        ("extract", root, "dataset.split=test"),
        ("extract", root, "dataset=store", "dataset.path=x", "dataset.limit=3"),
        ("extract", root, "dataset=synthetic", "+dataset.sizes=3"),
        ("extract", root, "logger=wandb", "+logger.nothing=1"),
    ):
        run = command(*arguments)
        assert run.status == 1
        one_line_error(run.err)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_failing_jobs_of_a_multirun_say_so_in_a_line(command: Command, tmp_path: Path, launcher: str) -> None:
    chosen = [] if launcher == "basic" else ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    run = command("extract", "-m", f"artifacts={tmp_path}", "dataset=synthetic", "dataset.split=tset,test", *chosen)
    assert run.status == 1
    assert "Traceback" not in run.err
    assert "Error executing job" not in run.err
    lines = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert [line.split(": dataset")[0] for line in lines] == ["error: job 0", "error: job 1"][: len(lines)]
    assert lines


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.shards=glob(*.tar)", "glob() chooses options of a group, and dataset.shards is no group"),
        (
            "partition=glob(x*)",
            "partition=glob(x*) matches nothing: glob() chooses options of a group, and its options are",
        ),
        ("features=glob([s*,r*],exclude=[*a*,sp*])", "features=glob([s*,r*],exclude=[*a*,sp*]) matches nothing"),
    ],
)
def test_a_sweep_over_nothing_is_no_success(command: Command, tmp_path: Path, override: str, message: str) -> None:
    run = command("mds", "-m", f"artifacts={tmp_path}", "dataset=webdataset", override)
    assert run.status == 1
    assert message in one_line_error(run.err)


@pytest.mark.parametrize("chdir", ["true", "false"])
def test_relative_paths_begin_where_the_command_was_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chdir: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = command("mds", "artifacts=made here", *SYNTHETIC, f"hydra.job.chdir={chdir}")
    assert run.status == 0, run.err
    assert {path.name for path in (tmp_path / "made here").iterdir()} == {
        "features",
        "partitions",
        "results",
        "runs",
        "sharedness",
    }
    (store,) = (path for path in (tmp_path / "made here" / "features").iterdir() if path.is_dir())
    stored = ("dataset=store", f"dataset.path=made here/features/{store.name}", "model.name=synthetic")
    run = command(
        "mds", "artifacts=made here", *stored, *SYNTHETIC[2:], f"hydra.job.chdir={chdir}", "dataset.split=all"
    )
    assert run.status == 0 or "was made by model" in run.err, run.err
    assert Path.cwd() == tmp_path


def test_a_root_that_is_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = command("extract", f"artifacts={tmp_path}/file", *SYNTHETIC[:2])
    assert f"artifacts={tmp_path}/file is a file: give a folder" in one_line_error(run.err)
    run = command("extract", f"artifacts={tmp_path}/file/below", *SYNTHETIC[:2])
    assert f"cannot be made: {tmp_path}/file is a file" in one_line_error(run.err)
    run = command("extract", f"artifacts={tmp_path}/{'x' * 300}", *SYNTHETIC[:2])
    assert "File name too long" in one_line_error(run.err)


@pytest.mark.parametrize("setting", ["artifacts", "dataset.cache_root", "+judge.cache", "hydra.run.dir"])
@pytest.mark.parametrize("address", ["s3://user:secret@bucket/root", "'gs://bucket/root'"])
def test_an_address_is_no_folder_to_write_to(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = command("extract", f"{setting}={address}", *SYNTHETIC[:2])
    scheme = address.strip("'")[:5]
    said = one_line_error(run.err)
    assert said.startswith(f"error: {setting.lstrip('+')}={scheme}… is no folder: what is written needs a disk")
    assert "secret" not in said
    assert not list(tmp_path.iterdir())  # Hydra, for one, would make a folder called s3:


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own that `mount` can make read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting needs root and a kernel that allows it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_what_is_there_is_read_from_a_root_that_cannot_be_written(command: Command, read_only: Path) -> None:
    arguments = (f"artifacts={read_only}", *SYNTHETIC)
    first = command("mds", *arguments)
    assert first.status == 0, first.err
    subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    again = command("mds", *arguments)
    assert (again.status, again.out) == (0, first.out), again.err
    other = command("mds", *arguments, "dataset.seed=1")
    assert f"cannot write under {read_only}" in one_line_error(other.err)
    new = command("mds", f"artifacts={read_only}/new", *SYNTHETIC)
    assert "cannot be made" in one_line_error(new.err)


def test_what_must_not_be_read_and_logs_that_cannot_be_written_are_named(command: Command, tmp_path: Path) -> None:
    """As a user whom modes concern, which root is not without giving that up."""
    arguments = (f"artifacts={tmp_path}/a", *SYNTHETIC)
    assert command("mds", *arguments).status == 0
    theirs, logs = tmp_path / "a" / "results", tmp_path / "logs"
    theirs.chmod(0)
    logs.mkdir(mode=0o555)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root needs setpriv to be like others")
    as_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    script = str(REPOSITORY / "experiments" / "mds.py")
    for more, line in (
        ((), f"cannot read {theirs} (Permission denied): ask its owner for the right, or point artifacts=/path else"),
        (
            (f"hydra.run.dir={logs}/x",),
            f"cannot write under {logs}/x (Permission denied): point hydra.run.dir=/writable",
        ),
    ):
        run = subprocess.run(
            [*as_user, sys.executable, script, *arguments, *more],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=False,
        )
        assert run.returncode == 1
        assert line in run.stderr.splitlines()[-1]
    theirs.chmod(0o755)


def test_hydras_own_options_are_left_alone() -> None:
    assert hydra_arguments(["--cfg", "job", "artifacts=null"]) == ["--cfg", "job", "artifacts=null"]
    assert hydra_arguments(["--help"]) == ["--help"]
