"""Makes the models of the rehearsal small under their own names, in every process whose PYTHONPATH has this folder.

In a quick rehearsal, pauses are short too: those between attempts, of which there are a hundred, would last minutes.

open_clip's RN50 and ViT-H-14, DeCLIP's ResNet50 and timm's vit_base_patch16_224 get fewer and narrower layers; their names,
tags, files and ways of loading stay, and so do the widths that others depend on.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

OPEN_CLIP = {
    "RN50": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    },
    "ViT-H-14": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 128, "head_width": 64, "patch_size": 28},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 1},
    },
}


def shrink_open_clip(module):
    with tempfile.TemporaryDirectory() as folder:
        for name, config in OPEN_CLIP.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(config))
        module.add_model_config(folder)


def shrink_declip(module):
    """Its configurations come with mmmono, from a folder: another folder stands in for that."""
    folder = Path(tempfile.mkdtemp(prefix="declip-"))
    shutil.copytree(module.CONFIGS, folder, dirs_exist_ok=True)
    config = json.loads((folder / "declip_rn50.json").read_text())
    config["vision_cfg"].update(OPEN_CLIP["RN50"]["vision_cfg"], patch_size=None)
    config["text_cfg"].update(width=64, heads=2, layers=1)
    (folder / "declip_rn50.json").write_text(json.dumps(config))
    module.CONFIGS = folder


def shrink_timm(module):
    from timm.models._registry import _model_entrypoints
    from timm.models.vision_transformer import _create_vision_transformer

    def vit_base_patch16_224(pretrained=False, **kwargs):
        settings = {"patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, **kwargs}
        return _create_vision_transformer("vit_base_patch16_224", pretrained=pretrained, **settings)

    _model_entrypoints["vit_base_patch16_224"] = vit_base_patch16_224


def shorten_pauses(factor):
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds * factor)


class AfterImport:
    """Runs a function on a module once it is imported."""

    def __init__(self, name, function):
        self.name, self.function, self.busy = name, function, False

    def find_spec(self, name, path=None, target=None):
        if name != self.name or self.busy:
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.function(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("MMMONO_REHEARSAL") == "quick":
    shorten_pauses(0.1)
if os.environ.get("MMMONO_REHEARSAL"):
    sys.meta_path[:0] = [
        AfterImport("open_clip", shrink_open_clip),
        AfterImport("timm", shrink_timm),
        AfterImport("mmmono.vlm.declip", shrink_declip),
    ]
