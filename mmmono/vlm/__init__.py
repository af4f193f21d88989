"""Vision-language models as two encoders into a joint embedding space."""

from typing import TYPE_CHECKING

from mmmono.core.lazy import lazy_exports
from mmmono.vlm.encoder import Encoder

if TYPE_CHECKING:
    from mmmono.vlm.declip import convert_declip_state_dict, load_declip
    from mmmono.vlm.drawingclip import fit_drawingclip, load_drawingclip
    from mmmono.vlm.loading import load_open_clip
    from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder
    from mmmono.vlm.transformers_encoder import TransformersEncoder
    from mmmono.vlm.transformers_loading import load_transformers

__all__ = [
    "Encoder",
    "OpenCLIPEncoder",
    "TransformersEncoder",
    "convert_declip_state_dict",
    "fit_drawingclip",
    "load_declip",
    "load_drawingclip",
    "load_open_clip",
    "load_transformers",
]

__getattr__ = lazy_exports(  # what builds and loads models: it takes open_clip or transformers
    __name__,
    {
        "declip": ("convert_declip_state_dict", "load_declip"),
        "drawingclip": ("fit_drawingclip", "load_drawingclip"),
        "loading": ("load_open_clip",),
        "open_clip_encoder": ("OpenCLIPEncoder",),
        "transformers_encoder": ("TransformersEncoder",),
        "transformers_loading": ("load_transformers",),
    },
)
