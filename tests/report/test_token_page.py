"""The page of token weights shows what the files hold, as text, from one file alone."""

import base64
import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest
import weighted_pairs
from attacks import attack
from pages import Page
from score_files import check_records
from scored import changed
from weighted_pairs import EQUAL, HOSTILE, SHOWN, SOME

import report_tokens as program
from wspin.report import token_page as module
from wspin.report.token_page import PAIRS, STEPS, ColourScale, shown, token_page
from wspin.report.token_rows import PairFiles, Token, first_pairs
from wspin.storage import tables
from wspin.weigh import long_segments


class TokenPage(Page):
    def answers(self):
        """[[(classes, text), ...] of the tokens], answer by answer."""
        answers = []
        for tag, given, text in self.elements:
            if tag == "p" and given.get("class") == "tokens":
                answers.append([])
            elif answers and tag == "span" and re.match(r"w\d", given.get("class", "")):
                answers[-1].append((given["class"].split(), text))
        return answers

    @property
    def values(self):
        ((_, text),) = self.all("script", type="application/json")
        return json.loads(text)


def made(folder, pairs, **changes):
    files = weighted_pairs.write(folder, pairs, **changes)
    html = token_page("wspin/ite1", files)
    return files, html, TokenPage(html)


def test_weights_are_those_of_the_file(tmp_path):
    files, _, page = made(tmp_path, SOME)
    table = tables.read(files.weights, "weights")
    rows = zip(*(table[f"{side}_weights"].to_pylist() for side in tables.SIDES), strict=True)
    expected = [weights for row in rows for weights in row]
    assert [[float(np.float32(w)) for w in of["weight"]] for of in page.values["answers"]] == expected
    assert [len(tokens) for tokens in page.answers()] == list(map(len, expected))


def test_numbers_are_those_behind_the_weights(tmp_path):
    files, _, page = made(tmp_path, SOME)
    answers = [tokens for pair in first_pairs(files, PAIRS).pairs for tokens in pair.tokens.values()]
    for of, tokens in zip(page.values["answers"], answers, strict=True):
        assert of["student"] == [round(token.student, 4) for token in tokens]
        for i, token in enumerate(tokens):
            assert of["ratios"][i] == [round(ratio, 4) for ratio in token.ratios]
            assert of["bounds"].get(str(i), [0, 0])[:2] == [token.at_lower, token.at_upper]
            while of["scored"] and of["scored"]["positive"][i] == "=":
                i -= 1
            parts = of["scored"]["positive"][i] if of["scored"] else []
            listed = [part for text, value in token.scored.get("positive", ()) for part in (text, round(value, 4))]
            assert [part.replace("\\n", "\n") if isinstance(part, str) else part for part in parts] == listed
    assert page.values["scorers"] == {"positive": "teacher", "negative": "student"}
    assert page.values["bounds"] == [-0.5, 1.5]


def test_tokens_at_a_bound_are_marked(tmp_path):
    files, _, page = made(tmp_path, SOME, lower=-0.05, upper=0.05)
    answers = [tokens for pair in first_pairs(files, PAIRS).pairs for tokens in pair.tokens.values()]
    found = set()
    for spans, tokens in zip(page.answers(), answers, strict=True):
        for (classes, _), token in zip(spans, tokens, strict=True):
            ratios, marks = np.array(token.ratios or [0.0]), set()
            for whole, at in (("up", ratios >= 0.05), ("low", ratios <= -0.05)):
                marks |= {whole if at.all() else f"{whole}s"} if at.any() else set()
            assert {"up", "ups", "low", "lows"} & set(classes) == marks
            found |= marks
    assert found == {"up", "ups", "low", "lows"}


def test_colours_follow_the_weights(tmp_path):
    _, _, page = made(tmp_path, SOME)
    steps = [int(classes[0][1:]) for tokens in page.answers() for classes, text in tokens if text != "EOS"]
    weights = [w for of in page.values["answers"] for w in of["weight"][:-1]]
    assert [step for _, step in sorted(zip(weights, steps, strict=True))] == sorted(steps)
    assert (min(steps), max(steps)) == (0, STEPS - 1)


def test_without_a_teacher_the_page_shows_what_there_is(tmp_path):
    _, html, page = made(tmp_path, SOME, **EQUAL)
    assert "All weights are 1." in html
    assert "no scorer stands behind them" in html
    assert "log p(" not in html
    assert "clamped at the upper bound</span>" not in html
    assert [of["scored"] for of in page.values["answers"]] == [{}] * 4
    assert page.values["bounds"] == [None, None]


def test_a_control_is_named(tmp_path):
    assert "The control <code>permuted</code> changed them" in made(tmp_path, SOME, control="permuted")[1]


