"""Which formats of rows are parsed, which rows are drawn, and why others are passed over."""

import json
import re
from collections import Counter

import inputs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from wspin.config.sources import ReasoningGym
from wspin.data import records, selection
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.fetch import datasets
from wspin.models import folders
from wspin.rng import row_generator

TASKS = {"spell_backward": {"min_word_len": 3, "max_word_len": 7}}
SHORT = {"spell_backward": {"min_word_len": 3, "max_word_len": 3}}  # few words, drawn again and again


def limits_of(chat, context=128, max_new_tokens=10, tokenizer=None, **changes):
    """Limits of 60 prompt tokens and 90 in all, for a tokenizer in which "ab" is two tokens."""
    settings = {"template": "Q{prompt}A", "max_prompt_tokens": 60, "max_tokens": 90, **changes}
    chat = ChatTokenizer(tokenizer or chat.tokenizer, chat.settings.model_copy(update=settings))
    return selection.LengthLimits(chat, context, max_new_tokens)


# Drawing


def odd(row):
    return None if row % 2 else "even"


def test_draw_takes_exactly_the_requested_number():
    kept, passed_over = selection.draw(range(1000), 50, 1, odd)
    assert len(set(kept)) == 50
    assert all(row % 2 for row in kept)
    assert set(passed_over) == {"even"}
    assert 20 < passed_over["even"] < 90  # only those drawn before the fiftieth that fits


def test_draw_is_seeded():
    draws = [selection.draw(range(1000), 50, seed, odd)[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0]) != draws[0]


def test_a_larger_draw_begins_with_the_smaller():
    assert selection.draw(range(1000), 80, 1, odd)[0][:50] == selection.draw(range(1000), 50, 1, odd)[0]


def test_draw_records_every_reason():
    source = ["fits"] * 3 + ["prompt too long"] * 2 + ["answer too long"]
    reasons = {"fits": None}
    kept, passed_over = selection.draw(source, 3, 1, lambda row: reasons.get(row, row))
    assert sorted(kept) == [0, 1, 2]
    assert passed_over <= Counter({"prompt too long": 2, "answer too long": 1})
    with pytest.raises(StudyError) as error:
        selection.draw(source, 4, 1, lambda row: reasons.get(row, row))
    assert str(error.value) == (
        "data: expected 4 rows that fit, found 3 of 6 (1 answer too long, 2 prompt too long); reduce the number of rows"
    )


def test_draw_from_too_few_rows_is_one_line():
    with pytest.raises(StudyError, match=re.escape("expected 3 rows that fit, found 2 of 2 (none passed over)")):
        selection.draw("ab", 3, 1, lambda row: None)


def test_ids_sort_as_their_rows():
    ids = [selection.prompt_id("train_sft", index) for index in (9, 10, 207_864)]
    assert ids == sorted(ids) == ["train_sft-0000009", "train_sft-0000010", "train_sft-0207864"]


# Length limits


@pytest.mark.parametrize(("prompt", "reason"), [("x" * 58, None), ("x" * 59, "prompt too long")])
def test_longest_prompt(chat, prompt, reason):
    """Q and A around it are counted."""
    assert selection.why_passed_over((prompt, "y"), [limits_of(chat)]) == reason


@pytest.mark.parametrize(("answer", "reason"), [("y" * 77, None), ("y" * 78, "answer too long")])
def test_longest_answer(chat, answer, reason):
    """With 12 tokens of prompt and one EOS."""
    assert selection.why_passed_over(("x" * 10, answer), [limits_of(chat)]) == reason


@pytest.mark.parametrize(("budget", "reason"), [(78, None), (79, "prompt too long")])
def test_generation_must_have_its_budget(chat, budget, reason):
    """Even where the real answer would fit."""
    assert selection.why_passed_over(("x" * 10, "y"), [limits_of(chat, max_new_tokens=budget)]) == reason


@pytest.mark.parametrize(("context", "reason"), [(32, None), (31, "answer too long")])
def test_a_short_context_counts(chat, context, reason):
    assert selection.why_passed_over(("x" * 10, "y" * 19), [limits_of(chat, context)]) == reason


