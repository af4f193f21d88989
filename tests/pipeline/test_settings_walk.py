"""Every setting of every entrypoint changes the address of something that the entrypoint makes, or provably no result.

Nothing is computed: the features are random rows at the address where the entrypoint would have put its own, everything
derived from them is only asked where it would lie.
"""

from __future__ import annotations

import fnmatch
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from mmmono.analyses import ANALYSES
from mmmono.commands.explorer.command import explore
from mmmono.commands.extract import extract
from mmmono.commands.report.command import report
from mmmono.core.artifacts import RECIPE_FILE
from mmmono.core.errors import MissingArtifactError, MmmonoError
from mmmono.pipeline.running import CONF
from mmmono.pipeline.training import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from tests.pipeline.random_features import Addresses, Reached, put_random_features
from tests.vlm.tiny_transformers import write_tiny

PAIRS, DIM = 200, 16
ROWS = [
    {"key": f"many/{i}", "caption": f"a {'woman' if i % 2 else 'man'} on a beach {i}", "locator": "", "group": str(i),
     "color": "red" if i % 3 else "blue", "other": "x" if i % 2 else "y"}
    for i in range(PAIRS)
]  # fmt: skip

# Settings that change no result, each with the reason. Reviewed: an entry here is a claim that somebody checked.
WITHOUT_EFFECT: Mapping[str, str] = {
    "*|artifacts": "where results lie, not what they are",
    "*|device": "where encoders and dictionaries run; with extraction.precision=auto a GPU has another precision",
    "*|logger.*": "where results are recorded",
    "*|extraction.batch_size": "pairs of one forward pass: each is encoded by itself",
    "*|extraction.workers": "processes that read",
    "*|extraction.devices": "which processes encode",
    "*|extraction.max_skipped": "how much loss ends an extraction, not what it extracts",
    "*|extraction.max_broken_shards": "how much loss ends an extraction; what was lost is in the store's content",
    "*|dataset.cache": "where copies of shards are kept",
    "*|dataset.cache_root": "where copies of shards are kept",
    "*|dataset.timeout": "how long a host is waited for",
    "*|dataset.retries": "how often a host is asked",
    "*|model.force_quick_gelu": "a tag knows its activation; see the walk with random weights",
    "*|model.seed": "of random weights; see the walk with them",
    "*|training.checkpoint_every": "how much is lost when a training is killed",
    "*|training.together": "each dictionary is the one that it is alone, see test_together",
    "*|trainer.max_time": "a training that it breaks off is not published",
    "*|trainer.devices": "how many processes share a batch",
    "*|trainer.strategy": "how processes share a batch",
    "*|trainer.num_nodes": "how many processes share a batch",
    "*|trainer.accelerator": "what a GPU trained serves on a CPU",
    "*|trainer.log_every_n_steps": "how often curves are logged elsewhere",
    "*|engine.*": "which processes and threads do the work",
    "*|images.cache": "how many of the images are kept on disk, not which are shown",
    "*|dataset.split": "which split is evaluated; extraction of a hash split takes all pairs",
    "steered_answers|victim.repeats": "an answer is asked for once; any other number is refused",
    "explorer|explorer.compare": "changes a command line, of which there is none here; see test_explorer_compare",
    "extract|trainer.*": "nothing is trained",
    "extract|seed": "nothing is drawn",
    "extract|extraction.part_of": "which part of the work this process does",
    "extract-synthetic|dataset.limit": "has no meaning for synthetic pairs, and is refused",
    "extract-folder|dataset.caption_lines": "is of .txt files, and refused where there is a metadata file, as here",
    "extract-huggingface|dataset.revision": "a folder has none; of a dataset on the hub, the version is in the recipe",
    "extract|dataset.label": "which of the stored labels is classified by",
    "extract|dataset.train_fraction": "the store holds all pairs, the split is made on reading",
    "extract|dataset.split_seed": "the store holds all pairs, the split is made on reading",
    "extract|dataset.select_fraction": "the store holds all pairs, the split is made on reading",
    "extract|dataset.group": "the store holds the metadata, groups are made on reading",
    "extract|dataset.near_duplicates": "the store holds the embeddings, groups are made on reading",
    "*|dataset.label": "which label is classified by: of analyses that classify, a part of the recipe",
    "train|objective": "which of the metrics a sweeper gets",
    "adversarial|adversarial.batch_size": "images of one forward pass: each is aligned by itself",
    "adversarial-clip_zero_shot|judge.phrases": "it judges itself; see the walk with victim=llava15",
    "adversarial|judge.key_variable": "where the key is found",
    "adversarial|judge.base_url_variable": "where the address is found, which is in the recipe",
    "adversarial|judge.timeout": "how long a verdict is waited for",
    "adversarial|judge.attempts": "how often a verdict is asked for",
    "adversarial|judge.workers": "how many verdicts are asked for at a time",
    "adversarial|judge.cache": "where verdicts are kept",
    "names|names.samples": "what a judge sees; see the walk with one",
    "names|names.judged": "what a judge is asked about; see the walk with one",
    "names|judge.prompt": "what a judge is asked; see the walk with one",
    "names-judge|judge.key_variable": "where the key is found",
    "names-judge|judge.base_url_variable": "where the address is found, which is in the recipe",
    "names-judge|judge.timeout": "how long a reply is waited for",
    "names-judge|judge.attempts": "how often a name is asked for",
    "names-judge|judge.workers": "how many names are asked for at a time",
    "names-judge|judge.cache": "where replies are kept",
    "*|embedder.batch_size": "samples of one forward pass: each is embedded by itself",
    "*|embedder.name": "what tables call it",
    "gender|labels.batch_size": "images of one forward pass: each is labeled by itself",
    "faithfulness|partition.*": "features are not sorted",
    "faithfulness|mds.*": "features are not scored",
    "steered_answers|steered_answers.show": "which of the features that `names` found; names are given here",
    "text_to_image|generator.encoder": "only that of the model works, which is a part of the recipe",
    "text_to_image|generator.cpu_offload": "where weights wait",
    "trainings|analysis": "an option of the group, which brings the settings of the analysis",
    "sweep|sae.*": "all dictionaries are compared, whatever they were trained with",
    "sweep|ncl.*": "all dictionaries are compared, whatever they were trained with",
    "sweep|features.*": "all dictionaries are compared, whatever they were trained with",
    "sweep|training.*": "all dictionaries are compared, whatever they were trained with",
    "sweep|trainer.*": "all dictionaries are compared, whatever they were trained with",
    "sweep|seed": "all dictionaries are compared, whatever they were trained with",
    "sweep|sweep.embedder": "which results are compared, whose addresses are in the recipe",
    **{f"{name}|model.*": "synthetic pairs are no model's" for name in ("objectives_synthetic", "validate")},
    **{f"{name}|extraction.*": "nothing is extracted" for name in ("objectives_synthetic", "validate")},
    "objectives_synthetic|partition.*": "latents are sorted by fixed borders",
    "validate|sae.k": "follows from dataset.active and validate.parameters.k",
    "validate|sae.expansion": "follows from validate.latents",
    "validate|ncl.expansion": "follows from validate.latents",
    "validate|features.k": "follows from dataset.active and validate.parameters.k",
    "validate|features.expansion": "follows from validate.latents",
    "validate|validate.jobs": "processes that train",
    "validate-quick|validate.parameters.*": "of runs that are not quick; see their walk",
    "validate-quick|validate.equal_gains.*": "of runs that are not quick; see their walk",
    "validate|dataset.limit": "has no meaning for synthetic pairs, and is refused",
    "validate|seed": "runs have seeds of their own, validate.seeds of them",
    "validate|dataset.seed": "runs have seeds of their own, validate.seeds of them",
    "validate|dataset.label": "synthetic pairs have none",
    "objectives_synthetic|*.k": "follows from dataset.active",
    "objectives_synthetic|*.expansion": "follows from objectives_synthetic.latents",
    "objectives_synthetic|objectives_synthetic.jobs": "processes that train",
    "objectives_synthetic-quick|objectives_synthetic.seeds": "of runs that are not quick; see their walk",
    "objectives_synthetic-quick|objectives_synthetic.data.wide_gap.*": "of runs that are not quick; see their walk",
    "objectives_synthetic|dataset.limit": "has no meaning for synthetic pairs, and is refused",
    "objectives_synthetic|seed": "runs have seeds of their own, objectives_synthetic.seeds of them",
    "objectives_synthetic|dataset.seed": "runs have seeds of their own, objectives_synthetic.seeds of them",
    "objectives_synthetic|dataset.label": "synthetic pairs have none",
}

