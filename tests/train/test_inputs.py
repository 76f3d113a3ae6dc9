"""Which answers are scored, which pairs are trained on, and what is refused."""

import numpy as np
import pytest

from wspin.config.stages import TrainedAnswers
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.logprobs.inputs import iteration_answers, preference_answers
from wspin.storage import tables
from wspin.train.inputs import TrainingFiles, by_folder, training_sets

PROMPTS = ["sun", "moon", "star", ""]
REAL = ["nus", "noom", "rats", ""]
SAID = {"this": ["nus", "mo", "", "x"], "before": ["n", "noom", "ra", ""], "long ago": ["1", "2", "3", "4"]}
OPPONENT = {"tokenizer": "aa", "model": "opponent", "template": "human-assistant"}
REFERENCE = {**OPPONENT, "autocast": "float32"}
IDS = [f"train-{i}" for i in range(4)]


@pytest.fixture
def folder(tmp_path, chat):
    """Prompts with real answers, and what models answered; the third answer of each was cut."""
    text = {"prompt": PROMPTS, "response": REAL, "split": ["train"] * 4}
    tables.write(tmp_path / "prompts.parquet", "prompts", {"prompt_id": IDS, **text}, {})
    for name in SAID:
        generations(tmp_path, chat, name, {**OPPONENT, "model": "opponent" if name == "this" else "earlier"})
    return tmp_path


def generations(folder, chat, name, made_with, **changes):
    ids = [chat.response_ids(text) for text in SAID[name]]
    ids[2] = ids[2][:-1] or [5]
    reasons = ["stop", "stop", "length", "stop"]
    texts = [chat.decode_response(one) for one in ids]
    columns = {"prompt_id": IDS, "response": texts, "token_ids": ids, "finish_reason": reasons}
    tables.write(folder / f"{name}.parquet", "generations", {**columns, **changes}, made_with)


def answers_of(folder, chat, replayed=(), opponent=OPPONENT):
    rows = tables.read(folder / "prompts.parquet", "prompts")
    paths = [str(folder / f"{name}.parquet") for name in replayed]
    return iteration_answers(rows, str(folder / "this.parquet"), paths, chat, opponent)


def ids_of(answers):
    """Ids of every answer, by side."""
    return {side: [tokens.ids for tokens in one] for side, one in answers.sides.items()}


def answer_ids(folder, chat, *more, **options):
    return ids_of(answers_of(folder, chat, *more, **options))


def write_reference(folder, chat, replayed=(), made_with=REFERENCE, shards=(slice(0, 3), slice(3, 4))):
    """Shards of a reference in which every log-probability is a number of its own."""
    answers = answers_of(folder, chat, replayed)
    numbers = iter(range(1, 10_000))
    scores = [
        [np.array([-next(numbers) / 64 for _ in ids], dtype=np.float32) for ids in one]
        for one in zip(*ids_of(answers).values(), strict=True)
    ]
    columns = answers.columns(scores)
    paths = [str(folder / f"reference-{i}.parquet") for i in range(len(shards))]
    for path, some in zip(paths, shards, strict=True):
        tables.write(
            path, "reference", {name: column[some] for name, column in columns.items()}, made_with, len(replayed)
        )
    return paths, ids_of(answers), scores


def training(folder, chat, reference, replays=0, loss="spin", weights=(), which=None, **expected):
    files, which = TrainingFiles(str(folder / "prompts.parquet"), reference, weights), which or {"replays": replays}
    sets = training_sets(loss, files, TrainedAnswers(**which), chat, {**REFERENCE, **expected})
    return [item for pairs in sets for item in pairs]


def lists(arrays):
    return [array.tolist() for array in arrays]


# Which of the answers are trained on


def test_reversed_pairs_have_their_sides_and_reference_swapped(folder, chat):
    paths, *_ = write_reference(folder, chat)
    plain = training(folder, chat, paths, loss="dpo")
    swapped = training(folder, chat, paths, loss="dpo", which={"replays": 0, "reverse": True})
    assert [lists(item.responses) for item in swapped] == [lists(item.responses[::-1]) for item in plain]
    assert [lists(item.reference) for item in swapped] == [lists(item.reference[::-1]) for item in plain]
    assert any(lists(a.responses) != lists(b.responses) for a, b in zip(plain, swapped, strict=True))


