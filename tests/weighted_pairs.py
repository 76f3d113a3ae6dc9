"""Files of weighted pairs by hand: texts cut into tokens by two patterns, with log-probabilities of their own."""

import re
from pathlib import Path

import numpy as np

import weigh as program
from wspin.config.flags import flags
from wspin.config.weigh import Weigh
from wspin.report.token_rows import PairFiles
from wspin.storage import tables

EOS = 0
STUDENT = re.compile(r" ?\w+|\s|.", re.DOTALL)
TEACHER = re.compile(r" ?\w{1,4}|\s+|.", re.DOTALL)
TEACHERS = {"model": "m", "tokenizer": "far", "template": "t", "dtype": "float32", "autocast": "float32"}
SETTINGS = {"source": "teacher", "form": "exp_clamp", "k": 1.0, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
SETTINGS |= {"upper": 1.5, "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
EQUAL = dict.fromkeys(("form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg")) | {"source": "equal"}

Pair = tuple[str, str, str]  # prompt, real answer, generated answer

SOME = [
    ("Say hello.", "Hello to everybody out there", "Goodbye then\n\nhello"),
    ("Count to four.", "one two three four", ""),
]
HOSTILE = [
    (
        "</p><script>document.title = 'prompt'</script>\u202egnp.exe\u2066\x1b[2J\n- a\n- b",
        "<img src=x onerror=alert(1)> &amp; \u202eright\u202c \u200b",
        "</script><script>alert('answer')</script>{{ 7 * 7 }}",
    )
]
SHOWN = r"</p><script>document.title = 'prompt'</script>\u202egnp.exe\u2066\x1b[2J" + "\n- a\n- b"


def cut(pattern: re.Pattern[str], text: str, closed: bool) -> tuple[list[int], list[int]]:
    """(ids, ends) of a text's tokens, and of EOS."""
    ends = [token.end() for token in pattern.finditer(text)]
    ids = [1 + ord(token[0].strip()[:1] or "_") for token in pattern.finditer(text)]
    return [*ids, *[EOS] * closed], [*ends, *[len(text)] * closed]


def logprobs(of: list[list[int]], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [-rng.exponential(1.0, len(ids)).astype(np.float32) for ids in of]


def scored(pattern: re.Pattern[str], texts: list[str], seed: int, closed: bool) -> dict[str, list]:
    ids, ends = zip(*(cut(pattern, text, closed) for text in texts), strict=True)
    return {"token_ids": list(ids), "ends": list(ends), "logprobs": logprobs(list(ids), seed)}


def write(
    folder: Path, pairs: list[Pair], own: bool = False, first: int = 0, sums: bool = False, **changes
) -> PairFiles:
    """The files of these pairs as one shard, weighed by the program; `own`: the teacher has the student's tokenizer.

    The student reads words, the teacher pieces of them. Ids begin with `train-{first}`; `sums`: weights are normalised
    over the shard.
    """
    ids = [f"train-{first + i}" for i in range(len(pairs))]
    prompts, real, generated = map(list, zip(*pairs, strict=True))
    texts = {"chosen": real, "rejected": generated}
    paths = {kind: str(folder / f"{kind}.parquet") for kind in ("rows", "generations", "reference", "weights")}
    columns = {"prompt_id": ids, "prompt": prompts, "response": real, "split": ["train"] * len(ids)}
    tables.write(paths["rows"], "prompts", columns, {})
    sides = {side: scored(STUDENT, of, seed, True) for seed, (side, of) in enumerate(texts.items())}
    made_with = {"model": "s", "tokenizer": "near", "template": "t", "dtype": "float32", "autocast": "float32"}
    columns = {"response": generated, "token_ids": sides["rejected"]["token_ids"], "finish_reason": ["stop"] * len(ids)}
    tables.write(paths["generations"], "generations", {"prompt_id": ids, **columns}, made_with)
    columns = {f"{side}_{part}": values for side, parts in sides.items() for part, values in parts.items()}
    more = {"eos": EOS, "tokenizer_size": 1 << 21, "special_ids": [EOS], "texts": tables.texts_hash(prompts, real)}
    tables.write(paths["reference"], "reference", {"prompt_id": ids, **columns}, {**made_with, **more})
    settings = Weigh(**{**SETTINGS, **changes})
    scorers = [str(folder / f"{side}.parquet") for side in texts] if settings.source != "equal" else []
    teacher = {**TEACHERS, **({"tokenizer": "near"} if own else {})}
    for seed, (path, side) in enumerate(zip(scorers, texts, strict=bool(scorers))):
        columns = scored(STUDENT if own else TEACHER, texts[side], 10 + seed, False)
        entries = {**teacher, "special_ids": [EOS], "texts": tables.texts_hash(prompts, texts[side])}
        tables.write(path, "logprobs", {"prompt_id": ids, **columns}, entries)
    told = ["--rows", paths["rows"], "--generations", paths["generations"], "--reference", paths["reference"]]
    told += ["--positive-logprobs", *scorers, "--shard", "0", "--shard-size", "100", "--seed", "42", "0"]
    summed = [str(folder / "sums.json")] if sums else []
    for path in summed:
        program.main([*told, "--only-sums", "--output", path, *flags(settings)])
    program.main([*told, "--sums", *summed, "--output", paths["weights"], *flags(settings)])
    scorer = {"positive": "teacher"} if scorers else {}
    return PairFiles(**paths, logprobs={"positive": scorers}, scorers=scorer, sums=summed)
