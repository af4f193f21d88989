"""Static HTML pages, rendered from the templates and files in `web/`, which are part of the package."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmmono.core.text import printable
from mmmono.reporting.style import CLASS_COLORS, MODALITY_COLORS


def _visible(value: object) -> object:
    """Remove characters that browsers cannot show, such as NUL, from text; other values and markup are unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("mmmono.reporting", "web"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """Render a template of `web/`; text is escaped.

    Raises:
        jinja2.UndefinedError: the template needs a value that is not given.
    """
    return _ENVIRONMENT.get_template(template).render(**values)


def web_file(name: str) -> str:
    """Read a style sheet or script of `web/`."""
    return (files(__package__) / "web" / name).read_text(encoding="utf-8")


def colors_css() -> Markup:
    """CSS variables with the figures' colors of classes and modalities."""
    colors = {**CLASS_COLORS, **MODALITY_COLORS}
    return Markup(":root{" + "".join(f"--{name}:{color};" for name, color in colors.items()) + "}")