@pytest.mark.parametrize("replayed", [(), ("before",), ("before", "long ago")])
def test_replayed_pairs_are_left_out_however_many_the_reference_holds(folder, chat, replayed):
    paths, by_side, _ = write_reference(folder, chat, replayed)
    items = training(folder, chat, paths, loss="dpo", which={"replays": 0, "unreplayed": True})
    assert [item.responses[1].tolist() for item in items] == by_side["rejected"]


@pytest.mark.parametrize("side", tables.SIDES)
def test_sft_on_one_side_of_preference_pairs(tmp_path, chat, side):
    texts = {"chosen": REAL, "rejected": SAID["this"]}
    rows = {"prompt_id": IDS, "prompt": PROMPTS, **texts, "split": ["train"] * 4}
    tables.write(tmp_path / "preferences.parquet", "preferences", rows, {})
    files = TrainingFiles(str(tmp_path / "preferences.parquet"))
    (items,) = training_sets("sft", files, TrainedAnswers(replays=0, side=side), chat, REFERENCE)
    assert [lists(item.responses) for item in items] == [[chat.response_ids(text)] for text in texts[side]]


# What an iteration scores


def test_an_iteration_scores_real_generated_and_replayed_answers(folder, chat):
    by_side = answer_ids(folder, chat, ["before", "long ago"])
    assert list(by_side) == ["chosen", "rejected", "replayed_1", "replayed_2"]
    assert [chat.decode_response(ids) for ids in by_side["chosen"]] == REAL
    for side, name in (("rejected", "this"), ("replayed_1", "before"), ("replayed_2", "long ago")):
        stored = tables.read(folder / f"{name}.parquet", "generations")["token_ids"].to_pylist()
        assert by_side[side] == stored
    assert list(answer_ids(folder, chat)) == ["chosen", "rejected"]
    assert list(answer_ids(folder, chat, ["before"])) == ["chosen", "rejected", "replayed"]


def test_answers_of_one_text_may_differ_in_ids(folder, chat):
    """The engine's ids are kept, they are not made again from the text."""
    spelled = [[*chat.tokenizer.convert_tokens_to_ids(list("nus")), chat.eos], *[[chat.eos]] * 3]
    assert chat.decode_response(spelled[0]) == "nus"
    generations(folder, chat, "this", OPPONENT, token_ids=spelled)
    assert answer_ids(folder, chat)["rejected"] == spelled


def test_trap_28_empty_and_equal_answers_are_kept(folder, chat):
    by_side = answer_ids(folder, chat, ["before"])
    assert by_side["chosen"][3] == by_side["replayed"][3] == [chat.eos]
    assert by_side["rejected"][0] == by_side["chosen"][0]
    assert {side: len(ids) for side, ids in by_side.items()} == {"chosen": 4, "rejected": 4, "replayed": 4}


def test_trap_32_cut_answers_have_eos_only_if_asked_for(folder, chat):
    completing = ChatTokenizer(chat.tokenizer, chat.settings.model_copy(update={"eos_on_cut": True}))
    for side in ("rejected", "replayed"):
        plain, completed = (answer_ids(folder, either, ["before"])[side] for either in (chat, completing))
        assert [len(b) - len(a) for a, b in zip(plain, completed, strict=True)] == [0, 0, 1, 0]
        assert completed[2] == [*plain[2], chat.eos]
        assert chat.eos not in plain[2]


def test_one_item_holds_all_answers_to_a_prompt(folder, chat):
    answers = answers_of(folder, chat, ["before"])
    items = answers.items(chat)
    assert lists(item.prompt for item in items) == [chat.prompt_ids(prompt) for prompt in PROMPTS]
    assert [lists(item.responses) for item in items] == [
        list(one) for one in zip(*ids_of(answers).values(), strict=True)
    ]


