"""Log-probabilities, token weights and the models behind them, as stages read and make them."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from inputs import Case, check_case
from transformers import AutoModelForCausalLM, PhimoeConfig

from wspin.config.flags import flags
from wspin.config.stages import Dialogue, Logprobs
from wspin.config.weigh import Weigh
from wspin.models import folders
from wspin.storage import tables

EOS = "<|endoftext|>"
IDS = [f"train-{i}" for i in range(8)]
PROMPTS, TEXT, IDS_OF_TEXT, ENDS = [f"word {i}" for i in range(8)], "a b c d", [65, 66, 67, 68], [1, 3, 5, 7]
STUDENT = {"model": "student", "tokenizer": "aa", "template": "{prompt}", "autocast": "float32"}
STUDENT |= {"dtype": "float32"}
TEACHER = STUDENT | {"model": "teacher"}
SETTINGS = Weigh(
    source="teacher",
    form="exp_clamp",
    k=1.0,
    mu_chosen=1.0,
    mu_rejected=-1.0,
    lower=-0.5,
    upper=1.5,
    segment_agg="paper_mean",
    control="none",
    normalise="none",
    eos_weight=1.0,
)
DIALOGUE = Dialogue(template="human-assistant", eos=EOS, max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)


def write(path, kind, columns, metadata):
    """A file as another program may write it: without a checksum, and with any number in it."""
    names = {"prompt_id": pa.string(), **tables.schema(kind)}
    fields = [pa.field(name, datatype, nullable=False) for name, datatype in names.items()]
    entries = json.dumps({"format": tables.FORMAT, "kind": kind, **metadata})
    schema = pa.schema(fields, metadata={"wspin": entries})
    pq.write_table(pa.table({"prompt_id": IDS, **columns}, schema=schema), path)


def study(ratio=None, tokens=4, student=0.0):
    """Files of eight equal pairs; the teacher has scored `tokens` of each answer's four, `ratio` above the student.

    `student`: added to the student's last log-probability.
    """
    ratios = np.full((8, 4), np.nan) if ratio is None else np.broadcast_to(ratio, (8, 4))
    own = np.array([-1.0, -2.0, -3.0, -4.0])
    texts = tables.texts_hash(PROMPTS, [TEXT] * 8)
    write("prompts.parquet", "prompts", {"prompt": PROMPTS, "response": [TEXT] * 8, "split": ["train"] * 8}, {})
    answers = {"response": [TEXT] * 8, "token_ids": [[*IDS_OF_TEXT, 0]] * 8, "finish_reason": ["stop"] * 8}
    write("generations.parquet", "generations", answers, STUDENT)
    scored = {"token_ids": [[*IDS_OF_TEXT, 0]] * 8, "ends": [[*ENDS, 7]] * 8, "logprobs": [[*own, -5.0 + student]] * 8}
    reference = {f"{side}_{part}": values for side in tables.SIDES for part, values in scored.items()}
    made_with = STUDENT | {"texts": texts, "eos": 0, "special_ids": [0], "tokenizer_size": 270}
    write("reference.parquet", "reference", reference, made_with)
    scored = {"token_ids": [IDS_OF_TEXT[:tokens]] * 8, "ends": [ENDS[:tokens]] * 8}
    scored["logprobs"] = [(own + row)[:tokens] for row in ratios]
    for name in ("real", "generated"):
        write(f"{name}.parquet", "logprobs", scored, TEACHER | {"texts": texts, "special_ids": [0], "unread": 0})
    files = ["--rows", "prompts.parquet", "--generations", "generations.parquet", "--reference", "reference.parquet"]
    return [*files, "--shard", "0", "--shard-size", "8", "--output", "weights.parquet"]


def weigh(folder, *flags_, **files):
    settings = [
        "--positive-logprobs",
        "real.parquet",
        "generated.parquet",
        "--seed",
        "42",
        "0",
        *flags(SETTINGS),
        *flags_,
    ]
    return ["weigh", *study(**files), *settings]


def weigh_given(folder, weight, eos="1.0"):
    pairs = [{"prompt": prompt, "chosen": TEXT, "rejected": TEXT} for prompt in PROMPTS]
    weights = {f"{side}_weight": [1.0, 2.0, 3.0, weight] for side in tables.SIDES}
    (folder / "given.jsonl").write_text("".join(f"{json.dumps(pair | weights)}\n" for pair in pairs))
    return ["weigh_given", *study(0.0), "--given", "given.jsonl", "--eos-weight", eos]


def logprobs(folder, change):
    """Score real answers with the folder's model after a change."""
    model = folders.load_model("model", "cpu")
    with torch.no_grad():
        change(model)
    model.save_pretrained("model")
    folders.write_manifest("model", "model.json")
    study(0.0)
    settings = [*flags(Logprobs(autocast="float32", token_budget=4096)), *flags(DIALOGUE)]
    files = ["--model", "model", "--manifest", "model.json", "--rows", "prompts.parquet", "--output", "out.parquet"]
    return ["logprobs", "scorer", *files, "--shard", "0", "--shard-size", "8", *settings]


