"""Lines on the progress of a long loop, by a clock that the test moves."""

from types import SimpleNamespace

import pytest

from wspin import progress
from wspin.manage import job_state


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (200, "3 min"), (5000, "83 min"), (5400, "1 h 30 min")],
)
def test_a_span_of_time_is_short(seconds, text):
    assert progress.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [(930, 3, "310/s"), (42, 10, "4.2/s"), (1, 31, "1.9/min"), (7, 600, "42/h"), (1, 36000, "0.1/h"), (0, 5, "0.0/h")],
)
def test_a_rate_is_a_short_number(count, seconds, text):
    assert progress.rate(count, seconds) == text


def test_a_line_in_thirty_seconds_and_one_at_the_end(clock, capsys):
    print_progress = progress.progress_printer("eval", 100, "requests")
    for done in (1, 10, 40, 41, 90, 100):
        clock.now += 20
        print_progress(done)
    assert capsys.readouterr().out.splitlines() == [
        "eval: 10 of 100 requests  15/min  6 min left",
        "eval: 41 of 100 requests  31/min  2 min left",
        "eval: 100 of 100 requests  50/min  0 s left",
    ]


def test_what_an_earlier_attempt_has_done_took_no_time_of_this_one(clock, capsys):
    """10 requests in 40 s, with 90 left: 6 min, and not the 4 s of 910 requests in 40 s."""
    print_progress = progress.progress_printer("eval", 1000, "requests")
    print_progress(900, kept=900)
    clock.now += 40
    print_progress(900, kept=900)
    print_progress(910, kept=900)
    assert capsys.readouterr().out == "eval: 910 of 1000 requests  15/min  6 min left\n"
    print_progress(1000, kept=1000)
    assert capsys.readouterr().out == "eval: 1000 of 1000 requests\n"


@pytest.mark.parametrize(("pause", "lines"), [(5, 0), (40, 3)])
def test_a_loop_of_a_few_seconds_prints_nothing(clock, capsys, pause, lines):
    used = []
    for item in progress.with_progress("abc", 3, "report: tests", "contrasts"):
        used.append(item)
        clock.now += pause
    assert used == ["a", "b", "c"]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert printed[-1:] == ["report: tests: 3 of 3 contrasts  1.5/min  0 s left"][: lines > 0]


@pytest.mark.parametrize("label", ["eval", "fetch: data/a: b.parquet of c"])
@pytest.mark.parametrize("left", [0, 40, 150, 5000, 9000])
def test_status_reads_what_is_printed(clock, capsys, label, left):
    """Within the half minute, or a minute, that a line rounds off."""
    print_progress = progress.progress_printer(label, 2, "requests")
    clock.now += left or 31
    print_progress(1 if left else 2)
    share, seconds = job_state.progress_of(capsys.readouterr().out)
    assert share == (0.5 if left else 1)
    assert seconds == pytest.approx(left, abs=30)


def test_status_reads_what_a_training_prints():
    begin = progress.progress_line("train", 16, 64, "steps", 0, 0.0)
    assert job_state.progress_of(f"{begin}, resumed\n") == (0.25, None)
    details = "loss 0.5  margin +0.1  900 tokens/s  utilisation 0.40"
    line = progress.progress_line("train", 32, 64, "steps", 16, 20.0, details)
    assert line == f"train: 32 of 64 steps  {details}  40 s left"
    assert job_state.progress_of(line) == (0.5, 40.0)
