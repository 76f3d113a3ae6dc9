"""`make check-gpu` on a machine without a GPU: its page, its time, and what it says of a step that cannot run."""

import json
import os
import re
import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def importable(monkeypatch, root):
    monkeypatch.syspath_prepend(root)


def ending(outcome="ok", reason="", rows=()):
    from bench.gpu.steps import Ending
    from bench.measure import Row

    return Ending(outcome, reason, tuple(Row(*row) for row in rows))


ROWS = {
    "tests": [
        ["tests on a GPU", "test_gpu.py::test_a", "", 0, "passed", ""],
        ["tests on a GPU", "test_gpu.py::test_b", "", 0, "failed", "assert 1 == 2 | x"],
    ],
    "attention": [
        ["attention on a GPU", "training", "bfloat16, buckets", 0, "seconds", 0.25],
        ["attention on a GPU", "training", "bfloat16, buckets", 0, "gpu_bytes", 2.5e9],
        ["attention on a GPU", "training", "bfloat16", 0, "logprobs", 0.0625],
        ["attention on a GPU", "training", "bfloat16", 0, "logprobs bound", 0.125],
        ["attention on a GPU", "rows of changing length", "", 0, "graphs", 3],
    ],
    "study": [["study on a GPU", "train", "", 0, "jobs", 4], ["study on a GPU", "train", "", 0, "gpu_bytes", 1e9]],
    "training": [
        ["training on a GPU", "large", "", 0, "forward_flops", 4e12],
        ["training on a GPU", "large", "ours", 0, "reference_seconds", 1.0],
        ["training on a GPU", "large", "ours", 0, "seconds", 3.0],
        ["training on a GPU", "large", "ours", 0, "product_flops", 8e12],
        ["training on a GPU", "large", "ours", 0, "gpu_bytes", 50e9],
        ["training on a GPU", "large", "preflight", 0, "gpu_bytes", 60e9],
    ],
    "evaluation": [
        ["evaluation on a GPU", "arc", "ours", 0, "seconds", 2.0],
        ["evaluation on a GPU", "arc", "ours", 0, "cpu_seconds", 2.0],
        ["evaluation on a GPU", "arc", "HFLM, batch 16", 0, "seconds", 9.0],
        ["evaluation on a GPU", "arc", "HFLM, batch 16", 0, "cpu_seconds", 9.0],
        ["evaluation on a GPU", "mmlu", "ours", 0, "seconds", 1.0],
        ["evaluation on a GPU", "mmlu", "ours", 0, "cpu_seconds", 1.0],
        ["evaluation on a GPU", "arc", "ours", 0, "gpu_bytes", 12e9],
        ["evaluation on a GPU", "arc", "preflight", 0, "gpu_bytes", 13e9],
    ],
}


def stored(tmp_path, steps, **more):
    """The page's text after a run with these endings."""
    from bench.gpu import page
    from bench.gpu.steps import Result

    facts = {"device": "cuda", "quick": False, "minutes": 8.0, "machine": {"GPU": "A GPU", "torch": "2.11.0"}, **more}
    page.write([Result(name, 12.3, of_step) for name, of_step in steps.items()], facts, tmp_path)
    assert page.page(page.read(tmp_path / "gpu.json")) == (tmp_path / "gpu.md").read_text()
    return (tmp_path / "gpu.md").read_text()


# The page


def test_the_page_is_that_of_the_stored_results(root):
    """While there are none, it says so."""
    from bench.gpu import page

    written, results = (root / "docs/gpu.md").read_text(), page.read(root / "docs/gpu.json")
    assert page.page(results) == written
    assert ("has never run" in written) == (results is None)


def test_the_page_names_every_step_and_the_command():
    from bench.gpu.page import page
    from bench.gpu.steps import STEPS

    text = page(None)
    assert [step.name for step in STEPS if f"| {step.name} |" not in text] == []
    assert "make check-gpu PYTHON=python" in text
    assert "## Machine" not in text