def test_a_row_must_fit_every_model(chat):
    """Each in its own template and with its own tokenizer; the second one's needs more tokens."""
    row = ("x" * 40, "y" * 10)
    wide, narrow = limits_of(chat), limits_of(chat, template="Q{prompt}A" + "." * 30)
    assert selection.why_passed_over(row, [wide]) is None
    for both in ([wide, narrow], [narrow, wide]):
        assert selection.why_passed_over(row, both) == "prompt too long"


def test_a_model_with_another_tokenizer(chat):
    """A word that is one token of the first model is many tokens of the second."""
    tokenizer = folders.load_tokenizer(chat.tokenizer.name_or_path)
    tokenizer.add_tokens(["kitchen"])
    first, second = limits_of(chat, tokenizer=tokenizer), limits_of(chat)
    assert selection.why_passed_over(("kitchen" * 20, "y"), [first]) is None
    assert selection.why_passed_over(("kitchen" * 20, "y"), [first, second]) == "prompt too long"
    assert selection.why_passed_over(("x", "kitchen" * 20), [first, second]) == "answer too long"


def test_every_answer_of_a_pair_must_fit(chat):
    limits = [limits_of(chat)]
    assert selection.why_passed_over(("x", "y", "z"), limits) is None
    assert (
        selection.why_passed_over(("x", "y", "z" * 90), limits)
        == selection.why_passed_over(("x", "y" * 90, "z"), limits)
        == "answer too long"
    )
    assert selection.why_passed_over(("x", "y", None), limits) is None  # no rejected answer yet


def test_a_row_without_prompt_or_answer(chat):
    row = records.first_turn({})
    assert selection.why_passed_over(row, [limits_of(chat)]) == "without prompt or answer"
    assert selection.why_passed_over(row, []) == "without prompt or answer"


def test_lengths_need_no_eos_in_the_tokenizer(chat):
    """A teacher has another."""
    assert selection.why_passed_over(("x" * 10, "y" * 77), [limits_of(chat, eos="<|im_end|>")]) is None
    assert selection.why_passed_over(("x" * 10, "y" * 78), [limits_of(chat, eos="<|im_end|>")]) == "answer too long"


# Texts that a model would not read


@pytest.fixture
def narrow():
    """A tokenizer of lower-case words alone, which drops what is no letter and knows few of them."""
    backend = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "q": 2, "a": 3, "river": 4, "</": 5}, unk_token="<unk>"))
    strip = normalizers.Replace(Regex(r"[^a-z</> \u0416]"), "")
    backend.normalizer, backend.pre_tokenizer = strip, pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (("a river", "river"), None),
        (("a river", ""), None),
        (("\u200b\u00ad!", "river"), "without a token for prompt or answer"),
        (("  ", "river"), "without a token for prompt or answer"),
        (("a river", "\u200b"), "without a token for prompt or answer"),
        (("a \u0416 river", "river"), "with unknown characters"),
        (("a river", "river \u0416"), "with unknown characters"),
        (("a river", "river", "\u0416"), "with unknown characters"),
        (("a river", "river </s> a"), "with unknown characters"),  # no token spells the text of EOS
    ],
)
def test_a_row_whose_text_a_model_would_not_read(chat, narrow, record, reason):
    """Where the template itself has a character that is unknown, the text may have no other."""
    for template in ("q {prompt} a", "\u0416 {prompt} a"):
        limits = limits_of(chat, tokenizer=narrow, template=template, eos="</s>")
        assert selection.why_passed_over(record, [limits]) == reason


@pytest.mark.parametrize("source", ["Q{{ messages[0].content | trim }}A", "{{ ('Q: ' + messages[0].content) | trim }}"])
def test_a_prompt_that_the_chat_template_trims_to_nothing(chat, source):
    """Also together with the spaces of its own."""
    tokenizer = folders.load_tokenizer(chat.tokenizer.name_or_path)
    tokenizer.chat_template = source
    limits = limits_of(chat, tokenizer=tokenizer, template="chat")
    assert selection.why_passed_over((" \n", "y"), [limits]) == "without a token for prompt or answer"
    assert selection.why_passed_over((" \n", "y"), [limits_of(chat)]) is None