FAMILY_NAMES = ("batch_topk", "matryoshka", "jumprelu", "gated", "l1", "matching_pursuit")
FAMILY_NAMES += ("tied", "frozen_decoder", "frozen_encoder")
FAMILY_NAMES += ("sparc", "group_sparse", "iso_energy", "infonce", "matched_saes")

# Another valid value of settings of which none can be guessed.
OTHER: Mapping[str, Any] = {
    "mds.undefined": "half",
    "engine.workers": 2,
    "model.drawings": "openmoji",
    "random_sets": "size",
    "dataset.captions": "all",
    "dataset.split": "train",
    "dataset.group": "caption",
    "top_samples.side": "positive",
    "interpretability.side": "positive",
    "explorer.side": "positive",
    "dataset.near_duplicates": 0.9,
    "training.validation": "val",
    "dataset.label": "other",
    "dataset.label_keys": ["color"],
    "dataset.caption_key": "caption",
    "dataset.limit": 7,
    "dataset.root": "{root}",
    "model.checkpoint": "{vit}",
    "model.preprocess_of": "ViT-B-16-SigLIP/webli",
    "model.mean": [0.1, 0.2, 0.3],
    "model.std": [0.1, 0.2, 0.3],
    "model.interpolation": "bilinear",
    "model.resize_mode": "squash",
    "dataset.shards": "{other_shard}",
    "dataset.val_shards": "{other_shard}",
    "dataset.key_end": "last_dot",
    "dataset.image_column": "copy",
    "dataset.caption_column": "other",
    "dataset.path": "{other_table}",
    "dataset.val_path": "{other_table}",
    "dataset.val_root": "{root}",
    "dataset.id": "{other_rows}",
    "dataset.config": "default",
    "dataset.rows": "validation",
    "dataset.val_rows": "validation",
    "model.id": "{other_clip}",
    "trainer.max_epochs": 100,
    "trainer.max_time": "00:02:30:00",
    "embedder.image_checkpoint": "{vit}",
    "generator.weights": "{other_pipeline}",
    "generator.layer": "final",
    "dataset.year": 2014,
    "dataset.style": "both",
    "sae.center": "per_modality",
    "features.center": "per_modality",
    "ncl.similarity": "dot",
    "ncl.input_noise": 0.3,
    "dictionary.path": "{other_dictionary}",
    "dictionary.file": "ae.pt",
    "dictionary.kind": "BatchTopKSAE",
    "dictionary.k": 3,
    "dictionary.input_scale": 2.0,
    **{f"{name}.init_from": "{other_dictionary}" for name in ("sae", *FAMILY_NAMES)},
    "extraction.dtype": "float32",
    "extraction.precision": "bf16",
    "extraction.resize": "torch",
    "extraction.workers": 1,
    "extraction.batch_size": 8,
    "extraction.part_of": "1/1",
    "training.split": "select",
    "training.batch_size": 32,
    "training.validation_pairs": 8,
    "training.decay_fraction": 0.3,
    "trainer.precision": "bf16-mixed",
    "trainer.strategy": "ddp",
    "trainer.accelerator": "gpu",
    "trainer.max_steps": 6000,
    "trainer.check_val_every_n_epoch": 2,
    "gender.split": "val",
    "gender.space": "embeddings",
    "ablation.split": "val",
    "ablation.folds": 2,
    "adversarial.contrast": "typographic",
    "adversarial.benign.text": "a lake",
    "adversarial.requests": "{other_requests}",
    "adversarial.benign.words": ["man"],
    "adversarial.benign.images": ["many/2"],
    "victim.retrieves": "request",
    "victim.dtype": "float32",
    "victim.prompt": "USER: <image> now {request} ASSISTANT:",
    "intervention.weight_on": "text",
    "intervention.sizes": "whole",
    "intervention.strengths": [0.0, 0.5],
    "references": ["many/3"],
    "partition.n_sigma": 2.0,
    "generator.length": "own",
    "generator.dtype": "bfloat16",
    "generator.cpu_offload": False,
    "generator.height": 64,
    "generator.width": 64,
    "labels.column": "other",
    "top_samples.show": [1],
    "explorer.bins": 32,
    "explorer.map": "pca",
    "faithfulness.prompt": "a photo of {}",
    "consequences.prompt": "a photo of {}",
    "consequences.shares": [0.5, 1.0],
    "steering.how": "scale",
    "steering.strengths": [0.5, 1.0],
    "steering.query": "a red heart",
    "steering.show": [1, 2],
    "steered_images.how": "scale",
    "steered_images.strengths": [0.5, 1.0],
    "steered_images.prompts": ["a red heart", "a dog"],
    "steered_images.show": [1, 2],
    "steered_answers.how": "scale",
    "steered_answers.names": ["1:sea", "2:dog"],
    "steered_answers.strengths": [0.5, 3.0],
    "objective": "fvu",
    "validate.parameters.pairs": [2400],
    "validate.equal_gains.levels": [0.02],
    "model.pretrained": "yfcc15m",
    "model.architecture": "RN101",
    "names.vocabulary": "{words}",
    "names.embeddings": "captions",
    "names.directions": "atoms",
    "names.image_text": "other",
}
GUESSES = (1, 3, 0.5, "another", ["another"])