def test_the_page_shows_a_failure_and_the_numbers_beside_it(tmp_path):
    steps = {name: ending(rows=rows) for name, rows in ROWS.items()}
    steps["tests"] = ending("failed", "AssertionError: 1 of 2 tests failed", ROWS["tests"])
    steps["evaluation"] = ending("out of time", "stopped after 60 s", ROWS["evaluation"])
    steps["study"] = ending("skipped", "not installed: snakemake")
    text = stored(tmp_path, steps)
    assert "has never run" not in text
    for line in (
        "| tests | **failed** | AssertionError: 1 of 2 tests failed | 12 |",
        "| attention | ok |  | 12 |",
        "| study | **skipped** | not installed: snakemake | 12 |",
        "| evaluation | **out of time** | stopped after 60 s | 12 |",
        "| GPU | A GPU |",
        "1 passed, 1 failed.",
        "| training, bfloat16 | 0.0625 | 0.125 |  |  |",
        "| training: bfloat16, buckets | 0.25 | 2.5 |",
        "rows of changing length: graphs 3.",
        "| arc: ours | 12 |",
        "| arc: preflight | 13 |",
        "| ours | 4.00 | 1.00 | 50 |  |",
        "| preflight |  |  | 60 |  |",
        "Skipped: TRL is not installed in that environment.",
    ):
        assert line in text.splitlines()
    assert r"assert 1 == 2 \| x |" in text
    assert "| **arc: HFLM, batch 16** | 9.00 | 4.50 |" in text
    assert "| mmlu: ours | 1.00 | 1.00 |" in text  # stopped in this suite
    assert "Share of the roof: training 0.50, scoring 0.50." in text  # 3 x 4e12 FLOPs in 3 s, of 8e12 a second


def test_the_best_batch_on_a_gpu_is_that_of_the_clock(tmp_path):
    """The processor waits there, however long."""
    rows = [
        ["evaluation on a GPU", "arc", f"HFLM, batch {size}", 0, quantity, value]
        for size, quantities in ((16, {"seconds": 9.0, "cpu_seconds": 2.0}), (32, {"seconds": 7.0, "cpu_seconds": 3.0}))
        for quantity, value in quantities.items()
    ]
    text = stored(tmp_path, {"evaluation": ending(rows=[*ROWS["evaluation"][:2], *rows])})
    assert "| **arc: HFLM, batch 32** | 7.00 | 3.50 |" in text
    assert "| arc: HFLM, batch 16 | 9.00 | 4.50 |" in text


def test_a_page_of_the_smallest_cases_says_so(tmp_path):
    text = stored(tmp_path, {"tests": ending()}, device="cpu", quick=True)
    assert "on device cpu:** the smallest cases, whose numbers say nothing about a GPU" in text


# The time


class Clock:
    """A clock that steps move on."""

    def __init__(self, durations):
        self.now, self.durations, self.limits = 0.0, durations, {}

    def __call__(self):
        return self.now

    def start(self, name, limit):
        """A step that takes its duration, or its limit if that is shorter."""
        self.limits[name] = limit
        self.now += min(limit, self.durations[name])
        return ending() if self.durations[name] <= limit else ending("out of time", "stopped")


def run(durations, total=100.0):
    from bench.gpu.steps import Step, run_steps

    clock = Clock(durations)
    results = list(run_steps([Step("a", 0.2), Step("b", 0.3), Step("c", 0.4)], total, clock.start, clock))
    return clock.limits, [(result.name, result.seconds, result.ending.outcome) for result in results]


def test_a_step_has_its_share_and_what_is_left_over():
    limits, results = run({"a": 10, "b": 30, "c": 50})
    assert limits == pytest.approx({"a": 30, "b": 50, "c": 60})  # a tenth of the time is nobody's
    assert results == [("a", 10, "ok"), ("b", 30, "ok"), ("c", 50, "ok")]


def test_a_step_that_overruns_is_stopped_and_takes_nothing_from_the_next():
    limits, results = run({"a": 1000, "b": 5, "c": 1000})
    assert limits == pytest.approx({"a": 30, "b": 30, "c": 65})
    assert results == [("a", 30, "out of time"), ("b", 5, "ok"), ("c", 65, "out of time")]


def test_without_time_a_step_does_not_start():
    from bench.gpu.steps import Step, run_steps

    clock = Clock({})
    clock.start = lambda name, limit: setattr(clock, "now", 500.0) or ending()  # slower to stop than its limit
    first, second = run_steps([Step("a", 0.5), Step("b", 0.5)], 100.0, clock.start, clock)
    assert (first.ending.outcome, second.ending.outcome) == ("ok", "out of time")
    assert second.line == "b: out of time, 0 s: the steps before it took all of the time"


