"""Vision-language models as two encoders into a joint embedding space."""

from mmmono.vlm.declip import convert_declip_state_dict, load_declip
from mmmono.vlm.emojiclip import fit_emojiclip, load_emojiclip
from mmmono.vlm.encoder import Encoder
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder

__all__ = [
    "Encoder",
    "OpenCLIPEncoder",
    "convert_declip_state_dict",
    "fit_emojiclip",
    "load_declip",
    "load_emojiclip",
    "load_open_clip",
]
