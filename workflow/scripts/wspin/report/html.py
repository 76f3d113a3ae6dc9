"""Tables as pages for a browser: each one file, without scripts, and without anything from elsewhere."""

from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

TEMPLATE = Path(__file__).with_name("table.html.j2")
TABLE = {"table_open": '<div class="table"><table>\n', "table_close": "</table></div>\n"}  # wide ones scroll alone


def page(title: str, markdown: str) -> str:
    """Markdown with tables as an HTML page, in which HTML, links and images stay text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    for token, tag in TABLE.items():
        parser.add_render_rule(token, lambda *_, tag=tag: tag)
    template = jinja2.Template(TEMPLATE.read_text(), autoescape=True, keep_trailing_newline=True)
    return template.render(title=title, body=Markup(parser.render(markdown)))