def test_all_shares_together_are_the_whole():
    from bench.gpu.steps import STEPS

    assert 0.9 < sum(step.share for step in STEPS) <= 1.0


def test_a_stopped_step_leaves_no_process_and_keeps_its_numbers(tmp_path, monkeypatch):
    """A process with a child, both of which would wait for ever; it has a limit of no time at all."""
    from bench.gpu import steps

    (tmp_path / "tests.jsonl").write_text('["tests", "a", "", 0, "passed", ""]\n["tests", "ha')
    waiting = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    popen, processes = subprocess.Popen, []

    def start(command, **options):
        processes.append(popen([sys.executable, "-c", waiting], **options))
        return processes[-1]

    monkeypatch.setattr(steps.subprocess, "Popen", start)
    stopped = steps.start_step("tests", 0.0, "cpu", True, tmp_path)
    assert (stopped.outcome, stopped.reason) == ("out of time", "stopped after 0 s")
    assert [row.case for row in stopped.rows] == ["a"]
    assert processes[0].returncode < 0
    with pytest.raises(ProcessLookupError):
        os.killpg(processes[0].pid, 0)


# How a step ends


def raising(error):
    yield ("attention", "a", "", 0, "seconds", 1.0)
    raise error


@pytest.mark.parametrize(
    ("name", "error", "outcome", "reason"),
    [
        ("a fault", RuntimeError("\nCUDA error: no kernel\nmore"), "failed", "RuntimeError: CUDA error: no kernel"),
        ("a package", ModuleNotFoundError("no", name="trl.trainer"), "skipped", "trl.trainer is not installed"),
        ("a reason", None, "skipped", "no tests here"),
    ],
)
def test_a_step_ends_in_one_line_and_keeps_its_rows(name, error, outcome, reason):
    from bench.gpu.step import run_step
    from bench.gpu.steps import Skipped

    written = []
    found = run_step(raising(error or Skipped("no tests here")), written.append)
    assert (found.outcome, found.reason, len(written)) == (outcome, reason, 1)


def test_a_process_that_dies_is_a_failure(tmp_path, monkeypatch):
    from bench.gpu import steps

    monkeypatch.setattr(steps.sys, "executable", "/bin/false")
    died = steps.start_step("tests", 60.0, "cpu", True, tmp_path)
    assert (died.outcome, died.reason) == ("failed", "its process ended with status 1")


def test_a_case_that_fails_does_not_stop_the_others():
    from bench.gpu.steps import each

    rows = []
    with pytest.raises(ZeroDivisionError):
        rows.extend(each((1, 0, 2), lambda n: [1 / n]))
    assert rows == [1.0, 0.5]


# The command


def test_without_a_gpu_it_refuses_in_one_line_and_changes_nothing(tmp_path, monkeypatch):
    import bench.gpu.__main__ as check
    from bench.gpu import machine

    monkeypatch.setattr(machine, "in_new_process", lambda function: ("2.13.0+cpu", 0))
    with pytest.raises(SystemExit) as end:
        check.main(["--output", str(tmp_path)])
    expected = "check-gpu: expected a CUDA device, found none (torch 2.13.0+cpu); run it on a machine with a GPU"
    assert end.value.code == f"{expected}; nothing has been changed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "expected another folder by --output"),
        (["--device", "cuda", "--steps", "tests"], "expected another folder by --output"),
        (["--device", "cpu", "--steps", "test"], "invalid choice: 'test'"),
    ],
)
def test_the_page_in_docs_is_of_all_steps_on_a_gpu(capsys, arguments, message):
    """Some of them would take the numbers of the others out; and a step that does not exist is none."""
    import bench.gpu.__main__ as check

    with pytest.raises(SystemExit):
        check.main(arguments)
    assert message in capsys.readouterr().err


