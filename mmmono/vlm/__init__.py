"""Vision-language models as two encoders into a joint embedding space."""

from mmmono.vlm.declip import convert_declip_state_dict, load_declip
from mmmono.vlm.drawingclip import fit_drawingclip, load_drawingclip
from mmmono.vlm.encoder import Encoder
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder

__all__ = [
    "Encoder",
    "OpenCLIPEncoder",
    "convert_declip_state_dict",
    "fit_drawingclip",
    "load_declip",
    "load_drawingclip",
    "load_open_clip",
]
