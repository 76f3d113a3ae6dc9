"""A study of six pairs whose answers several small models score, and the program that weighs them."""

import json
import shutil

import pytest
import torch

import logprobs as scorer
import weigh as program
from wspin.config.flags import flags
from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue as DialogueSettings
from wspin.config.stages import Logprobs
from wspin.config.weigh import Weigh
from wspin.data.chat import ChatTokenizer
from wspin.models import folders, scratch
from wspin.storage import tables

EOS = "<|endoftext|>"
FAMILY = "👩\u200d👩\u200d👧"
PAIRS = [
    # prompt, real answer, generated answer
    ("sun", " ".join(["nus"] * 12), "nus  nus\n\n" + " ".join(["nus"] * 10)),
    ("moon", "noom 日本 é", "noom nus"),  # generated letter by letter
    ("star", "rats\r\n\r\n rats\u00a0rats", ""),
    ("river", "revir", "revir revir the ri"),  # cut
    ("cloud", "", f"duolc {FAMILY} duolc"),
    ("stone", "enots enots e\u0301", "en\ufffd the end"),  # with a broken character
]
IDS = [f"train-{i}" for i in range(len(PAIRS))]
REAL = [real for _, real, _ in PAIRS]
TEMPLATE, SHORT = "Q: {prompt}\nA:", 40  # another template; tokens of a short context
SETTINGS = {"source": "teacher", "form": "exp_clamp", "k": 1.3, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
SETTINGS |= {"upper": 1.5, "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
EQUAL = dict.fromkeys(("form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg")) | {"source": "equal"}


def dialogue_settings(template="human-assistant"):
    return DialogueSettings(template=template, eos=EOS, max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)


def conversation(folder, template="human-assistant"):
    return ChatTokenizer(folders.load_tokenizer(folder), dialogue_settings(template))


def loud(folder, factor):
    """Make what a model says depend on what it reads."""
    model = folders.load_model(folder, "cpu")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(factor)
    model.save_pretrained(folder)
    folders.write_manifest(folder, folder.with_suffix(".json"))


def generations(student):
    """Columns of the generated answers."""
    speaker = conversation(student)
    ids = [speaker.response_ids(said) for _, _, said in PAIRS]
    ids[1] = [*speaker.tokenizer.convert_tokens_to_ids([*"noom", "Ġ", *"nus"]), speaker.eos]
    ids[3] = ids[3][:-1]
    ids[5] = [*speaker.response_ids("en👧")[:-2], *speaker.response_ids(" the end")]
    reasons = ["stop", "stop", "stop", "length", "stop", "stop"]
    columns = {"response": list(map(speaker.decode_response, ids)), "token_ids": ids, "finish_reason": reasons}
    return {"prompt_id": IDS, **columns}


def score(kind, model, folder, output, *more, template="human-assistant", budget=4096):
    """Run the program that scores."""
    told = [*flags(Logprobs(autocast="float32", token_budget=budget)), *flags(dialogue_settings(template))]
    files = ["--manifest", model.with_suffix(".json"), "--rows", folder / "prompts.parquet", "--output", output]
    scorer.main([*map(str, (kind, "--model", model, *files, "--shard", 0, "--shard-size", 100, *more)), *told])


def make(folder, scratch_model, texts):
    """Fill a folder with models, the answers of one (the student), and what each of them made of these.

    `same` is the student itself as a teacher, `asked` in another template; `near` has its tokenizer, `far` has another,
    and no EOS of the study; two have a short context. Both have shifted readings too.
    """
    for name, factor in (("student", 10.0), ("near", 8.0)):
        shutil.copytree(scratch_model, folder / name)
        loud(folder / name, factor)
    (folder / "far").mkdir()
    size = {"vocabulary": 262, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 2, "context": 128}
    scratch.make_scratch(Scratch(architecture="qwen2", text="sft", **size), texts, "<|stop|>", 2, folder / "far")
    loud(folder / "far", 10.0)
    for name in ("near", "far"):
        shutil.copytree(folder / name, folder / f"{name}-short")
        config = json.loads((folder / name / "config.json").read_text())
        (folder / f"{name}-short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": SHORT}))
        folders.write_manifest(folder / f"{name}-short", folder / f"{name}-short.json")

    rows = {"prompt": [prompt for prompt, _, _ in PAIRS], "response": REAL, "split": ["train"] * len(PAIRS)}
    tables.write(folder / "prompts.parquet", "prompts", {"prompt_id": IDS, **rows}, {})
    manifest, told = json.loads((folder / "student.json").read_text()), conversation(folder / "student")
    made_with = {"model": manifest["model"], "tokenizer": folders.tokenizer_hash(told.tokenizer)}
    made_with["template"] = told.settings.template
    tables.write(folder / "generations.parquet", "generations", generations(folder / "student"), made_with)
    own = ("--generations", folder / "generations.parquet")
    score("reference", folder / "student", folder, folder / "reference.parquet", *own)
    teachers = {"same": "student", **{name: name for name in ("near", "far", "near-short", "far-short")}}
    for responses, more in (("gold", ()), ("said", own)):
        for name, model in teachers.items():
            score("scorer", folder / model, folder, folder / f"{name}-{responses}.parquet", *more, budget=100)
        for name in ("near", "far"):
            shifted = folder / f"{name}-shifted-{responses}.parquet"
            score("scorer", folder / name, folder, shifted, "--shifted", *more, budget=100)
        asked = folder / f"asked-{responses}.parquet"
        score("scorer", folder / "student", folder, asked, *more, template=TEMPLATE)


