"""Requests of suites, counted in a model's tokens."""

import json
import pickle
import shutil
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
from estimated import layout_of
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from wspin.errors import StudyError
from wspin.models import folders
from wspin.preflight import requests
from wspin.preflight.requests import RequestCounts, count_requests, count_suite, counted_requests
from wspin.storage.files import read_json, write_digests

TASK = """
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def words():
    """A tokenizer whose tokens are words."""
    vocabulary = ["?", "q", "one", "two", "three", "x", "y", "z"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def request(kind, *args):
    return SimpleNamespace(request_type=kind, args=args)


def test_counts_are_those_of_a_count_by_hand(words):
    """Two questions with two answers, which share two tokens; a prompt to be answered; a text without context."""
    scored = [
        request("loglikelihood", f"q one {last}", answer) for last in ("two", "three") for answer in (" x y", " z")
    ]
    asked = [request("generate_until", "q q q q", {"until": ["?"], "max_gen_toks": 24})]
    rolling = [request("loglikelihood_rolling", "one two three")]
    # Read: q one, and twice a last word and x, after 0, 1, 2, 3, 2, 3 tokens. They predict after last words and x.
    assert count_requests([scored], words) == RequestCounts(6, 1 + 2 + 2 * (3 + 4), 2 * 2, alone=2 * (5 + 4))
    assert count_requests([asked], words) == RequestCounts(0, 0, 0, prompts=1, prompt_tokens=4, longest=28)
    assert count_requests([rolling], words) == RequestCounts(3, 1 + 2 + 3, 3, alone=4)  # a first token, one, two
    both = count_requests([scored, asked, rolling], words)
    assert both == RequestCounts(9, 17 + 6, 7, prompts=1, prompt_tokens=4, longest=28, alone=22)
    assert both.work() == (9, 23, 7)
    assert both.work(shared=False) == (22, 23 * 22 // 9, 22)  # vLLM


@pytest.fixture
def layout(tmp_path, scratch_model):
    """A study in which the model `base` and the suite `tiny` are fetched: three questions with two choices."""
    shutil.copytree(scratch_model, tmp_path / "base/model")
    shutil.copy(scratch_model.parent / f"{scratch_model.name}.json", tmp_path / "base/manifest.json")
    suites = dict.fromkeys(("arc", "hellaswag", "mmlu", "truthfulqa", "winogrande", "gsm8k"))
    changes = {
        "suites": {**suites, "tiny": {"tiny": 0}},
        "sources": {**suites, "tiny": {"path": str(tmp_path / "source")}},
        "models": ["base"],
    }
    metrics = dict.fromkeys(("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "winogrande", "gsm8k"))
    paths = layout_of(results=str(tmp_path), eval=changes, report={"metrics": {**metrics, "tiny": "acc,none"}})
    fetch(paths, 3)
    return paths


def fetch(paths, count):
    folder = requests.Path(paths.fetched("tasks/tiny"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{number}: stone", "choices": ["river", "cloud"]} for number in range(count)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(TASK)
    write_digests(folder, f"{folder}.json")


def in_process(monkeypatch):
    """Count in this process; returns the suites that were counted."""
    counted = []

    class Pool:
        def __init__(self, *_):
            pass

        __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)

        def submit(self, function, paths, suite, models):
            counted.append((suite, models))
            found = function(pickle.loads(pickle.dumps(paths)), suite, models)
            return SimpleNamespace(result=lambda: found)

    monkeypatch.setattr(requests, "ProcessPoolExecutor", Pool)
    return counted


def test_a_fetched_suite_is_counted_as_lm_eval_builds_it(layout, scratch_model):
    tokenizer = folders.load_tokenizer(scratch_model)
    pairs = [
        request("loglikelihood", f"{number}: stone", answer) for number in range(3) for answer in (" river", " cloud")
    ]
    found = count_suite(layout, "tiny", ["base"])
    assert found == {"base": count_requests([pairs], tokenizer)}
    assert found["base"].tokens > 3 * 10


def test_counts_are_kept_until_the_suite_changes(layout, monkeypatch, tmp_path, capsys):
    counted = in_process(monkeypatch)
    first, _ = counted_requests(layout)
    assert first.keys() == {("base", "tiny")}
    assert counted_requests(layout) == (first, [])
    assert len(counted) == 1
    kept = tmp_path / ".state/preflight/base/tiny.json"
    entries, output = read_json(kept, "counts", ""), capsys.readouterr().out
    again = "preflight: counting the requests of tiny in the tokens of base\n"
    assert output == again
    for number, (text, found) in enumerate(
        {
            kept.read_text()[:40]: "counted requests, found no JSON",
            kept.read_text().replace(
                '"tokens": ', '"tokens": 1'
            ): "the bytes of its checksum, found others: it is damaged",
            json.dumps({**entries, "tokens": 1.5}): "counts of requests, found other entries",
            json.dumps({**entries, "rows": 3}): "counts of requests, found other entries",
        }.items()
    ):
        kept.write_text(text)  # damaged: counted again, with a line
        assert counted_requests(layout) == (first, [])
        line, *others = capsys.readouterr().out.splitlines(keepends=True)
        assert line.startswith(f"preflight: {kept}: expected {found}")
        assert line.endswith("; the requests are counted again\n")
        assert others == [again]
        assert len(counted) == 2 + number
    fetch(layout, 5)
    more, _ = counted_requests(layout)
    assert capsys.readouterr().out == again  # others are no damage
    assert len(counted) == 6
    assert more["base", "tiny"].predictions > first["base", "tiny"].predictions


def test_nothing_is_counted_before_it_is_fetched(tmp_path):
    assert counted_requests(layout_of(results=str(tmp_path))) == ({}, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["base/model", "base/model/tokenizer.json", "fetched/tasks/tiny"])
def test_what_is_deleted_or_damaged_is_not_counted(layout, monkeypatch, tmp_path, gone):
    """Its manifest may be left. `find_model_complaints` says what is wrong with a model that is there."""
    counted = in_process(monkeypatch)
    path = tmp_path / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_text("{")
    assert counted_requests(layout) == ({}, [])
    assert counted == []


def test_held_out_rows_that_are_deleted_are_not_counted(layout, monkeypatch, tmp_path):
    counted = in_process(monkeypatch)
    sources = layout.study.eval.sources
    sources["tiny"] = sources["tiny"].model_copy(update={"heldout": True})
    (tmp_path / "data").mkdir()
    requests.Path(layout.rows_digest("heldout")).write_text("{}")
    assert counted_requests(layout) == ({}, [])
    assert counted == []


def test_a_counting_process_that_is_killed_is_a_problem(layout, monkeypatch):
    """By the system for its memory, or by code of a task that the study allows."""
    in_process(monkeypatch)
    monkeypatch.setattr(requests, "count_suite", raises(BrokenProcessPool()))
    line = "eval.suites.tiny: expected to count its requests, the process was killed; give it more memory"
    assert counted_requests(layout) == ({}, [line])


def test_files_that_cannot_be_read_are_a_problem(layout, monkeypatch):
    in_process(monkeypatch)
    monkeypatch.setattr(requests, "count_suite", raises(PermissionError(13, "Permission denied", "rows.jsonl")))
    found, (line,) = counted_requests(layout)
    assert (found, line) == ({}, "rows.jsonl: Permission denied")


def raises(error):
    def count(*_):
        raise error

    return count


def test_a_suite_that_an_evaluation_would_refuse_is_a_problem(layout, monkeypatch):
    in_process(monkeypatch)
    folder = requests.Path(layout.fetched("tasks/tiny"))
    (folder / "tiny.yaml").write_text(TASK.replace("task: tiny", "task: other"))
    write_digests(folder, f"{folder}.json")
    found, problems = counted_requests(layout)
    assert found == {}
    assert problems == [f"{folder}: expected task 'tiny', found other; correct eval.suites.tiny"]
    with pytest.raises(StudyError):
        count_suite(layout, "tiny", ["base"])