# Truncation


@pytest.mark.parametrize("prompt", ["0123456789" * 9, "kitchen window " * 20, "naïve 日本語 👩‍👩‍👧‍👦 " * 12])
def test_trap_07_a_prompt_is_truncated_on_the_left(chat, prompt):
    """It ends as it did, fits, and would not if more were kept; the template stays whole."""
    limits = limits_of(chat)
    row = selection.truncate_prompt((prompt, "y", None), [limits])
    assert row[1:] == ("y", None)
    assert prompt.endswith(row[0])
    assert selection.why_passed_over((prompt, "y"), [limits]) == "prompt too long"
    assert selection.why_passed_over(row, [limits]) is None
    ids = limits.chat.prompt_ids(row[0])
    assert limits.chat.tokenizer.decode(ids[:1] + ids[-1:]) == "QA"
    assert limits.max_prompt_tokens - 4 <= len(ids) <= limits.max_prompt_tokens  # a character may be several tokens


def test_what_fits_is_left_alone(chat):
    row = ("x" * 58, "y")
    assert selection.truncate_prompt(row, [limits_of(chat)]) == row
    assert selection.truncate_prompt(records.INCOMPLETE, [limits_of(chat)]) == records.INCOMPLETE


def test_a_prompt_is_truncated_for_the_narrowest_model(chat):
    tokenizer = folders.load_tokenizer(chat.tokenizer.name_or_path)
    tokenizer.add_tokens(["kitchen"])
    limits = [limits_of(chat, tokenizer=tokenizer, max_prompt_tokens=30), limits_of(chat)]
    row = selection.truncate_prompt(("kitchen" * 40, "y"), limits)
    assert selection.why_passed_over(row, limits) is None
    assert 50 < len(row[0]) <= 58


def test_a_template_that_is_too_long_alone_drops_the_row(chat):
    limits = limits_of(chat, template="Q{prompt}A" + "." * 70)
    assert (
        selection.why_passed_over(selection.truncate_prompt(("x" * 80, "y"), [limits]), [limits]) == "prompt too long"
    )


def test_trap_10_an_answer_that_is_too_long_is_not_truncated(chat):
    limits = limits_of(chat)
    assert (
        selection.why_passed_over(selection.truncate_prompt(("x" * 80, "y" * 90), [limits]), [limits])
        == "answer too long"
    )


def test_trap_07_truncated_prompts_are_selected_and_counted(chat):
    limits = [limits_of(chat)]
    rows = [("x" * 80, "y"), ("x" * 10, "y"), ("x", "y" * 100), records.INCOMPLETE]
    selected = selection.select(rows, 2, 1, limits, truncate=True)
    assert {i: len(prompt) for i, prompt in zip(selected.indices, selected.columns[0], strict=True)} == {0: 58, 1: 10}
    assert selected.metadata["cut"] == 1
    with pytest.raises(StudyError, match=r"found 1 of 4 \(1 answer too long, 1 prompt too long, 1 without prompt or"):
        selection.select(rows, 2, 1, limits, truncate=False)


def test_trap_05_limits_come_from_model_folders(scratch_model, chat):
    """Each model has its own context and template."""
    other = "Q{prompt}A"
    limits = selection.model_limits([scratch_model] * 2, ["human-assistant", other], chat.settings, 7)
    assert [(model.context, model.max_new_tokens, model.chat.settings.template) for model in limits] == [
        (128, 7, "human-assistant"),
        (128, 7, other),
    ]
    assert [len(model.chat.prompt_ids("x")) for model in limits] == [len(chat.prompt_ids("x")), 3]


# Duplicates, templates and ends


def test_equal_rows_are_kept_once_and_counted(chat):
    rows = [("x", "y"), ("x", "y"), ("x", "z"), ("u", "v")]
    selected = selection.select(rows, 3, 1, [limits_of(chat)], truncate=False)
    assert sorted(zip(*selected.columns, strict=True)) == [("u", "v"), ("x", "y"), ("x", "z")]
    assert selected.metadata == {"passed_over": {"duplicate": 1}, "repeated": 1}
    assert str(selected) == "passed over: 1 duplicate; 1 prompts repeated with another answer"