@pytest.mark.parametrize("key", ["model", "tokenizer", "template"])
def test_generations_of_another_origin_are_refused(folder, chat, key):
    with pytest.raises(StudyError, match=rf"this\.parquet: {key}: expected 'other', found '{OPPONENT[key]}'"):
        answers_of(folder, chat, opponent={**OPPONENT, key: "other"})


def test_replayed_answers_come_from_any_model_of_one_tokenizer(folder, chat):
    generations(folder, chat, "before", {**OPPONENT, "tokenizer": "bb"})
    with pytest.raises(StudyError, match=r"before\.parquet: tokenizer: expected 'aa', found 'bb'"):
        answers_of(folder, chat, ["before"])


@pytest.mark.parametrize("name", ["this", "before"])
def test_generations_for_other_rows_are_refused(folder, chat, name):
    generations(folder, chat, name, OPPONENT, prompt_id=[*IDS[:3], "test-9"])
    with pytest.raises(StudyError, match=rf"{name}\.parquet: expected the 4 rows of .*; they differ in row 3"):
        answers_of(folder, chat, ["before"])


# What a model is trained on


def test_pairs_of_this_iteration_come_first_then_the_replayed(folder, chat):
    paths, by_side, _ = write_reference(folder, chat, ["before", "long ago"])
    items = training(folder, chat, paths, replays=2)
    assert len(items) == 12
    assert lists(item.prompt for item in items) == 3 * [chat.prompt_ids(prompt) for prompt in PROMPTS]
    assert lists(item.responses[0] for item in items) == 3 * by_side["chosen"]
    others = lists(item.responses[1] for item in items)
    assert others == [*by_side["rejected"], *by_side["replayed_1"], *by_side["replayed_2"]]


def test_every_answer_has_its_own_reference(folder, chat):
    paths, _, scores = write_reference(folder, chat, ["before"])
    items = training(folder, chat, paths, replays=1)
    expected = [[one[0].tolist(), one[side].tolist()] for side in (1, 2) for one in scores]
    assert [lists(item.reference) for item in items] == expected
    assert all(len(a) == len(b) for item in items for a, b in zip(item.responses, item.reference, strict=True))


def test_reference_keeps_where_tokens_end(folder, chat):
    (path,), by_side, _ = write_reference(folder, chat, shards=[slice(0, 4)])
    table = tables.read(path, "reference")
    for side, ids in by_side.items():
        assert table[f"{side}_ends"].to_pylist() == [chat.token_ends(one) for one in ids]


def test_sft_trains_on_real_answers_alone(folder, chat):
    items = training(folder, chat, [], loss="sft")
    assert [lists(item.responses) for item in items] == [[chat.response_ids(text)] for text in REAL]
    assert lists(item.prompt for item in items) == [chat.prompt_ids(prompt) for prompt in PROMPTS]
    assert all(item.reference == () for item in items)


def test_preference_pairs_end_by_themselves(folder, chat):
    """Scored, then trained on, from `preferences.parquet`."""
    text = {"prompt": PROMPTS, "chosen": REAL, "rejected": SAID["this"], "split": ["t"] * 4}
    path = folder / "preferences.parquet"
    tables.write(path, "preferences", {"prompt_id": IDS, **text}, {})
    rows = tables.read(path, "preferences")
    preferred = preference_answers(rows, chat)
    by_side = ids_of(preferred)
    assert by_side["rejected"] == [chat.response_ids(text) for text in SAID["this"]]
    scores = [[np.zeros(len(a)), np.ones(len(b))] for a, b in zip(*by_side.values(), strict=True)]
    tables.write(folder / "00.parquet", "reference", preferred.columns(scores), REFERENCE)
    files = TrainingFiles(str(path), [str(folder / "00.parquet")])
    (items,) = training_sets("dpo", files, TrainedAnswers(replays=0), chat, REFERENCE)
    assert [lists(item.responses) for item in items] == [list(one) for one in zip(*by_side.values(), strict=True)]
    assert [item.reference[1].tolist() for item in items] == [[1.0] * len(ids) for ids in by_side["rejected"]]