def weighed(
    study, output, teacher="far", size=100, seed=(42, 0), generations=None, reference=None, rows=None, **changes
):
    """Run the program that weighs, and read its weights. `teacher`: its name, or its files."""
    if not isinstance(teacher, list):
        teacher = [study / f"{teacher}-{one}.parquet" for one in ("gold", "said")]
    told = ["--rows", rows or study / "prompts.parquet", "--generations", generations or study / "generations.parquet"]
    told += ["--reference", reference or study / "reference.parquet", "--positive-logprobs", *teacher]
    told += ["--shard", 0, "--shard-size", size, "--seed", *seed, "--output", output]
    program.main([*map(str, told), *flags(Weigh(**{**SETTINGS, **changes}))])
    return tables.read(output, "weights")


def by_side(table):
    return {side: tables.row_arrays(table, f"{side}_weights") for side in tables.SIDES}


def texts_of(study):
    """The answers' texts, by side."""
    said = tables.read(study / "generations.parquet", "generations")["response"].to_pylist()
    return {"chosen": REAL, "rejected": said}


def reading(study, name, side):
    table = tables.read(study / f"{name}-{'gold' if side == 'chosen' else 'said'}.parquet", "logprobs")
    return table, {part: tables.row_arrays(table, part) for part in ("token_ids", "ends", "logprobs")}


def student(study, side):
    """What the student made of the answers of a side, their EOS left out."""
    table = tables.read(study / "reference.parquet", "reference")
    parts = {part: tables.row_arrays(table, f"{side}_{part}") for part in ("token_ids", "ends", "logprobs")}
    eos = tables.metadata(table)["eos"]
    counts = [len(ids) - (ids[-1:].tolist() == [eos]) for ids in parts["token_ids"]]
    return {part: [one[:count] for one, count in zip(some, counts, strict=True)] for part, some in parts.items()}


def plainly(folder, prompts, answers):
    """Log-probabilities of answers, one whole forward pass each."""
    model = folders.load_model(folder, "cpu").eval()
    for prompt, ids in zip(prompts, answers, strict=True):
        whole = torch.tensor([[*prompt, *ids]])
        with torch.no_grad():
            logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1].double()
        yield logits.log_softmax(-1)[torch.arange(len(ids)), whole[0, len(prompt) :]].numpy()


def changed(path, to, kind, metadata=None, **columns):
    """A copy of a file with other columns or metadata: a function of the old ones each."""
    table = tables.read(path, kind)
    made = table.to_pydict()
    made |= {name: change(made[name]) for name, change in columns.items()}
    tables.write(to, kind, made, {**tables.metadata(table), **(metadata or {})})
    return to


def shards(study, folder, size=4):
    """The answers and the reference in shards."""
    made = []
    for i, kind in enumerate(["generations", "reference"] * 2):
        table, first = tables.read(study / f"{kind}.parquet", kind), size * (i // 2)
        path = folder / f"{kind}-{i // 2}.parquet"
        columns = {name: column[first : first + size] for name, column in table.to_pydict().items()}
        told = tables.metadata(table)
        if kind == "reference":
            prompts, real, _ = zip(*PAIRS[first : first + size], strict=True)
            told["texts"] = tables.texts_hash(prompts, real)
        tables.write(path, kind, columns, told)
        made.append(path)
    return made


SIDES = pytest.mark.parametrize("side", tables.SIDES)