def test_a_row_is_parsed_once(chat):
    """A second copy of every text would be in memory until all are written."""
    parsed = []

    class Rows(list):
        def __getitem__(self, index):
            parsed.append(index)
            return super().__getitem__(index)

    rows = Rows((f"x{i % 7}", "y") for i in range(9))
    selected = selection.select(rows, 7, 1, [limits_of(chat)], truncate=False)
    assert len(parsed) == len(set(parsed)) <= len(rows)
    assert [prompt for prompt, _ in zip(*selected.columns, strict=True)] == [f"x{i % 7}" for i in selected.indices]


def test_prompts_of_the_training_split_are_not_held_out(chat):
    rows = [("x", "y"), ("u", "v"), ("w", "v")]
    selected = selection.select(rows, 1, 1, [limits_of(chat)], False, excluded={"x", "w"})
    assert selected.columns == [("u",), ("v",)]
    with pytest.raises(StudyError, match=r"found 0 of 3 \(3 with a prompt of the training split\); choose"):
        selection.select(rows, 1, 1, [limits_of(chat)], False, excluded={"x", "w", "u"})


@pytest.mark.parametrize(
    "prompt",
    [
        "\n\n<Human>:hi\n\n<Assistant>:",
        "\n\nHuman: hi\n\nAssistant:",
        "### Instruction: hi\n\n### Response: ",
        "<|user|>\nhi</s>\n<|assistant|>\n",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] hi [/INST]",
        "Question: hi\nSolution:",  # the model's own
    ],
)
def test_a_prompt_in_a_template_is_not_put_into_another(chat, prompt):
    limits = limits_of(chat, template="Question: {prompt}\nSolution:")
    assert selection.why_passed_over((prompt, "y"), [limits]) == "with a template in the prompt"
    bare = limits_of(chat, template="{prompt}")
    assert selection.why_passed_over((prompt, "y"), [bare]) is None
    remedy = 'write "{prompt}" as template of the models, or remove the template from the prompts'
    with pytest.raises(StudyError, match=re.escape(remedy)):
        selection.select([(prompt, "y")], 1, 1, [limits], False)


@pytest.mark.parametrize("prompt", ["Question: hi", "hi\nSolution:", "[INST]", "What does <|user|> mean?"])
def test_parts_of_a_template_are_text(chat, prompt):
    limits = limits_of(chat, template="Question: {prompt}\nSolution:")
    assert selection.why_passed_over((prompt, "y"), [limits]) is None


def test_an_answer_with_an_end_gets_no_second_one(chat):
    limits = [limits_of(chat)]
    for answers in (["y<|endoftext|>"], ["y", "z<|endoftext|>\n"]):
        assert selection.why_passed_over(("x", *answers), limits) == "with a special token at the end of an answer"
    assert selection.why_passed_over(("x", "the token <|endoftext|> ends it"), limits) is None


# Generated tasks


def fetch(folder, count, heldout=0.3, seed=1, tasks=TASKS):
    folder.mkdir()
    settings = ReasoningGym(tasks=tasks, rows=count, heldout=heldout)
    datasets.from_reasoning_gym(settings, seed, folder)
    return [{row["prompt"] for row in records.read_split(folder, split, dict)} for split in ("train", "test")]


def test_no_prompt_stands_on_both_sides(tmp_path):
    """Nor twice on one."""
    train, test = fetch(tmp_path / "a", 400, tasks=SHORT)
    assert train and test
    assert not train & test
    total = sum(pq.read_metadata(tmp_path / f"a/{split}.parquet").num_rows for split in ("train", "test"))
    assert total == len(train | test) < 400