def test_a_run_writes_the_page_after_every_step(tmp_path, monkeypatch, capsys):
    """Into a folder that it makes."""
    import bench.gpu.__main__ as check

    pages, tmp_path = [], tmp_path / "new"

    def start(name, limit, **options):
        pages.append((tmp_path / "gpu.md").exists())
        return ending("failed", "of no use") if name == "study" else ending()

    monkeypatch.setattr(check, "start_step", start)
    monkeypatch.setattr(check, "in_new_process", lambda function, device: {"processor": "one"})
    with pytest.raises(SystemExit) as end:
        check.main(["--device", "cpu", "--output", str(tmp_path), "--steps", "tests", "study"])
    assert (end.value.code, pages) == (1, [False, True])
    assert "check-gpu: study: failed, 0 s: of no use" in capsys.readouterr().out
    assert [step["outcome"] for step in json.loads((tmp_path / "gpu.json").read_text())["steps"]] == ["ok", "failed"]


def test_every_file_with_tests_for_a_gpu_is_run(root):
    from bench.gpu.tests import FILES

    marked = re.compile(r"^(@pytest|pytestmark = pytest)\.mark\.gpu\b", re.MULTILINE)
    files = [file for file in (root / "tests").rglob("test_*.py") if marked.search(file.read_text())]
    assert {str(file.relative_to(root)) for file in files} == {*FILES, "tests/whole/test_check_gpu.py"}


def test_pytest_s_reasons_become_a_line():
    from bench.gpu.tests import _reason

    class Crash:
        reprcrash = type("Place", (), {"message": "AssertionError: no\nassert 1"})

    skipped = ("file.py", 3, "Skipped: no CUDA device on this machine")
    assert [_reason(skipped), _reason(Crash), _reason(None)] == [
        "no CUDA device on this machine",
        "AssertionError: no",
        "",
    ]


# What the steps measure, as far as a CPU can


@pytest.mark.parametrize(
    ("installed", "peers"),
    [((), []), (("trl",), ["trl"]), (("trl", "liger_kernel"), ["trl", "liger"]), (("liger_kernel",), [])],
)
def test_trl_stands_beside_ours_as_far_as_it_is_installed(monkeypatch, installed, peers):
    """Nothing is measured here."""
    from bench.cases import training

    monkeypatch.setattr(training, "find_spec", lambda name: name in installed or None)
    assert training.installed_peers() == peers
    case = training.GPU[0]
    task = training.Task(case, None, [], [], training.SETTINGS, "cuda", "")
    names = [f"TRL, precomputed, {size} x {times}" for size, times in case.micro_batches] if "trl" in peers else []
    assert list(task.contenders(peers)) == ["ours", *names]
    assert task.precision == "bfloat16"


def test_preflight_s_estimates_are_those_of_the_case():
    """More tokens in a micro-batch need more memory, in training as in scoring."""
    from dataclasses import replace

    from bench.cases import training
    from bench.gpu.training import estimates

    small, large = (estimates(replace(training.FULL[0], token_budget=budget)) for budget in (1024, 8192))
    assert set(small) == {"gpu_bytes", "reference_gpu_bytes"}  # of `Clock`
    assert all(0 < small[part] < large[part] for part in small)


def test_attention_is_compared_in_values_and_the_bound_holds():
    from bench.gpu import attention

    with attention.on_device("cpu"):
        rows = list(attention.compare(attention.CASES[4], True, "cpu"))
    found = {(row.contender, row.quantity): row.value for row in rows}
    assert 0 < found["bfloat16", "logprobs"] <= found["bfloat16", "logprobs bound"] < 0.2
    assert found["float32", "logprobs"] < 1e-5


def test_a_wrong_kernel_is_seen(monkeypatch):
    from bench.gpu import attention
    from transformers import AttentionInterface

    from wspin.engine.attention import FLEX, _flex_attention

    def wrong(module, query, key, value, *more, **options):
        return _flex_attention(module, query, key.roll(1, dims=2), value, *more, **options)

    AttentionInterface.register(FLEX, wrong)
    try:
        with attention.on_device("cpu"), pytest.raises(AssertionError, match="training, float32: logprobs differ by"):
            list(attention.compare(attention.CASES[0], True, "cpu"))
    finally:
        AttentionInterface.register(FLEX, _flex_attention)


@pytest.mark.gpu
def test_the_whole_check_on_a_gpu(tmp_path, root):
    """Of the smallest cases."""
    command = [sys.executable, "-m", "bench.gpu", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