BARE = dict.fromkeys(("k", "mu_chosen", "mu_rejected", "lower", "upper"))
OTHERS = {
    "no student": ({"source": "pair", "positive": "teacher", "negative": "none"}, "r = log p(teacher)</span>"),
    "released": (
        BARE | {"source": "swift_as_released", "shifted": False, "form": None, "segment_agg": None},
        "r = log p(teacher)</span>",
    ),
    "both signs": (BARE | {"form": "origin"}, "r = log p(teacher) \u2212 log p(student)</span>"),
    "ranks": (BARE | {"form": "rank_based", "scale_lower": 0.7, "scale_upper": 1.3}, "<dd><bdi>rank_based</bdi>"),
    "random": (EQUAL | {"form": "random", "scale_lower": 0.7, "scale_upper": 1.3}, "no scorer stands behind them"),
}


@pytest.mark.parametrize(("changes", "shown"), OTHERS.values(), ids=OTHERS)
def test_other_sources_and_forms_have_their_page(tmp_path, changes, shown):
    files, html, page = made(tmp_path, SOME, **changes)
    assert shown in html
    weights = tables.read(files.weights, "weights")["chosen_weights"][0].as_py()
    assert [float(np.float32(weight)) for weight in page.values["answers"][0]["weight"]] == weights


def test_weights_of_a_file_have_their_page(tmp_path):
    files = weighted_pairs.write(tmp_path, SOME)
    changed(
        files.weights, files.weights, "weights", {"settings": {"given": "a.jsonl", "eos_weight": 1.0}, "seed": None}
    )
    html = token_page("wspin/ite0", PairFiles(files.rows, files.generations, files.reference, files.weights, {}, {}))
    assert "no scorer stands behind them" in html
    assert "<dt>given</dt><dd><bdi>a.jsonl</bdi>" in html


# Text of others


@attack(
    "display",
    "elements, scripts, template marks, invisible and turning characters in prompts and answers of the page of weights",
    "shown as text in the element of its own; the page's policy admits its own script alone",
)
def test_texts_of_others_are_text(tmp_path):
    _, html, page = made(tmp_path, HOSTILE)
    assert [len(page.all(tag)) for tag in ("script", "img", "style")] == [2, 0, 1]
    assert not [given for _, given, _ in page.elements if any(name.startswith("on") for name in given)]
    assert [text for _, text in page.all("p", **{"class": "prompt"})] == [SHOWN]
    chosen, rejected = ("".join(text for _, text in tokens) for tokens in page.answers())
    assert chosen == r"<img src=x onerror=alert(1)>·&amp;·\u202eright\u202c·\u200bEOS"
    assert rejected == "</script><script>alert('answer')</script>{{ 7·* 7·}}EOS"
    assert all(line.isprintable() for line in html.split("\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" word", " word"),
        ("two words", "two words"),
        (" ", "·"),
        ("  word", "··word"),
        ("end ", "end·"),
        ("\n\n", "↵\n↵\n"),
        ("\t\r", "⇥␍"),
        ("\u00a0\u200f", r"\xa0\u200f"),
        ("", "▫"),
        ("日本", "日本"),
    ],
)
def test_white_space_of_a_token_is_visible(text, expected):
    assert shown(Token(text, np.float32(1), 0.0)) == expected


# One file


def test_the_page_needs_nothing_from_outside(tmp_path):
    _, html, page = made(tmp_path, SOME)
    assert not re.search(r"https?:|//\w|url\(|@import|\bsrc=|\bhref=|fetch\(|XMLHttp|innerHTML|eval\(", html)
    ((policy, _),) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    directives = dict(part.strip().split(" ", 1) for part in policy["content"].split(";"))
    assert directives["default-src"] == "'none'"
    own = [text for given, text in page.all("script") if not given]
    for name, texts in (("style-src", [page.all("style")[0][1]]), ("script-src", own)):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert directives[name] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert not [given for _, given, _ in page.elements if "style" in given]


def test_equal_files_make_equal_bytes(tmp_path):
    (tmp_path / "again").mkdir()
    assert made(tmp_path, SOME)[1] == made(tmp_path / "again", SOME)[1]


@pytest.mark.parametrize(("words", "least"), [(250, PAIRS), (700, 2)])
def test_a_page_is_smaller_than_2_mb(tmp_path, words, least):
    """With answers as long as UltraChat's all pairs; with longer ones as many as fit."""
    texts = [" ".join(f"letter{i * j % 97}" for j in range(words)) for i in range(PAIRS + 1)]
    _, html, page = made(tmp_path, [("A prompt.", text, text) for text in texts])
    assert len(html.encode()) < 2_000_000
    assert least <= len(page.all("article")) <= (PAIRS if least == PAIRS else PAIRS - 1)
    assert f"The first {len(page.all('article'))} pairs of the study" in html


