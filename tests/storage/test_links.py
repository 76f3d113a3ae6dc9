"""Links and pipes that others have put at names which the study uses: what they lead to stays as it is."""

import ast
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import structure
from attacks import attack

from wspin.errors import StudyError
from wspin.generate.answer import Answer
from wspin.generate.sampling import AnswerStore
from wspin.manage import states
from wspin.manage.job_state import held
from wspin.storage import files
from wspin.storage.files import whole_file, whole_folder
from wspin.storage.locks import locked, remove_state, show_alive, show_driver
from wspin.train import journal

LINKED = "expected a file or folder of the study, found a link to"


@pytest.fixture
def victim(tmp_path, monkeypatch):
    """A file outside the study; the current folder is the study's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    path = tmp_path / "outside/thesis.txt"
    path.write_text("years of work")
    return path


def hold(folder):
    with locked(Path(folder)):
        pass


def append_curve():
    writer = journal.Journal.__new__(journal.Journal)
    writer.curve = Path("state/metrics.jsonl")
    writer.on_log(None, SimpleNamespace(global_step=1), None, {"loss": 1.0})


def begin_curve():
    writer = journal.Journal.__new__(journal.Journal)
    writer.curve = Path("state/metrics.jsonl")
    writer.on_train_begin(SimpleNamespace(output_dir="state"), SimpleNamespace(global_step=0, max_steps=1), None)


def append_answer():
    store = AnswerStore(Path("other"), 2, 9)
    store.path = Path("state/answers.jsonl")
    store.add(0, Answer([1], "stop"))


WRITERS = {
    "state.lock": partial(hold, "state"),
    "state/metrics.jsonl": append_curve,
    "./state/metrics.jsonl": begin_curve,
    "state/answers.jsonl": append_answer,
    ".snakemake/alive": show_alive,
    ".snakemake/driver": show_driver,
}


@attack("shared folders", "a link at the name of a lock, a training curve or kept answers", "refused: its target stays")
@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_link_is_refused(victim, name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to("../" * name.strip("./").count("/") + "../outside/thesis.txt")
    with pytest.raises(StudyError) as error:
        WRITERS[name]()
    target = os.readlink(name)
    assert str(error.value) == f"{Path(name)}: expected a file of the study, found a link to {target}; remove it"
    assert victim.read_text() == "years of work"


@attack("shared folders", "a named pipe at these names", "refused: no program waits for it")
@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_pipe_is_refused(victim, name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(name)
    with pytest.raises(StudyError) as error:
        WRITERS[name]()
    assert str(error.value) == f"{Path(name)}: expected a file of the study, found a named pipe; remove it"
    assert held(name) is None


@attack("shared folders", "a link at the name of a temporary file", "not followed: the output appears, whole")
def test_temporary_files_have_names_that_none_can_know(victim, monkeypatch):
    Path(f".scores.json.{os.getpid()}").symlink_to(victim)
    with whole_file("scores.json") as temporary:
        temporary.write_text("{}")
    assert Path("scores.json").read_text() == "{}"
    assert not Path("scores.json").is_symlink()
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * 2 * count)
    Path(".scores.json.00000000").symlink_to(victim.parent)
    with pytest.raises(FileExistsError), whole_file("scores.json") as temporary:
        temporary.write_text("not written")
    assert victim.read_text() == "years of work"
    assert [file.name for file in victim.parent.iterdir()] == [victim.name]


@attack("shared folders", "a link in place of an output", "the link is replaced: its target stays")
def test_an_output_that_is_a_link_is_replaced(victim):
    Path("scores.json").symlink_to(victim)
    Path("model").symlink_to(victim.parent)
    Path("dangling").symlink_to("nowhere")
    with whole_file("scores.json") as temporary:
        temporary.write_text("{}")
    for name in ("model", "dangling"):
        with whole_folder(name) as temporary:
            (temporary / "config.json").write_text("{}")
        assert [file.name for file in Path(name).iterdir()] == ["config.json"]
        assert not Path(name).is_symlink()
    assert victim.read_text() == "years of work"


@attack("shared folders", "a link within a saved state", "refused before anything is written there: its target stays")
@pytest.mark.parametrize("name", ["", "checkpoint-2", "checkpoint-2/optimizer.pt", "partial/c0de"])
def test_a_state_with_a_link_is_not_used(victim, name):
    """torch would write to an `optimizer.pt` through a link."""
    path = Path("results/.state/train/sft/f1e2", name)
    path.parent.mkdir(parents=True)
    path.symlink_to(victim.parent)
    with pytest.raises(StudyError) as error:
        hold("results/.state/train/sft/f1e2")
    assert (
        str(error.value)
        == f"{path}: expected a file or folder of the study, found a link to {victim.parent}; remove it"
    )


@attack("shared folders", "links in `.state`, and locks beside folders outside", "nothing outside is removed")
@pytest.mark.parametrize("linked", [".", "train", "train/sft", "train/sft/f1e2"])
def test_nothing_outside_the_states_is_removed(victim, linked):
    outside = victim.parent / "poetry"
    (outside / "sft/f1e2").mkdir(parents=True)
    victim.rename(outside / "thesis.txt")
    for lock in ("poetry.lock", "poetry/sft.lock", "poetry/sft/f1e2.lock"):
        (victim.parent / lock).touch()
    before = sorted(victim.parent.rglob("*"))
    path = Path("results/.state", linked)
    path.parent.mkdir(parents=True)
    path.symlink_to(victim.parent)
    if linked == "train/sft/f1e2":
        path.with_name("f1e2.lock").touch()
    lines = list(states.clean_states(Path("results/.state")))
    assert lines[-1] == "states removed: 0 (0.0 MB)"
    with pytest.raises(StudyError, match=f"^{path}: {LINKED} {victim.parent}; remove it$"):
        remove_state(path / "poetry" if linked != "train/sft/f1e2" else path)
    assert sorted(victim.parent.rglob("*")) == before


def test_a_state_with_a_link_in_it_is_removed_without_its_target(victim):
    folder = Path("results/.state/train/sft/f1e2")
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(victim)
    (folder / "far").symlink_to(victim.parent)
    folder.with_name("f1e2.lock").touch()
    assert list(states.clean_states(Path("results/.state"))) == ["states removed: 0 (0.0 MB)"]
    assert not folder.exists()
    assert victim.read_text() == "years of work"


def test_files_that_are_kept_open_or_continued_are_never_links():
    """The law: such an `open` in the library has an `opener` of storage/opening.py."""
    for file in structure.files(structure.LIBRARY):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open" and len(node.args) > 1:
                mode = ast.literal_eval(node.args[1])
                new = file.name == "tables.py"  # a temporary file, to which a checksum is added
                safe = not set(mode) & set("a+") or new or any(keyword.arg == "opener" for keyword in node.keywords)
                assert safe, f"{file.name}:{node.lineno}"
