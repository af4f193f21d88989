"""Static pages: templates and files of `web/`, which the package brings along."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmmono.core.text import printable
from mmmono.reporting.style import CLASS_COLORS, MODALITY_COLORS


def _visible(value: object) -> object:
    """Text without what browsers stumble over, such as NUL; markup and other values as they are."""
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
    """A page of `web/` filled in; text is escaped, and a value that the template lacks is an error."""
    return _ENVIRONMENT.get_template(template).render(**values)


def web_file(name: str) -> str:
    """A style sheet or script of `web/`."""
    return (files(__package__) / "web" / name).read_text(encoding="utf-8")


def colors_css() -> Markup:
    """The figures' colors of classes and modalities as CSS variables."""
    colors = {**CLASS_COLORS, **MODALITY_COLORS}
    return Markup(":root{" + "".join(f"--{name}:{color};" for name, color in colors.items()) + "}")
