"""The page of answers shows what each model said, as text, in the place of its arm and iteration."""

import re

import pytest
from attacks import attack
from pages import Page
from score_files import check_records

import report_answers as program
from wspin.errors import StudyError
from wspin.report.answers import answers_page
from wspin.storage import tables

PROMPTS = {
    "prompt_id": ["a", "b", "c"],
    "prompt": ["Say\nhi.", "Bye?", "More?"],
    "response": ["Hi you", "Bye", "Yes"],
    "split": ["t", "t", "t"],
}


def answers(path, texts, reasons=None, ids=None):
    """A file of answers to the first prompts, each of as many tokens as it has words, and EOS."""
    columns = {
        "prompt_id": ids or PROMPTS["prompt_id"][: len(texts)],
        "response": texts,
        "token_ids": [[1] * (len(text.split()) + 1) for text in texts],
        "finish_reason": reasons or ["stop"] * len(texts),
    }
    tables.write(path, "generations", columns, {})
    return str(path)


@pytest.fixture
def prompts(tmp_path):
    tables.write(tmp_path / "prompts.parquet", "prompts", PROMPTS, {})
    return str(tmp_path / "prompts.parquet")


@pytest.fixture
def files(tmp_path):
    """Of a model of the registry, two iterations of one arm, and the second iteration of another."""
    texts = {
        "base": (["what a mess", ""], ["length", "stop"]),
        "spin/ite0": (["Hi me", "Bye"], None),
        "spin/ite1": (["Hi you", "No"], None),
        "wspin/ite1": (["Hi all of you", "Bye bye", "Yes"], None),  # a whole shard
    }
    return {model: answers(tmp_path / f"{i}.parquet", *of) for i, (model, of) in enumerate(texts.items())}


def cells(article):
    """{(arm, iteration): text} of the table of a prompt."""
    arms = re.findall(r'<th scope="col"><bdi>(.*?)</bdi>', article)
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>(.*?)</tr>', article, re.DOTALL)
    return {
        (arm, int(k)): " ".join(re.sub(r"<[^>]*>", " ", cell).split())
        for k, row in rows
        for arm, cell in zip(arms, re.findall(r"<td>(.*?)</td>", row, re.DOTALL), strict=True)
    }


def test_every_answer_stands_in_its_place(prompts, files):
    page = answers_page(prompts, files, 2)
    first, second = page.split("<article")[1:]
    assert "Say\nhi." in first and "Hi you" in first and "More?" not in page
    assert re.search(r"<bdi>base</bdi></h3>\s*<p[^>]*>what a mess</p>\s*<p[^>]*>4 tokens, <b>cut</b></p>", first)
    assert cells(first) == {
        ("spin", 0): "Hi me 3 tokens",
        ("spin", 1): "Hi you 3 tokens, = real answer",
        ("wspin", 0): "",
        ("wspin", 1): "Hi all of you 5 tokens",
    }
    assert "1 token</p>" in second  # an empty answer is its EOS
    assert cells(second)["spin", 0] == "Bye 2 tokens, = real answer"
    assert page == answers_page(prompts, files, 2)


def test_fewer_prompts_than_asked_for(prompts, files):
    assert answers_page(prompts, {"wspin/ite1": files["wspin/ite1"]}, 9).count("<article") == 3


def test_a_study_without_arms(prompts, files):
    page = answers_page(prompts, {"base": files["base"]}, 1)
    assert "<table" not in page and "Columns are arms" not in page


@attack(
    "display",
    "HTML, a script or codes of a terminal in a prompt, its id or an answer, on the page of answers",
    "shown as text; the page holds no script, and its policy admits none",
)
def test_texts_of_models_are_text_and_the_page_asks_nobody(tmp_path):
    texts = ["<script>alert(1)</script>", "\x1b[31m\u202e{{ 7 * 7 }}<img src=x onerror=alert(1)>"]
    path = tmp_path / "rows.parquet"
    ids = [f"{text} " for text in texts]
    tables.write(path, "prompts", {"prompt_id": ids, "prompt": texts, "response": texts, "split": ["t", "t"]}, {})
    said = answers(tmp_path / "said.parquet", texts, ids=ids)
    html = answers_page(str(path), {"base": said, "spin/ite0": said}, 2)
    page = Page(html)
    assert not any(page.all(tag) for tag in ("script", "link", "img"))
    assert all(given["href"].startswith("#prompt") for given, _ in page.all("a"))
    assert page.all("p", **{"class": "prompt"})[0][1] == texts[0]
    assert "\\x1b[31m\\u202e{{ 7 * 7 }}" in html and "\x1b" not in html and "\u202e" not in html
    (policy,) = [given["content"] for given, _ in page.all("meta") if "http-equiv" in given]
    assert "default-src 'none'" in policy and "script-src 'none'" in policy


@pytest.mark.parametrize("ids", [["a", "c"], ["b", "a"], ["a"]])
def test_answers_to_other_prompts_are_refused(prompts, tmp_path, ids):
    path = answers(tmp_path / "other.parquet", ["x"] * len(ids), ids=ids)
    with pytest.raises(StudyError, match=r"other\.parquet"):
        answers_page(prompts, {"sft": path}, 2)


def test_the_program(prompts, files, tmp_path):
    output = tmp_path / "answers.html"
    shown = ["--rows", prompts, "--count", "2", "--models", *files, "--answers", *files.values()]
    program.main([*shown, "--output", str(output)])
    assert output.read_text() == answers_page(prompts, files, 2)
    check_records([output], [prompts, *files.values()], "report_answers")


@pytest.mark.parametrize("names", [["base", "base"], ["base"]])
def test_a_file_without_a_name_of_its_own_is_refused(prompts, files, tmp_path, names):
    two = list(files.values())[:2]
    flags = ["--rows", prompts, "--count", "2", "--models", *names, "--answers", *two]
    with pytest.raises(StudyError, match="--models: expected a name of its own"):
        program.main([*flags, "--output", str(tmp_path / "answers.html")])