def test_the_split_is_stable(tmp_path):
    """Equal settings give equal files; more rows move no prompt to the other side."""
    train, test = fetch(tmp_path / "a", 100)
    fetch(tmp_path / "b", 100)
    for split in ("train", "test"):
        first, again = (tmp_path / place / f"{split}.parquet" for place in "ab")
        assert first.read_bytes() == again.read_bytes()
    more_train, more_test = fetch(tmp_path / "c", 200)
    assert train <= more_train
    assert test <= more_test
    assert 0.15 < len(more_test) / (len(more_test) + len(more_train)) < 0.45


def test_the_split_needs_no_seed(tmp_path):
    """It is a prompt's own: of two seeds' prompts, those in common lie on the same side."""
    (train, test), (other_train, other_test) = (fetch(tmp_path / str(seed), 300, 0.5, seed, SHORT) for seed in (1, 2))
    assert (train | test) & (other_train | other_test)
    assert not train & other_test
    assert not test & other_train


def test_an_unknown_task_is_one_line(tmp_path):
    with pytest.raises(StudyError, match=r"^data\.sft\.reasoning_gym\.tasks\.spell_backwards: [^\n]*$"):
        fetch(tmp_path / "a", 10, tasks={"spell_backwards": {}})


# Seeds


def test_random_numbers_belong_to_their_key():
    """The same on every machine, and for as long as results are to be made again."""
    pinned = [0.3122565462255169, 0.2936542893973966, 0.594027782863381]
    assert row_generator(42, 0, "generate", "train-0000000").random(3).tolist() == pinned
    assert row_generator(1, 23).random() != row_generator(12, 3).random()


# The program


LIMITS = [
    *("--templates", "human-assistant", "--template", "human-assistant", "--eos", "<|endoftext|>", "--seed", "1"),
    *("--max-prompt-tokens", "64", "--max-tokens", "96", "--eos-on-cut", "false", "--max-new-tokens", "8"),
]


def draw_rows(folder, model, *changes):
    """Run the program on eight prompts; returns the file of the rows and their digest."""
    rows = [{"prompt": f"Spell {i}", "response": str(i)} for i in range(8)]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    flags = ["prompts", "--source", str(folder), "--split", "train", "--rows", "4", "--fits", str(model), *LIMITS]
    flags += ["--output", str(folder / "prompts.parquet"), "--output-digest", str(folder / "prompts.json"), *changes]
    code, _, errors = inputs.run("data", flags)
    assert code == 0, errors
    return folder / "prompts.parquet", (folder / "prompts.json").read_text()


def test_the_digest_depends_on_the_rows_alone(tmp_path, scratch_model):
    """Not on the limits that they fit, which the file records."""
    file, digest = draw_rows(tmp_path / "a", scratch_model)
    assert json.loads(digest).keys() == {"rows", "sha256"}
    limited, same = draw_rows(tmp_path / "b", scratch_model, "--max-prompt-tokens", "60", "--cut")
    assert limited.read_bytes() != file.read_bytes()
    assert same == digest
    _, fewer = draw_rows(tmp_path / "c", scratch_model, "--rows", "3")
    _, others = draw_rows(tmp_path / "d", scratch_model, "--seed", "2")
    assert len({digest, fewer, others}) == 3


def test_rows_that_are_trained_on_are_not_held_out(tmp_path, scratch_model):
    """Of a folder with two splits that have prompts in common."""
    for split, numbers in (("train", range(8)), ("test", range(5, 10))):
        rows = [{"prompt": f"Spell {i}", "response": f"{split} {i}"} for i in numbers]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    flags = [
        "heldout",
        "--source",
        str(tmp_path),
        "--split",
        "test",
        "--rows",
        "2",
        "--fits",
        str(scratch_model),
        *LIMITS,
    ]
    flags += ["--training", str(tmp_path), "--training-split", "train"]
    file = tmp_path / "heldout.parquet"
    code, output, errors = inputs.run(
        "data", [*flags, "--output", str(file), "--output-digest", str(tmp_path / "x.json")]
    )
    assert code == 0, errors
    assert sorted(pq.read_table(file)["prompt"].to_pylist()) == ["Spell 8", "Spell 9"]
    assert re.search(r"passed over: [1-3] with a prompt of the training split\n", output)