def train(workspace: Workspace) -> None:
    for name in workspace.specs:
        workspace.dictionary(name)


ENTRYPOINTS: Mapping[str, Callable[[Workspace], object]] = {
    **{analysis.name: analysis.make for analysis in ANALYSES if analysis.kind == "results"},
    "extract": extract,
    "train": train,
    "explorer": explore,
    "report": report,
}
MAKE_NOTHING = {
    "plan": "it only looks",
    "dashboard": "what it makes lies with W&B",
    "publish": "it copies what train makes to where it is asked to",
}


def addresses(entrypoint: str, cfg: DictConfig, root: Path) -> list[str]:
    """Of everything that is asked for, up to the first that would have to be extracted."""
    artifacts = Addresses(root)
    try:
        ENTRYPOINTS[entrypoint](Workspace(cfg, makes="none", artifacts=artifacts))
    except (Reached, MissingArtifactError):
        pass
    except MmmonoError as error:
        if not str(error).startswith(("nothing is computed yet", "nothing to compare", "no dictionary of")):
            raise
        artifacts.asked.append("elsewhere")
    assert artifacts.asked
    return artifacts.asked


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; a list is one setting."""
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        if str(key).startswith("_") or name.startswith(("help", "features.sets")):
            continue
        if isinstance(value, dict):
            yield from leaves(value, name)
        else:
            yield name, value


def others(name: str, value: Any, files: Mapping[str, str]) -> Iterator[Any]:
    """Values that the setting may have instead."""
    if name in OTHER and OTHER[name] != value:
        other = OTHER[name]
        yield files[other[1:-1]] if isinstance(other, str) and other[1:-1] in files else other
    elif value == "per_modality":
        yield "pooled"
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (value * 0.9, value + 0.1)
    elif isinstance(value, list) and value:
        yield from (value[:-1], [*value, value[0]])
    elif isinstance(value, str) and not value.startswith("${"):
        yield f"{value}x"
    else:
        yield from GUESSES


@dataclass(frozen=True)
class Walk:
    """An entrypoint with overrides, and the settings that are walked: all, or those below some names."""

    entrypoint: str
    overrides: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    name: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.entrypoint, self.name or ".".join(self.below)) if part)


@dataclass
class World:
    """Files that the walks read; braces in overrides name them. And the configurations, as they were composed.

    `upstream` has the addresses that another value of a setting was seen to change, by the setting's name and value.
    """

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    composed: dict[Walk, DictConfig] = field(default_factory=dict)
    upstream: dict[tuple[str, str], set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("walk")
    shard = folder / "many.tar"
    with tarfile.open(shard, "w") as tar:
        for i in range(PAIRS):
            png = io.BytesIO()
            Image.new("RGB", (8, 8), (4 * i, 99, 7)).save(png, "PNG")
            caption = f"a {'woman' if i % 2 else 'man'} on a beach, number {i}"
            fields = json.dumps(
                {"caption": caption, "color": "red" if i % 3 else "blue", "other": "x" if i % 2 else "y"}
            )
            for name, data in (("png", png.getvalue()), ("json", fields.encode())):
                member = tarfile.TarInfo(f"{i}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    coco = folder / "coco"
    for year, split in product((2014, 2017), ("train", "val")):
        (coco / f"{split}{year}").mkdir(parents=True)
        (coco / f"{split}{year}" / "1.png").write_bytes(png.getvalue())
        image = {"id": 1, "file_name": "1.png", "width": 8, "height": 8}
        captions = [{"id": n, "image_id": 1, "caption": f"{split} {year} {n}"} for n in range(2)]
        for kind, listed in (("captions", captions), ("instances", [])):
            file = coco / "annotations" / f"{kind}_{split}{year}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"images": [image], "annotations": listed, "categories": []}))
    cc3m = folder / "cc3m"
    cc3m.mkdir()
    for number, name in enumerate(("train", "validation")):
        (cc3m / f"cc3m-{name}-0000.tar").write_bytes(shard.read_bytes() + bytes(512 * number))
    listed = folder / "listed"
    listed.mkdir()
    (listed / "1.png").write_bytes(png.getvalue())
    rows = {"file_name": ["1.png"], "copy": ["2.png"], "caption": ["a"], "other": ["b"], "color": ["red"]}
    pd.DataFrame(rows).to_csv(listed / "metadata.csv", index=False)
    table = pd.DataFrame({**rows, "image": ["1.png"]})
    for split in ("train", "validation"):
        table.to_parquet(listed / f"{split}.parquet")
    elsewhere = folder / "elsewhere"  # other content under the same names
    for file in (*coco.rglob("*"), *cc3m.iterdir(), listed / "1.png"):
        copy = elsewhere / file.relative_to(coco if coco in file.parents else file.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            copy.mkdir(exist_ok=True)
        else:
            copy.write_bytes(file.read_bytes() + (b" " if file.suffix == ".json" else bytes(1024)))
    for name in ("metadata.csv", "train.parquet", "validation.parquet"):
        (elsewhere / name).write_bytes((listed / name).read_bytes())
    other_rows = folder / "other_rows"
    other_rows.mkdir()
    pd.concat([table, table]).to_parquet(other_rows / "train.parquet")
    clip, other_clip = (write_tiny(folder / f"clip-{seed}", "clip", seed) for seed in (0, 1))
    other_shard = folder / "other.tar"
    other_shard.write_bytes(shard.read_bytes() + bytes(1024))
    (folder / "declip.pth.tar").write_bytes(b"weights of one kind")
    (folder / "vit.safetensors").write_bytes(b"weights of another kind")
    pipeline, other_pipeline = folder / "pipeline", folder / "other"
    for number, made in enumerate((pipeline, other_pipeline)):
        made.mkdir()
        (made / "model_index.json").write_text(json.dumps({"_number": number}))
    (folder / "drawing.png").write_bytes(png.getvalue())
    (folder / "requests.csv").write_text("request,concept,image\nfly a kite,kite,\n")
    (folder / "other_requests.csv").write_text("request,concept,image\nsing a song,song,\n")
    (folder / "words.txt").write_text("man\nbeach\n")
    dictionaries = [folder / "dictionary", folder / "other_dictionary"]
    for other in dictionaries:
        other.mkdir()
        (other / "ae.pt").write_bytes(other.name.encode())
        (other / "checkpoint.pt").write_bytes(b"of an earlier step")
        (other / "config.json").write_text("{}")
    files = {"shard": shard, "drawing": folder / "drawing.png", "requests": folder / "requests.csv",
             "other_requests": folder / "other_requests.csv", "coco": coco,
             "cc3m": cc3m, "declip": folder / "declip.pth.tar", "pipeline": pipeline,
             "listed": listed, "table": listed / "metadata.csv", "other_table": elsewhere / "train.parquet",
             "other_rows": other_rows, "clip": clip, "other_clip": other_clip,
             "vit": folder / "vit.safetensors", "root": elsewhere,
             "dictionary": dictionaries[0], "other_dictionary": dictionaries[1],
             "words": folder / "words.txt", "other_shard": other_shard, "other_pipeline": other_pipeline}  # fmt: skip
    return World(folder / "artifacts", {name: str(path) for name, path in files.items()})


TAR = (
    "model=clip_rn50", "dataset=webdataset", "dataset.shards={shard}", "dataset.label_keys=[color,other]",
    "dataset.label=color", "trainer=cpu", "trainer.val_check_interval=2",
)  # fmt: skip
H14 = ("model=clip_vit_h14", *TAR[1:], "features=raw", "references=[many/2]")
RAW_SAE = "features=[raw,sae]"
SETS = "features=[raw,sae,ncl,pca,ica,random_rotation,untrained_sae]"
# Each parameter that validation varies has one value instead of several, which say nothing more about addresses.
ONE_VALUE_EACH = (
    "validate.parameters={{noise: [0.5], gap: [0.8], active: [3], superposition: [4.0], k: [3], shared_share: [0.1], "
    "lopsided: [3]}}"
)
FAMILY = f"features=[{','.join(FAMILY_NAMES)}]"
EXTRACTING, TRAINING = Walk("extract", TAR), Walk("train", (*TAR, "features=[sae,ncl]"))
WALKS = [
    EXTRACTING,
    Walk("extract", (*TAR, "model.pretrained=null"), ("model.seed", "model.force_quick_gelu"), "random weights"),
    Walk("extract", (*TAR, "model=open_clip", "model.architecture=RN50", "model.pretrained=openai"), ("model",)),
    Walk("extract", (*TAR, "model=declip_rn50", "model.checkpoint={declip}"), ("model",)),
    Walk("extract", ("model=clip_rn50", "dataset=openmoji"), ("dataset",)),
    Walk("extract", ("model=clip_rn50", "dataset=icons"), ("dataset",), "icons"),
    Walk("extract", ("model=clip_rn50", "dataset=drawings"), ("dataset",), "drawings"),
    Walk("extract", ("model=clip_rn50", "dataset=coco", "dataset.root={coco}"), ("dataset",)),
    Walk("extract", ("model=clip_rn50", "dataset=cc3m", "dataset.root={cc3m}"), ("dataset",)),
    Walk("extract", ("model=clip_rn50", "dataset=folder", "dataset.root={listed}"), ("dataset",), "folder"),
    Walk("extract", ("model=clip_rn50", "dataset=table", "dataset.path={table}"), ("dataset",), "table"),
    Walk("extract", ("model=clip_rn50", "dataset=huggingface", "dataset.id={listed}"), ("dataset",), "huggingface"),
    Walk("extract", (*TAR, "model=transformers", "model.id={clip}"), ("model",)),
    Walk("extract", ("dataset=synthetic",), ("dataset",), "synthetic"),
    Walk("extract", (*TAR, "logger=wandb"), ("logger",)),
    TRAINING,
    Walk("train", (*TAR, FAMILY), ("features",), "family"),
    *(Walk("train", (*TAR, f"features={name}"), (name,)) for name in FAMILY_NAMES),
    Walk("mds", (*TAR, "features=pretrained", "dictionary.path={dictionary}"), ("dictionary",)),
    Walk("mds", (*TAR, SETS)),
    Walk("mds", (*TAR, "features=raw", "partition=counts"), ("partition",)),
    Walk("mds", (*TAR, "features=raw", "partition=margin"), ("partition",)),
    Walk("certainty", (*TAR, RAW_SAE)),
    Walk("consensus", (*TAR, "features=sae")),
    Walk("objectives", (*TAR, RAW_SAE)),
    Walk("robustness", (*TAR, RAW_SAE)),
    Walk("sharedness", (*TAR, RAW_SAE)),
    Walk("ablation", (*TAR, RAW_SAE)),
    Walk("top_samples", (*TAR, RAW_SAE)),
    Walk("interpretability", (*TAR, RAW_SAE, "embedder=offline")),
    Walk("interpretability", (*TAR, RAW_SAE, "embedder=clip"), ("embedder",)),
    Walk("interpretability", (*TAR, "features=raw", "embedder=paper"), ("embedder",)),
    Walk("faithfulness", (*TAR, RAW_SAE)),
    Walk("names", (*TAR, RAW_SAE)),
    Walk("names", (*TAR, "features=raw", "embedder=offline"), ("embedder",)),
    Walk(
        "names",
        (*TAR, "features=raw", "judge=openai_compatible"),
        ("judge", "judge.prompt", "names.samples", "names.judged"),
        "judge",
    ),
    Walk("concepts", (*TAR, RAW_SAE, "concepts.min_groups=2")),
    Walk("consequences", (*TAR, RAW_SAE)),
    Walk("steering", (*TAR, RAW_SAE)),
    Walk("steered_images", (*TAR, RAW_SAE)),
    Walk("steered_answers", (*TAR, "features=sae", "steered_answers.names=[1:sea,2:man]")),
    Walk("gender", (*TAR, RAW_SAE)),
    Walk("gender", (*TAR, "labels=column", "labels.column=color"), ("labels",)),
    Walk("gender", (*TAR, "labels=classifier"), ("labels",)),
    Walk(
        "adversarial",
        (*TAR, RAW_SAE, "adversarial.benign.count=4", "adversarial.requests={requests}"),
        name="clip_zero_shot",
    ),
    Walk(
        "adversarial",
        (*TAR, "adversarial.benign.count=4", "victim=llava15", "judge=openai_compatible"),
        ("victim", "judge"),
    ),
    Walk("adversarial", (*TAR, "adversarial.benign.count=4", "victim=llava15", "judge=refusal_keywords"), ("judge",)),
    Walk("text_to_image", (*TAR, RAW_SAE, "references=[{drawing}]")),
    Walk("text_to_image", (*H14, "generator=sd2", "generator.weights={pipeline}"), ("generator",)),
    Walk("text_to_image", (*H14, "generator=sd2_unclip", "generator.weights={pipeline}"), ("generator",)),
    Walk("explorer", (*TAR, RAW_SAE)),
    Walk("report", (*TAR, RAW_SAE)),
    Walk("sweep", (*TAR, "features=[sae,ncl]")),
    Walk("trainings", (*TAR, "features=sae", "trainings.n_seeds=1")),
    Walk("objectives_synthetic", ("objectives_synthetic.quick=true",), name="quick"),
    Walk("objectives_synthetic", ("objectives_synthetic.seeds=1",), ("objectives_synthetic",)),
    Walk("validate", ("validate.quick=true", "validate.seeds=1"), name="quick"),
    Walk("validate", ("validate.seeds=1", "validate.equal_gains.seeds=1", ONE_VALUE_EACH), ("validate",)),
]


def composed(walk: Walk, world: World) -> DictConfig:
    """The configuration of a walk, as nobody has used it; composed once."""
    if walk not in world.composed:
        GlobalHydra.instance().clear()
        overrides = [o.format(**world.files) for o in walk.overrides]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            world.composed[walk] = compose(walk.entrypoint, [f"artifacts={world.root}", *overrides])
    return deepcopy(world.composed[walk])


def supply(walk: Walk, cfg: DictConfig, world: World) -> None:
    """Random features where the entrypoint would have put its own, and dictionaries in name."""
    workspace = put_random_features(cfg, ROWS, DIM)
    if walk.entrypoint in ("report", "sweep"):
        for name in workspace.specs:
            made = workspace.dictionary(name) if name != "raw" else None
            if made is not None:
                made.path.mkdir(parents=True, exist_ok=True)
                (made.path / RECIPE_FILE).write_text(json.dumps(made.recipe, default=str))
                measured = {f"val/{m}/{key}": [0.5] for m in ("image", "text") for key in ("active", "l0", "fvu")}
                pd.DataFrame({"step": [1], "pairs": [9], **measured}).to_parquet(made.path / HISTORY_FILE)


@dataclass
class Found:
    """What a walk finds: settings that change nothing, those of which no other value is valid, and what others change."""

    silent: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    changed: dict[tuple[str, str], set[str]] = field(default_factory=dict)


def walked(walk: Walk, world: World, upstream: Mapping[tuple[str, str], set[str]]) -> Found:
    """Give each setting another value, but those that are known to change the address of something that is asked for.

    Features and dictionaries have the same addresses for every entrypoint. A setting that moves them need not be tried
    once more in each: 85 % of the settings of an analysis are of this kind.
    """
    cfg = composed(walk, world)
    plain = OmegaConf.to_container(cfg, resolve=False)  # before anything is instantiated, which resolves interpolations
    assert isinstance(plain, dict)
    if cfg.dataset._target_.rpartition(".")[2] != "Synthetic" and (walk.entrypoint != "extract" or not walk.below):
        supply(walk, cfg, world)
    before = addresses(walk.entrypoint, cfg, world.root)
    assert addresses(walk.entrypoint, cfg, world.root) == before
    found = Found()
    for name, value in leaves(plain):
        if walk.below and not f"{name}.".startswith(tuple(f"{prefix}." for prefix in walk.below)):
            continue
        without_effect = any(
            fnmatch.fnmatchcase(f"{of}|{name}", p) for of in (walk.entrypoint, str(walk)) for p in WITHOUT_EFFECT
        )
        if (without_effect and name not in walk.below) or not upstream.get((name, repr(value)), set()).isdisjoint(
            before
        ):
            continue
        same, reason = False, ""
        for other in others(name, value, world.files):
            changed = OmegaConf.create(plain)
            OmegaConf.update(changed, name, other, merge=False)
            try:
                after = addresses(walk.entrypoint, changed, world.root)
            except Exception as error:  # a value that makes no sense may be refused anywhere
                reason = f"{other}: {type(error).__name__}: {error}"
                continue
            if after != before:
                moved = next((old for old, new in zip_longest(before, after) if old != new), None)
                found.changed[name, repr(value)] = {moved} if moved else set()
                break
            same = True
        else:
            if same:
                found.silent.append(name)
            else:
                found.refused[name] = reason
    return found


@pytest.mark.slow
@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_a_setting_changes_an_address_or_no_result(walk: Walk, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "of nobody")
    # Whether weights can be had is checked elsewhere, and is no part of an address.
    for place in ("case_studies.adversarial.victims.check_model", "case_studies.classifier.check_model",
                  "pipeline.specs.FeatureSetSpec.check_all",
                  "pipeline.generators.check_pipeline", "pipeline.generators.check_width",
                  "analyses.steered_answers.analysis.token_width",
                  "analyses.steered_answers.analysis._AnswerStudy._check_width"):  # fmt: skip
        monkeypatch.setattr(f"mmmono.{place}", lambda *_, **__: None)
    monkeypatch.setattr(
        "mmmono.analyses.steered_answers.analysis.token_width", lambda _: 1024
    )  # as the model's embeddings
    if walk not in (EXTRACTING, TRAINING) and not world.upstream:
        for first in (EXTRACTING, TRAINING):
            for setting, moved in walked(first, world, {}).changed.items():
                world.upstream.setdefault(setting, set()).update(moved)
    found = walked(walk, world, {} if walk in (EXTRACTING, TRAINING) else world.upstream)
    assert not found.silent, f"results are found again under other settings of {found.silent}: put them into the recipe"
    assert not found.refused, f"give another valid value of {found.refused} in OTHER"


@pytest.mark.slow
def test_every_entrypoint_is_walked_and_every_exception_is_of_a_setting(world: World) -> None:
    entrypoints = {file.stem for file in (CONF.parent / "experiments").glob("*.py")}
    assert {walk.entrypoint for walk in WALKS if not walk.below} | set(MAKE_NOTHING) == entrypoints
    known = {f"{of}|{name}" for walk in WALKS for of in (walk.entrypoint, str(walk))
             for name, _ in leaves(OmegaConf.to_container(composed(walk, world), resolve=False))}  # fmt: skip
    unknown = [pattern for pattern in WITHOUT_EFFECT if not fnmatch.filter(known, pattern)]
    assert not unknown