def masked_window(folder):
    """Score with a PhiMoE in place of the folder's model."""
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": 270, "num_local_experts": 2}
    torch.manual_seed(0)
    config = PhimoeConfig(**size, sliding_window=64, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 6.0
    model.save_pretrained("model")
    return logprobs(folder, lambda _: None)


def overflow(model):
    """Attention's logits of one layer beyond float32."""
    for projection in (model.model.layers[0].self_attn.q_proj, model.model.layers[0].self_attn.k_proj):
        projection.weight *= 1e25


UNIFORM = "real.parquet: expected log-ratios that differ from token to token, found one for all 64 tokens of this shard"
FINITE = "expected finite numbers, found {}; make the file again, from finite numbers"
CASES = [
    Case(
        "a teacher that is a copy of the student",
        partial(weigh, ratio=0.0),
        f"{UNIFORM}, as from a copy of the student or an untrained model; take another teacher; or set weigh.uniform "
        "to allow",
    ),
    Case(
        "a teacher that has scored no token of any answer",
        partial(weigh, ratio=0.0, tokens=0),
        f"{UNIFORM}, all neutral: 64 unread, 0 unclear; take a teacher with a context for the study's prompts; or set "
        "weigh.uniform to allow",
    ),
    Case(
        "a teacher to which every token of the study's text is unlikely",
        partial(weigh, ratio=-9.0),
        f"{UNIFORM}, 64 at weigh.lower, 0 at weigh.upper; take a teacher that is trained on such text, in its own "
        "template; or set weigh.uniform to allow",
    ),
    Case(
        "a teacher that is a copy of the student, which weigh.uniform allows",
        lambda folder: [*weigh(folder, ratio=0.0), "--uniform", "allow"],
        "weigh: 8 pairs; 64 tokens, 0 at_lower, 0 at_upper, 0 unread, 0 unclear, 64 segments, 0 mismatched",
        code=0,
    ),
    Case(
        "a teacher's log-probabilities that are no numbers",
        partial(weigh, ratio=[0.0, np.nan, 1.0, 0.5]),
        f"real.parquet: train-0: logprobs: {FINITE.format('nan')}",
    ),
    Case(
        "a teacher's log-probability of zero probability",
        partial(weigh, ratio=[0.0, -np.inf, 1.0, 0.5]),
        f"real.parquet: train-0: logprobs: {FINITE.format('-inf')}",
    ),
    Case(
        "a student's log-probabilities that are no numbers",
        partial(weigh, ratio=[0.0, -0.1, 1.0, 0.5], student=np.nan),
        f"reference.parquet: train-0: chosen_logprobs: {FINITE.format('nan')}",
    ),
    Case(
        "bounds of log-ratios with weights beyond 32 bits",
        lambda folder: [*weigh(folder, ratio=[0.0, 99.0, 1.0, 0.5]), "--upper", "99"],
        "train-0, chosen: expected finite weights, found inf; narrow weigh.lower and weigh.upper",
    ),
    Case(
        "given token weights that are no numbers",
        partial(weigh_given, weight=float("nan")),
        "given.jsonl:1: chosen_weight: expected finite 32-bit numbers, found [1.0, 2.0, 3.0, NaN]; correct the row",
    ),
    Case(
        "given token weights beyond 32 bits",
        partial(weigh_given, weight=1e39),
        "given.jsonl:1: chosen_weight: expected finite 32-bit numbers, found [1.0, 2.0, 3.0, 1e+39]; correct the row",
    ),
    Case(
        "a weight of EOS that is no number",
        partial(weigh_given, weight=1.0, eos="nan"),
        f"weights.parquet: train-0: chosen_weights: {FINITE.format('nan')}",
    ),
    Case(
        "a model whose attention overflows",
        partial(logprobs, change=overflow),
        "model: expected finite log-probabilities, found nan; look for NaN among its weights, or for an overflow",
    ),
    Case(
        "a model whose sliding window is in its masks alone (PhiMoE)",
        masked_window,
        "phimoe: expected packed answers to have the log-probabilities of separate ones, found a difference of 3.6 nat "
        "with a sliding window of 3; this architecture is not supported",
    ),
]

test_weights = check_case(CASES)
