"""The page of token weights in a browser: what it shows at the mouse and the keyboard, and that it asks for nothing."""

import json
import re

import pytest
import weighted_pairs
from browser import browser
from weighted_pairs import HOSTILE, SHOWN, SOME

from wspin.report.token_page import token_page
from wspin.report.token_rows import first_pairs

pytestmark = pytest.mark.browser
DETAILS = (
    "return [...document.querySelectorAll('#details dt')].map((dt) => [dt.textContent, dt.nextSibling.textContent])"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(path of the page, its pairs); the third holds hostile text."""
    folder = tmp_path_factory.mktemp("page")
    files = weighted_pairs.write(folder, [*SOME, *HOSTILE])
    path = folder / "tokens.html"
    path.write_text(token_page("wspin/ite1", files))
    return path, first_pairs(files, 24).pairs


@pytest.fixture(scope="module")
def window(page):
    with browser() as opened:
        opened.open(page[0])
        yield opened


def details(window):
    """Label -> value of the details, with a plain minus."""
    return {label: value.replace("\u2212", "-") for label, value in window.script(DETAILS)}


def expected(token):
    """What the details of a token begin with."""
    scored = [f'"{text}"\u00a0{value:.3f}' for text, value in token.scored["positive"]]
    return {"log p student": f"{token.student:.3f}", "log p teacher": "  ".join(scored)}


def token(answer, i):
    return (
        f"article:nth-of-type({1 + answer // 2}) section:nth-of-type({1 + answer % 2}) .tokens span:nth-child({i + 1})"
    )


def test_a_token_under_the_mouse_shows_its_numbers(window, page):
    chosen = page[1][0].tokens["chosen"]
    for i in (0, 3):
        window.point(token(0, i))
        shown = details(window)
        assert {key: shown[key] for key in expected(chosen[i])} == expected(chosen[i])
        assert float(shown["weight"]) == pytest.approx(float(chosen[i].weight), rel=1e-7)
        assert f'"{chosen[i].text}"' in window.text("#details .token")
        assert f"token {i + 1} of {len(chosen)}, chosen, train-0" in window.text("#details .where")
    window.point("h1")
    assert window.text("#details").startswith("Point at a token")


def test_keys_lead_from_token_to_token(window, page):
    """Tab to the next answer, arrows within it, End to EOS, which no scorer has."""
    pair = page[1][0]
    window.script("document.getElementById('filter').focus()")
    window.press("Tab")
    assert "token 1 of" in window.text("#details .where")
    window.press("Right", "Right", "Left")
    shown = details(window)
    assert {key: shown[key] for key in expected(pair.tokens["chosen"][1])} == expected(pair.tokens["chosen"][1])
    window.press("End")
    assert window.text("#details .token") == "EOS"
    assert details(window).keys() == {"weight", "log p student"}
    window.press("Tab")
    assert f"token 1 of {len(pair.tokens['rejected'])}, rejected" in window.text("#details .where")
    window.press("Down")
    line = window.script("return document.activeElement.getClientRects()[0].top")
    window.press("Up")
    assert window.script("return document.activeElement.getClientRects()[0].top") < line
    assert window.script("return document.querySelectorAll('.tokens [tabindex=\"0\"]').length") == 6


def test_a_clamped_token_says_so(window, page):
    answers = [tokens for pair in page[1] for tokens in pair.tokens.values()]
    places = [(a, i, t) for a, tokens in enumerate(answers) for i, t in enumerate(tokens) if t.at_upper or t.at_lower]
    assert {len(t.ratios) > 1 for _, _, t in places} == {False, True}
    for answer, i, of in places[:6]:
        window.point(token(answer, i))
        note = window.text("#details .note").replace("\u2212", "-")
        for share, bound in ((of.at_lower, "lower bound, -0.50"), (of.at_upper, "upper bound, 1.50")):
            assert (bound in note) == (share > 0)
        counts = [int(of) for of in re.findall(r"(\d+) (?:of \d+ )?log-ratios at", note)]
        assert sum(counts) == (round((of.at_lower + of.at_upper) * len(of.ratios)) if len(of.ratios) > 1 else 0)


def test_the_filter_leaves_prompts_with_a_text(window):
    window.script("document.getElementById('filter').focus()")
    window.press(*"FOUR")
    assert window.text("#count") == "1 of 3 pairs"
    assert [window.text(f"article:nth-of-type({i})") != "" for i in (1, 2, 3)] == [False, True, False]
    window.press(*"xyz")
    assert window.text("#count") == "0 of 3 pairs"
    assert window.text("#none") == "No prompt holds this text."
    window.script("const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))")
    assert window.text("#count") == "3 pairs"


def test_hostile_text_is_text(window):
    assert window.script("return document.title") == "Token weights of wspin/ite1"
    assert window.script("return document.querySelectorAll('.prompt')[2].textContent") == SHOWN
    assert window.script("return [document.images.length, document.scripts.length]") == [0, 2]
    window.point(token(4, 0))
    assert window.text("#details .token") == '"<"'
    marks = window.script("return document.body.textContent.match(/[\\u202a-\\u202e\\u2066-\\u2069\\u200b]/g)")
    assert marks is None


def test_nothing_leaves_the_page_and_the_console_is_silent(page):
    """In a window of its own: from opening the page to its details."""
    with browser(390, 844, phone=True) as window:
        window.open(page[0])
        window.emulate(prefers_color_scheme="dark")
        window.point(token(0, 1))
        assert window.requests(page[0]) == [page[0].as_uri()]
        assert window.messages() == []
        width = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        assert window.script(width) == [390, 390]
        assert window.script("return getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"


def test_the_policy_refuses_what_is_not_the_pages(page, tmp_path):
    """A script that came into the page would not run."""
    html = page[0].read_text().replace("<h1>", "<script>document.title = 'run'</script><h1>")
    (tmp_path / "changed.html").write_text(html)
    with browser() as window:
        window.open(tmp_path / "changed.html")
        assert window.script("return document.title") == "Token weights of wspin/ite1"
        assert any("Content Security Policy" in message for message in window.messages())
    assert json.loads(html.split('id="values">')[1].split("</script>")[0])["answers"]