def test_long_segments_are_listed_in_part(tmp_path):
    """Text without spaces is one segment: every token of it has as many log-ratios as the teacher has tokens."""
    text = "日本語,のテ,キスト," * 40
    _, html, page = made(tmp_path, [("言って", text, text)])
    assert len(html.encode()) < 100_000
    ratios = page.values["answers"][0]["ratios"][0]
    assert (len(ratios), ratios[module.LISTED]) == (module.LISTED + 2, 6 * 40)
    parts = page.values["answers"][0]["scored"]["positive"][0]
    assert (len(parts), parts[-1]) == (2 * module.LISTED + 1, 6 * 40)


def test_memory_of_a_page_grows_with_a_long_segment_and_not_with_its_square(tmp_path):
    peaks = []
    for pieces in (300, 1_200):
        text = "日本語,のテ,キスト," * pieces
        files = weighted_pairs.write(tmp_path, [("言って", text, text)])
        tracemalloc.start()
        html = token_page("wspin/ite0", files)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        answer = TokenPage(html).values["answers"][0]
        assert answer["scored"]["positive"][0][-1] == answer["ratios"][0][module.LISTED] == 6 * pieces
    assert peaks[1] < 6 * peaks[0]


def test_long_segments_show_the_numbers_of_listed_ones(tmp_path, monkeypatch):
    files = weighted_pairs.write(tmp_path, [("言って", "日本語,のテ,キスト," * 9, "a few words")])

    def shown_numbers():
        return [(of["ratios"], of["scored"]) for of in TokenPage(token_page("wspin/ite0", files)).values["answers"]]

    listed = shown_numbers()
    monkeypatch.setattr(long_segments, "LONG", 8)
    assert shown_numbers() == listed


def test_the_program_writes_the_page_and_its_record(tmp_path):
    files, html, _ = made(tmp_path, SOME)
    flags = ["--iteration", "wspin/ite1", "--rows", files.rows, "--weights", files.weights]
    flags += ["--generations", files.generations, "--reference", files.reference, "--positive", "teacher"]
    output = tmp_path / "tokens.html"
    program.main([*flags, "--positive-logprobs", *files.logprobs["positive"], "--output", str(output)])
    assert output.read_text() == html
    check_records([output], files.inputs, "report_tokens")


# The scale


def test_the_scale_is_logarithmic_where_weights_differ_much():
    scale = ColourScale.of(np.array([0.25, 1.0, 4.0]))
    assert scale.is_log
    assert [scale.step(weight) for weight in (0.1, 0.25, 1.0, 4.0, 9.0)] == [0, 0, STEPS // 2, STEPS - 1, STEPS - 1]
    assert scale.ticks() == [(0.0, "0.25"), (0.25, "0.5"), (0.5, "1"), (0.75, "2"), (1.0, "4")]


@pytest.mark.parametrize(("weights", "labels"), [((-0.5, 1.5), ["-0.5", "0", "0.5", "1", "1.5"]), ((0.7, 1.3), None)])
def test_the_scale_is_linear_where_they_do_not_or_are_negative(weights, labels):
    scale = ColourScale.of(np.array(weights))
    assert not scale.is_log
    assert [scale.step(weight) for weight in (*weights, sum(weights) / 2)] == [0, STEPS - 1, STEPS // 2]
    shown = [label for _, label in scale.ticks()]
    assert labels in (None, shown)
    assert [shown[0], shown[-1]] == [f"{weight:g}" for weight in weights]


def test_equal_weights_have_the_middle_colour():
    assert ColourScale.of(np.ones(3)).step(1.0) == STEPS // 2
    assert ColourScale.of(np.empty(0)).step(1.0) == STEPS // 2


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_colours_are_ordered_in_grey_and_texts_stand_out(tmp_path):
    """In light and in dark; contrast as WCAG's level AA asks of text."""
    style = made(tmp_path, SOME)[2].all("style")[0][1]
    found = {name: re.findall(rf"--{name}(\d): (#[0-9a-f]{{6}})", style) for name in "ct"}
    light, dark = ([dict(found[name][half]) for name in "ct"] for half in (slice(STEPS), slice(STEPS, None)))
    for fills, inks, direction in ((*light, -1), (*dark, 1)):
        assert len(fills) == len(inks) == STEPS
        levels = [luminance(fills[str(i)]) for i in range(STEPS)]
        assert [direction * level for level in levels] == sorted(direction * level for level in levels)
        for i in range(STEPS):
            low, high = sorted((levels[i], luminance(inks[str(i)])))
            assert (high + 0.05) / (low + 0.05) >= 4.5
