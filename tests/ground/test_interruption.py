"""What Ctrl-C leaves on the screen."""

import signal
import subprocess
import sys

from wspin.interruption import KEPT


def run(root, code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root / "workflow/scripts", text=True, capture_output=True, timeout=60
    )


def test_an_interruption_is_one_line_and_ends_the_process_by_the_signal(root):
    """Also in the midst of the imports, of which the library's first module is the first."""
    done = run(root, "import wspin; raise KeyboardInterrupt")
    assert (done.stderr, done.stdout) == (f"python: {KEPT}\n", "")
    assert done.returncode == -signal.SIGINT


def test_a_program_that_works_is_interrupted_in_one_line(root):
    interrupted = "cli.run(lambda: os.kill(os.getpid(), 2))"
    done = run(root, f"import os; from wspin import cli; {interrupted}")
    assert (done.stderr, done.returncode) == (f"python: {KEPT}\n", -signal.SIGINT)


def test_what_runs_at_exit_keeps_the_signal_and_the_output(root):
    """Python itself forgets the signal where a text is executed after the interruption."""
    done = run(
        root, "import atexit, wspin; atexit.register(lambda: exec('print(2)')); print(1); raise KeyboardInterrupt"
    )
    assert (done.stdout, done.stderr) == ("1\n2\n", f"python: {KEPT}\n")
    assert done.returncode == -signal.SIGINT


def test_other_errors_keep_their_traceback(root):
    done = run(root, "import wspin; 1 / 0")
    assert done.stderr.startswith("Traceback ")
    assert done.returncode == 1
