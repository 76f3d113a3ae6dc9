"""Pages for a browser: each one file that needs no network, and whose policy admits its own style and script alone."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

HERE = Path(__file__).parent
SEPARATORS = (",", ":")  # of compact JSON
TABLE = {"table_open": '<div class="table"><table>\n', "table_close": "</table></div>\n"}  # wide ones scroll alone


def page(title: str, markdown: str) -> str:
    """Markdown with tables as an HTML page, in which HTML, links and images stay text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    for token, tag in TABLE.items():
        parser.add_render_rule(token, lambda *_, tag=tag: tag)
    template = jinja2.Template((HERE / "table.html.j2").read_text(), autoescape=True, keep_trailing_newline=True)
    return template.render(title=title, body=Markup(parser.render(markdown)))


def render(name: str, **context: Any) -> str:
    """The page of `{name}.html.j2`, with the style of all such pages, its own style, and its script if it has one.

    The template escapes every text of the context.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": SEPARATORS}
    style = (HERE / "page.css").read_text() + (HERE / f"{name}.css").read_text()
    own_script = HERE / f"{name}.js"
    script = own_script.read_text() if own_script.exists() else ""
    sources = {"style": _source(style), "script": _source(script) if script else "'none'"}
    return environment.get_template(f"{name}.html.j2").render(style=style, script=script, sources=sources, **context)


def _source(text: str) -> str:
    """The source of a page's policy that admits an element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