@pytest.mark.parametrize("loss", ["spin", "dpo"])
def test_a_missing_reference_is_one_line(folder, chat, loss):
    with pytest.raises(StudyError) as error:
        training(folder, chat, [], loss=loss)
    expected = f"train: loss {loss}: expected the start model's log-probabilities (--reference), found none"
    assert str(error.value) == expected


@pytest.mark.parametrize("key", ["model", "tokenizer", "template", "autocast"])
def test_a_reference_of_another_origin_is_refused(folder, chat, key):
    paths, _, _ = write_reference(folder, chat)
    with pytest.raises(StudyError, match=rf"reference-0\.parquet: {key}: expected 'other', found '{REFERENCE[key]}'"):
        training(folder, chat, paths, **{key: "other"})


def test_a_reference_that_lacks_a_shard_is_refused(folder, chat):
    paths, _, _ = write_reference(folder, chat)
    with pytest.raises(StudyError, match=r"reference-0\.parquet: expected the 4 rows of .*prompts\.parquet, found 3"):
        training(folder, chat, paths[:1])
    with pytest.raises(StudyError, match="they differ in row 0"):
        training(folder, chat, paths[::-1])


def test_rows_of_another_study_are_refused(folder, chat):
    paths, _, _ = write_reference(folder, chat)
    other = {"prompt_id": ["a", "b", "c", "d"], "prompt": PROMPTS, "response": REAL, "split": ["train"] * 4}
    tables.write(folder / "prompts.parquet", "prompts", other, {})
    with pytest.raises(StudyError, match=r"expected the 4 rows of .*prompts\.parquet, found 4; they differ in row 0"):
        training(folder, chat, paths)


@pytest.mark.parametrize("replays", [0, 2])
def test_another_number_of_replays_is_refused(folder, chat, replays):
    paths, _, _ = write_reference(folder, chat, ["before"])
    with pytest.raises(StudyError, match=r"reference-0\.parquet: columns: expected .*; wrong: replayed"):
        training(folder, chat, paths, replays=replays)


def test_a_log_probability_too_few_is_refused(folder, chat):
    (path,), _, _ = write_reference(folder, chat, shards=[slice(0, 4)])
    columns = tables.read(path, "reference").to_pydict()
    columns["rejected_logprobs"][1].pop()
    tables.write(path, "reference", columns, REFERENCE)
    with pytest.raises(StudyError, match="reference, row 1, rejected: expected 3 log-probabilities, found 2"):
        training(folder, chat, [path])


# Token weights


WEIGHED = {"tokenizer": "aa", "model": "opponent", "settings": {"k": 1.0}, "teacher": None, "seed": [42, 1]}


def write_weights(folder, reference, side, name, first, **changes):
    """Two shards of weights for the answers of one side; every weight is a number of its own, from `first` on."""
    paths = []
    for i, path in enumerate(reference):
        table = tables.read_reference(path)
        ids = {"chosen": "chosen_token_ids", "rejected": f"{side}_token_ids"}
        columns = {"prompt_id": table["prompt_id"].to_pylist(), "ids_hash": tables.ids_hashes(table, side)}
        for place, (kind, column) in enumerate(ids.items()):
            numbers = iter(range(first + 1000 * place + 100 * i, 10_000))
            columns[f"{kind}_weights"] = [[next(numbers) for _ in ids] for ids in table[column].to_pylist()]
        paths.append(str(folder / f"{name}-{i}.parquet"))
        tables.write(paths[-1], "weights", {**columns, **changes}, WEIGHED)
    return paths


def test_weights_are_those_of_each_pair_and_old_ones_those_of_the_replayed(folder, chat):
    reference, _, _ = write_reference(folder, chat, ["before"])
    own = write_weights(folder, reference, "rejected", "own", 1)
    old = write_weights(folder, reference, "replayed", "old", 5000)
    items = training(folder, chat, reference, replays=1, loss="wspin", weights=[own, old])
    assert all(list(map(len, item.weights)) == list(map(len, item.responses)) for item in items)
    stored = [row for path in (*own, *old) for row in tables.read(path, "weights").to_pylist()]
    expected = [[row["chosen_weights"], row["rejected_weights"]] for row in stored]
    assert [lists(item.weights) for item in items] == expected


