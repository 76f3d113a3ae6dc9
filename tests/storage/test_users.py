"""Two users of one study: what the second may do goes on, and what not is a line that names the owner."""

import stat
import sys
from functools import partial
from pathlib import Path

import pytest
from attacks import attack
from users import ALICE, BOB, LAB, as_user, give, needs_root, shared

from wspin import cli
from wspin.generate.answer import Answer
from wspin.generate.sampling import AnswerStore
from wspin.manage.job_state import held
from wspin.storage import tables
from wspin.storage.files import read_json, whole_folder, write_json
from wspin.storage.locks import discard_state, locked, show_alive

pytestmark = needs_root
__all__ = ["shared"]
STATE = Path("results/.state/generate/sft/00/f1e2")
ROWS = {"prompt_id": ["a"], "prompt": ["b"], "response": ["c"], "split": ["train"]}


def ends_with(program, user, **options):
    """The line with which a program ends that a user runs; all modules of the program are imported."""
    error = as_user(user, partial(cli.run, program), **options)
    assert isinstance(error, SystemExit), error
    return str(error.code).removeprefix(f"{Path(sys.argv[0]).name}: error: ")


def work():
    """What a job does with a study's files: outputs, a state that it resumes, a lock."""
    write_json("results/scores.json", {})
    tables.write("results/data/prompts.parquet", "prompts", ROWS, {})
    with whole_folder("results/sft/model") as folder:
        (folder / "config.json").write_text("{}")
    with locked(STATE):
        store = AnswerStore(STATE, 9, 9)
        store.add(len(store.answers), Answer([1], "stop"))
    with show_alive() as alive:
        assert alive.readable()  # for a shared lock on NFS
    return len(store.answers)


def test_a_second_user_of_the_group_goes_on(shared):
    for count, user in enumerate((ALICE, BOB, ALICE), 1):
        assert as_user(user, work, umask=0o002) == count
    assert as_user(BOB, partial(discard_state, STATE), umask=0o002) is None
    assert not STATE.exists()
    for path in Path().rglob("*"):
        assert path.stat().st_gid == LAB, path
        assert stat.S_IMODE(path.stat().st_mode) == (0o2775 if path.is_dir() else 0o664), path


def begun_by_alice(mode=0o755):
    """A study that cannot be shared, as one begun with `umask 022`."""
    assert as_user(ALICE, work) == 1
    Path("results").chmod(mode)


DENIED = {
    "results/a.json": lambda: write_json("results/a.json", {}),
    "results/new/a.json": lambda: write_json("results/new/a.json", {}),
    "results/scores.json": lambda: write_json("results/scores.json", {}),
    "results/sft/model": work,
}


@attack(
    "shared folders",
    "a study that another user began with `umask 022`, continued",
    "results: expected permission to write there, found a folder of 48101 (mode 0755, group 48100); "
    "ask 48101 for `chmod g+w`, and begin studies with `umask 002`",
)
@pytest.mark.parametrize("name", DENIED)
def test_who_may_not_write_is_told_whom_to_ask(shared, name, outcome):
    begun_by_alice()
    assert ends_with(DENIED[name], BOB) == outcome


@attack(
    "shared folders",
    "a file that its owner alone may read",
    "results/scores.json: expected permission to read it, found a file of 48101 (mode 0600, group 48100); "
    "ask 48101 for `chmod g+r`",
)
def test_who_may_not_read_is_told_whom_to_ask(shared, outcome):
    begun_by_alice()
    Path("results/scores.json").chmod(0o600)
    assert ends_with(lambda: read_json("results/scores.json", "scores", "make them again"), BOB) == outcome
    Path("results/data/prompts.parquet").chmod(0o600)
    expected = outcome.replace("scores.json", "data/prompts.parquet")
    assert ends_with(lambda: tables.read("results/data/prompts.parquet", "prompts"), BOB) == expected


def test_other_lines(shared):
    begun_by_alice(0o700)
    found = "found a folder of 48101 (mode 0700, group 48100); ask 48101 for `chmod g+x`"
    line = ends_with(lambda: read_json("results/scores.json", "", ""), BOB)
    assert line == f"results: expected permission to enter it, {found}"
    line = ends_with(lambda: read_json("results/scores.json", "", ""), BOB, group=BOB)
    assert line == f"results: expected permission to enter it, {found} and a group of yours (`chgrp`)"
    Path("results").chmod(0o2775)
    with_lock = partial(AnswerStore, STATE, 9, 9)
    line = ends_with(with_lock, BOB)
    assert line.startswith(f"{STATE}: expected permission to write there, found a folder of 48101 (mode 2755, group")
    found = "found a file of 48101 (mode 0644, group 48100); ask 48101 to do it"
    line = ends_with(lambda: Path("results/scores.json").chmod(0o777), BOB)
    assert line == f"results/scores.json: expected permission to change it, which its owner alone may, {found}"
    Path("results/scores.json").chmod(0o200)
    found = "found a file of 48101 (mode 0200, group 48100); run `chmod u+r` on it"
    line = ends_with(lambda: read_json("results/scores.json", "", ""), ALICE)
    assert line == f"results/scores.json: expected permission to read it, {found}"
    shared.chmod(0o755)
    line = ends_with(lambda: write_json("a.json", {}), BOB)
    assert line.startswith(f"{shared}: expected permission to write there, found a folder of 48101 (mode 0755")


def test_links_below_a_closed_folder_name_that_folder(shared):
    Path("private/results").mkdir(parents=True)
    give(Path("private"), ALICE)
    Path("private").chmod(0o700)
    Path("results").symlink_to("private/results")
    line = ends_with(lambda: write_json("results/a.json", {}), BOB)
    assert line.startswith("private: expected permission to enter it, found a folder of 48101 (mode 0700,")
    assert as_user(ALICE, lambda: write_json("results/a.json", {})) is None


def test_a_lock_of_another_user_is_a_lock(shared):
    """Also where it may only be read; who holds it then is not written into it."""
    begun_by_alice(0o2775)
    lock = STATE.with_name("f1e2.lock")
    before = lock.read_text()

    def hold():
        with locked(STATE, wait=False) as free:
            return free, held(lock)

    assert as_user(BOB, hold) == (True, True)
    assert lock.read_text() == before
    with locked(STATE):
        assert as_user(BOB, hold) == (False, True)
        assert as_user(BOB, partial(held, lock)) is True
    assert as_user(BOB, partial(held, lock)) is False


@attack("shared folders", "an output of another user, a folder in it closed", "refused, and nothing of it is removed")
def test_no_part_of_another_users_output_is_removed(shared):
    begun_by_alice()
    model = Path("results/sft/model")
    (model / "below").mkdir()
    (model / "below/file").touch()
    give(model, ALICE)
    for folder in (model.parent, model):
        folder.chmod(0o2775)

    def replace():
        with whole_folder(model) as folder:
            (folder / "config.json").write_text("new")

    found = "found a folder of 48101 (mode 2755, group 48100); ask 48101 for `chmod g+w`"
    line = ends_with(replace, BOB)
    assert line == f"{model}/below: expected permission to write there, {found}, and begin studies with `umask 002`"
    assert (model / "config.json").read_text() == "{}"
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_a_state_of_another_user_costs_no_result(shared, capfd):
    begun_by_alice()
    assert as_user(BOB, partial(discard_state, STATE)) is None
    expected = f"{STATE}: the saved state stays: {STATE}: expected permission to write there, found a folder of 48101"
    assert capfd.readouterr().out.startswith(expected)
    assert STATE.exists()
