"""Tables as pages: what stands in the Markdown, and nothing that a browser would run or fetch."""

from html.parser import HTMLParser

import pytest
from attacks import attack

from wspin.escaping import block_in_markdown, in_markdown
from wspin.report import html
from wspin.report.commands import by_suffix
from wspin.storage.text_tables import text_table

FETCHING = {"script", "img", "a", "link", "iframe", "object", "embed", "form", "svg", "math", "base"}


class Page(HTMLParser):
    """The tags of a page, the texts of its cells, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "href")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("td", "th"):
            self.cells[-1] += data
        if "body" in self.tags:
            self.texts.append(data)


def test_a_page_has_the_cells_of_the_table_and_the_notes_below_it():
    table = text_table(["model", "average"], [["spin", "59.55"], ["a | b", "1.00"]], "lr")
    text = html.page("Scores", f"{table}\n\n* One note [0.55, 2.90].\n")
    page = Page(text)
    assert [cell.strip() for cell in page.cells] == ["model", "average", "spin", "59.55", "a | b", "1.00"]
    assert text.count("text-align:right") == 3
    assert "One note [0.55, 2.90]." in "".join(page.texts)
    assert "<h1>Scores</h1>" in text


@attack("display", "HTML, links or images in answers and names, on a page of tables", "text, no request")
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[text](javascript:alert(1))",
        "![picture](http://example.com/x.png)",
        "<http://example.com>",
        "</td></table></body>",
    ],
)
def test_what_models_say_is_text(hostile):
    """In a cell, a paragraph and a block, with or without the care of those who write Markdown."""
    table = text_table(["model", "answer"], [["spin", hostile.replace("|", "")]], "ll")
    shown = [table, in_markdown(hostile), hostile, block_in_markdown(hostile)]
    text = html.page(hostile, "\n\n".join(shown))
    page = Page(text)
    assert not FETCHING & {*page.tags}
    assert page.tags.count("body") == page.tags.count("table") == 1
    assert "default-src 'none'" in text


def test_a_page_is_written_where_there_is_markdown():
    pages = by_suffix(["t/scores.html", "t/scores.md"], {".md": "| a |\n|---|\n| 1 |"})
    assert pages["t/scores.html"].decode() == html.page("Scores", pages["t/scores.md"].decode())
