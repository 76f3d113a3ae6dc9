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


def test_a_line_in_thirty_seconds_and_one_at_the_end(clock, capsys):
    print_progress = progress.progress_printer("eval", 100)
    for done in (1, 10, 40, 41, 90, 100):
        clock.now += 20
        print_progress(done)
    lines = ["eval: 10 of 100  6 min left", "eval: 41 of 100  2 min left", "eval: 100 of 100  0 s left"]
    assert capsys.readouterr().out.splitlines() == lines


def test_what_an_earlier_attempt_has_done_took_no_time_of_this_one(clock, capsys):
    """10 requests in 40 s, with 90 left: 6 min, and not the 4 s of 910 requests in 40 s."""
    print_progress = progress.progress_printer("eval", 1000)
    print_progress(900, kept=900)
    clock.now += 40
    print_progress(900, kept=900)
    print_progress(910, kept=900)
    assert capsys.readouterr().out == "eval: 910 of 1000  6 min left\n"
    print_progress(1000, kept=1000)
    assert capsys.readouterr().out == "eval: 1000 of 1000  0 s left\n"


@pytest.mark.parametrize("left", [0, 40, 150, 5000, 9000])
def test_status_reads_what_is_printed(clock, capsys, left):
    """Within the half minute, or a minute, that a line rounds off."""
    print_progress = progress.progress_printer("eval", 2)
    clock.now += left or 31
    print_progress(1 if left else 2)
    share, seconds = job_state.progress_of(capsys.readouterr().out)
    assert share == (0.5 if left else 1)
    assert seconds == pytest.approx(left, abs=30)
