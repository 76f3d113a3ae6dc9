"""Foreign text in a page of Markdown stays text: what a parser finds in it is what was written."""

import json

from attacks import attack
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from wspin.escaping import as_json, block_in_markdown, code_in_markdown, escaped, in_markdown, one_line

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PIECES = ["`", "```", "\n", "[x](javascript:alert(1))", "![](http://127.0.0.1/x.png)", "<script>", "&lt;", "*", "\\"]
PIECES += ["\n\n# x\n", "\x1b[2J", "\u202e", "\u2028", "|", "~~", "  \n", "<http://127.0.0.1>", "_", "\r", "\ud800"]
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=6).map("".join)


def inline(text):
    """(type, content) of what a parser finds in a line that must be one paragraph."""
    blocks = PARSER.parse(text)
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    return [(token.type, token.content) for token in blocks[1].children]


@settings(max_examples=40)
@given(HOSTILE)
def test_a_line_is_printable_and_short(text):
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)
    assert one_line(text, 10) in (escaped(text), f"{escaped(text)[:10]} [...]")


@attack(
    "display",
    "`<script>`, `[x](javascript:...)`, `![](http://...)`, headings and codes of a terminal in a name on a page",
    "the characters as they are: no HTML, no link, no image",
)
@settings(max_examples=40)
@given(HOSTILE)
@example("a\n\n<script>alert(1)</script>\n")
def test_text_in_markdown_is_text(text):
    tokens = inline(f"x{in_markdown(text)}x")
    assert {kind for kind, _ in tokens} <= {
        "text",
        "text_special",
        "em_open",
        "em_close",
        "strong_open",
        "strong_close",
    }
    shown = "".join(content for _, content in tokens)
    assert shown.replace("_", "") == f"x{escaped(text)}x".replace("_", "")  # `_` may slant letters, as in `_a_`


@settings(max_examples=40)
@given(HOSTILE.filter(bool))
@example("`")
@example("a``b`")
def test_code_in_markdown_is_code(text):
    (_, before), (kind, content), (_, after) = inline(f"x {code_in_markdown(text)} x")
    assert (before, kind, after) == ("x ", "code_inline", " x")
    assert content.strip() == escaped(text).strip()


@attack("display", "a code fence in a text that a page shows as a block of code", "the block ends where the text ends")
@settings(max_examples=40)
@given(HOSTILE)
@example("a\n```\n<script>")
@example("````")
def test_a_block_holds_all_lines(text):
    blocks = PARSER.parse(f"x\n\n{block_in_markdown(text, 'yaml')}\n\nx\n")
    (fence,) = (block for block in blocks if block.type == "fence")
    assert len(blocks) == 7
    assert fence.content == "".join(f"{escaped(line)}\n" for line in text.removesuffix("\n").split("\n"))


@settings(max_examples=40)
@given(st.recursive(HOSTILE | st.integers() | st.none(), st.lists))
def test_json_is_printable_and_read_back(value):
    text = as_json(value)
    assert text.isprintable()
    assert json.loads(text) == value
