"""Vision-language models as two encoders into a joint embedding space."""

from typing import TYPE_CHECKING

from mmmono.core.lazy import lazy_exports
from mmmono.vlm.encoder import Encoder

if TYPE_CHECKING:
    from mmmono.vlm.declip import convert_declip_state_dict, load_declip
    from mmmono.vlm.emojiclip import fit_emojiclip, load_emojiclip
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

__getattr__ = lazy_exports(  # what builds and loads models: it takes open_clip
    __name__,
    {
        "declip": ("convert_declip_state_dict", "load_declip"),
        "emojiclip": ("fit_emojiclip", "load_emojiclip"),
        "loading": ("load_open_clip",),
        "open_clip_encoder": ("OpenCLIPEncoder",),
    },
)