def test_weights_change_nothing_else(folder, chat):
    reference, _, _ = write_reference(folder, chat)
    weights = write_weights(folder, reference, "rejected", "own", 1)
    plain, weighted = (
        training(folder, chat, reference, loss=loss, weights=some)
        for loss, some in (("spin", []), ("wspin", [weights]))
    )
    for a, b in zip(plain, weighted, strict=True):
        assert lists([a.prompt, *a.responses, *a.reference]) == lists([b.prompt, *b.responses, *b.reference])
        assert a.weights == ()


def test_trap_02_wspin_without_weights_is_one_line(folder, chat):
    """Missing weights are never ones."""
    reference, _, _ = write_reference(folder, chat, ["before"])
    own = write_weights(folder, reference, "rejected", "own", 1)
    for some in ([], [own], [own, own[:1]], [own[:1], own]):
        with pytest.raises(StudyError) as error:
            training(folder, chat, reference, replays=1, loss="wspin", weights=some)
        needed = "token weights (--weights) of 2 response sets in 2 shards each"
        message = f"train: loss wspin: expected {needed}, found {sum(map(len, some))} files; weigh them first"
        assert str(error.value) == message


def test_weights_for_a_loss_that_reads_none_are_refused(folder, chat):
    reference, _, _ = write_reference(folder, chat)
    weights = write_weights(folder, reference, "rejected", "own", 1)
    with pytest.raises(StudyError, match=r"loss spin: expected no token weights \(--weights\), found 2 files"):
        training(folder, chat, reference, weights=[weights])


def test_trap_12_weights_of_other_answers_are_refused(folder, chat):
    """Of other ids, of other rows, in the wrong order, too few in a row, of another tokenizer."""
    reference, _, _ = write_reference(folder, chat, ["before"])
    own = write_weights(folder, reference, "rejected", "own", 1)
    old = write_weights(folder, reference, "replayed", "old", 5000)

    def refused(weights, match, **expected):
        with pytest.raises(StudyError, match=match):
            training(folder, chat, reference, replays=1, loss="wspin", weights=weights, **expected)

    refused([old, own], r"old-0\.parquet: row 0, rejected: expected weights of token ids")
    refused([own, own], r"own-0\.parquet: row 0, replayed: expected weights of token ids")
    refused([own[::-1], old], r"own-1\.parquet: expected the 4 rows of reference, found 4; they differ in row 0")
    short = write_weights(folder, reference[1:], "rejected", "short", 1, chosen_weights=[[]])
    refused([[own[0], *short], old], r"own-0\.parquet: chosen_weights: expected one per token, found another number")
    stored = [tables.read(path, "weights").to_pydict() for path in own]
    for key, other in (("settings", {"k": 2.0}), ("teacher", {"model": "t"}), ("seed", [43, 1])):
        tables.write(own[1], "weights", stored[1], {**WEIGHED, key: other})
        refused([own, old], rf"own-1\.parquet: {key}: expected .*, found ")
    tables.write(own[1], "weights", stored[1], WEIGHED)
    for key in ("tokenizer", "model"):
        tables.write(own[0], "weights", stored[0], {**WEIGHED, key: "bb"})
        refused([own, old], rf"own-0\.parquet: {key}: expected '{WEIGHED[key]}', found 'bb'")
    tables.write(own[0], "weights", stored[0], WEIGHED)
    earlier = tables.read(old[0], "weights").to_pydict()
    tables.write(old[0], "weights", earlier, {**WEIGHED, "model": "earlier"})
    refused([own, old], r"old-1\.parquet: model: expected 'earlier', found 'opponent'")


def test_files_are_grouped_by_folder_in_their_order():
    """As Snakemake gives them: the shards of one response set after those of another."""
    paths = ["w/ite2/weights/00", "w/ite2/weights/01", "w/ite1/weights/00", "w/ite1/weights/01"]
    assert by_folder(paths) == [paths[:2], paths[2:]]
    assert by_folder([]) == []
