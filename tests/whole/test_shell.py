"""Names of folders in the shell commands of the rules: refused, or one word of a command whatever is in them."""

import re
import subprocess

import pytest
from attacks import attack
from configuration import refusal
from workflow import TWO_ARMS, WEIGHED, checkout

# Blanks, quotes, commands, jobs, pipes, redirections, patterns, comments, history, escapes, other scripts.
NAME = "a 'b' \"c\"; touch d & `touch e` *?[f]|(g)>h#i!j\\k =\u00fc\u05d0,%,"
REFUSED = [
    "$(touch x)",
    "$HOME/x",
    "~/x",
    "a\ntouch x",
    "a\x1b[2J",
    "{arm}",
    "<logs>",
    "-x",
    "--output=x",
    " x",
    "x/../y",
    "x/{shard}/y",
    "${HOME}/x",
    "a\ttouch x",
    "a\rtouch x",
    "a\x00b",
]
COMMAND = re.compile(r"^Shell command: *\n(.+?)\n(?:\n|\[)", re.MULTILINE | re.DOTALL)
LOG = re.compile(r"exec &> >\(tee -i (.*)\)$", re.MULTILINE)


@pytest.mark.parametrize("name", REFUSED)
@attack(
    "paths",
    "a results folder named `$(touch x)`, `~/x`, `{arm}`, `<logs>`, `-x`, `x/../y`, or with control characters",
    "refused with its line of the config",
)
def test_a_folder_that_is_no_plain_name_is_refused(name):
    message = refusal({"results": name})
    assert message.count("\n") == 0
    assert "results: " in message


@attack(
    "paths",
    "a results folder whose name has blanks, quotes, `;`, `&`, backticks, `*`, `|`, `>`, `#`, `!`, `\\\\`",
    "one word of every job's command",
)
def test_a_folder_is_one_word_of_every_command(tmp_path):
    """Bash itself takes the commands of a whole study apart; only their programs are not run."""
    (tmp_path / "repository").mkdir()
    study = checkout(tmp_path / "repository", TWO_ARMS, WEIGHED).overlay({"results": f"results/{NAME}"})
    planned = study.run("--dry-run", "all").stdout
    commands = COMMAND.findall(planned)
    assert len(commands) == len(re.findall(r"^ +jobid: ", planned, re.MULTILINE)) - 1 > 70, planned  # all but `all`
    words = "python() { printf '%s\\0' \"$@\"; }\n"
    script = words + "\n".join(LOG.sub(r"python \1", command) for command in commands)
    (tmp_path / "empty").mkdir()
    shell = subprocess.run(["bash", "-c", script], cwd=tmp_path / "empty", capture_output=True, text=True)
    assert (shell.returncode, shell.stderr) == (0, "")
    named = [word for word in shell.stdout.split("\0") if "results/" in word]
    assert len(named) > 5 * len(commands)
    assert [word for word in named if not re.fullmatch(re.escape(f"results/{NAME}") + r"(/[\w./-]+)?", word)] == []
    assert list((tmp_path / "empty").iterdir()) == []
