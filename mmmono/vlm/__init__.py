"""Vision-language models as two encoders into a joint embedding space."""

from mmmono.vlm.declip import convert_declip_state_dict, load_declip
from mmmono.vlm.dual_encoder import DualEncoder
from mmmono.vlm.emojiclip import fit_emojiclip, load_emojiclip
from mmmono.vlm.loading import load_open_clip

__all__ = [
    "DualEncoder",
    "convert_declip_state_dict",
    "fit_emojiclip",
    "load_declip",
    "load_emojiclip",
    "load_open_clip",
]
