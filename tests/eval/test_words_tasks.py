"""The tasks of several words, on held-out rows, without a model."""

import json
from pathlib import Path

import pytest

from wspin.config.sources import TaskSource
from wspin.eval.harness import Suite, load_tasks, working_folder
from wspin.fetch import tasks

TASKS = Path(__file__).parents[2] / "config/tasks/words"
NAME, EOS = "word_sequence_reversal", "<|endoftext|>"
ANSWERS = ("theory, the, one", "o'clock, of, \\, é")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The tasks' requests by task and document."""
    folder = tmp_path_factory.mktemp("tasks")
    tasks.fetch(TaskSource(path=str(TASKS), heldout=True), folder, "nowhere")
    documents = [
        {"text": f"{i}: ", "response": answer, "choices": ["x" + EOS, answer + EOS], "label": 1}
        for i, answer in enumerate(ANSWERS)
    ]
    suite = Suite("words", folder, {NAME: 0, f"{NAME}_choice": 0}, default_tasks=False, documents=documents)
    with working_folder(suite) as work:
        return load_tasks(suite, work, [0, 1234, 1234, 1234])[0]["tasks"]


def test_the_answer_is_asked_for_as_it_stands(loaded):
    task = loaded[NAME]
    prompts, settings = zip(*(request.args for request in task.instances), strict=True)
    assert prompts == ("0: ", "1: ")
    assert all(setting["do_sample"] is False and setting["until"] == [] for setting in settings)
    assert [task.doc_to_target(request.doc) for request in task.instances] == list(ANSWERS)


def test_the_choice_is_between_orders_of_the_words_each_with_eos(loaded):
    task = loaded[f"{NAME}_choice"]
    by_document = {i: [r.args for r in task.instances if r.doc_id == i] for i in range(len(ANSWERS))}
    orders = {0: ["012", "102", "021", "210"], 1: ["0123", "1023", "0132", "3210"]}
    for i, answer in enumerate(ANSWERS):
        words = answer.split(", ")
        texts = [", ".join(words[int(place)] for place in order) + EOS for order in orders[i]]
        assert by_document[i] == [(f"{i}: ", text) for text in texts]
        assert task.doc_to_target(json.loads(json.dumps(task.instances[0].doc))) == 0
