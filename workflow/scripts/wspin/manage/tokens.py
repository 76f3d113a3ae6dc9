"""The tokens of one pair of a study as a table: their weights, and the log-probabilities behind them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wspin.config.load import read_study
from wspin.config.scorers import STUDENT
from wspin.errors import StudyError
from wspin.escaping import as_json
from wspin.iteration import Iteration
from wspin.report.token_rows import LISTED, ROLES, PairFiles, Token, WeightedPairs, one_pair
from wspin.storage import tables
from wspin.storage.text_tables import text_table
from wspin.study.paths import StudyPaths

RIGHT = ("token", "log p student", "weight")  # columns of one number each
NAMED = 3  # prompts in the message that one is unknown


def show_tokens(configfiles: Sequence[str], arm: str, k: int, prompt_id: str) -> list[str]:
    """The lines of the table. Raises `StudyError` for an arm without weights, an unknown iteration or prompt."""
    paths = StudyPaths(read_study(["config/config.yaml", *configfiles]))
    iteration = _iteration(paths, arm, k)
    rows, size = paths.data("prompts"), paths.study.data.sft.shard
    shard = _row(rows, prompt_id) // size
    weighted = one_pair(pair_files(paths, iteration, paths.shards()[shard]), shard, size, prompt_id)
    return token_table(weighted).split("\n")


def pair_files(paths: StudyPaths, iteration: Iteration, shard: str) -> PairFiles:
    """The files behind the weights of a shard of an iteration."""
    sources = paths.weight_sources(iteration.name, shard)
    single = {kind: sources[kind][0] for kind in ("generations", "reference", "weights")}
    logprobs = {role: sources[f"{role}-logprobs"] for role in ROLES}
    names = zip(ROLES, paths.scorer_pair(iteration.name), strict=True)
    scorers = {role: name for role, name in names if name}
    return PairFiles(paths.data("prompts"), **single, logprobs=logprobs, scorers=scorers, sums=sources["sums"])


def _iteration(paths: StudyPaths, arm: str, k: int) -> Iteration:
    by_arm: dict[str, list[int]] = {}
    for iteration in paths.weighted_iterations():
        by_arm.setdefault(iteration.arm, []).append(iteration.k)
    if arm not in by_arm:
        arms = ", ".join(by_arm) or "none in this study"
        raise StudyError(f"--arm: expected an arm with token weights ({arms}), found {arm}")
    if k not in by_arm[arm]:
        raise StudyError(f"--iteration: expected one of arm {arm} ({', '.join(map(str, by_arm[arm]))}), found {k}")
    return Iteration(arm, k)


def _row(rows: str, prompt_id: str) -> int:
    """The row of a prompt in the study's prompts."""
    ids = tables.read(rows, "prompts")["prompt_id"].to_pylist()
    if prompt_id not in ids:
        some = ", ".join(ids[:NAMED])
        raise StudyError(f"--prompt: expected one of the {len(ids)} ids in {rows} ({some}, ...), found {prompt_id}")
    return ids.index(prompt_id)


def token_table(weighted: WeightedPairs) -> str:
    """A line for each token of the first pair; columns for the scorers beside the student, and for what they have."""
    pair = weighted.pairs[0]
    numbered = [(side, number, token) for side, tokens in pair.tokens.items() for number, token in enumerate(tokens, 1)]
    lines = [_cells(*place, weighted.scorers) for place in numbered]
    header = list(_cells("", 0, Token("", 0.0, 0.0), weighted.scorers))
    columns = "".join("r" if name in RIGHT else "l" for name in header)
    return text_table(header, [list(cells.values()) for cells in lines], columns, "simple")


def _cells(side: str, number: int, token: Token, scorers: Mapping[str, str]) -> dict[str, str]:
    """The cells of a line by their column."""
    text = "EOS" if token.is_eos else as_json(token.text)
    cells = {"side": side, "token": str(number), "text": text, "log p student": f"{token.student:.4f}"}
    cells |= {f"log p {name}": _scored(token, role) for role, name in scorers.items() if name != STUDENT}
    weight = {"weight": f"{token.weight:.6g}"}
    if not scorers:
        return cells | weight
    ratios = _listed(token.ratios, lambda ratio: f"{ratio:.4f}") or token.neutral or "-"
    return cells | {"log-ratio": ratios} | weight | {"clamped": _clamped(token)}


def _scored(token: Token, role: str) -> str:
    """The log-probability of the scorer's own token, or of each that stands against a token of the student."""
    parts = token.scored.get(role, ())
    if len(parts) == 1 and parts[0][0] == token.text:
        return f"{parts[0][1]:.4f}"
    return _listed(parts, lambda part: f"{as_json(part[0])} {part[1]:.4f}") or "-"


def _listed(parts: Sequence[Any], text: Callable[[Any], str]) -> str:
    more = [f"... {len(parts)} in all"] if len(parts) > LISTED else []
    return ", ".join([*map(text, parts[:LISTED]), *more])


def _clamped(token: Token) -> str:
    """At which bounds the log-ratios are, with their number where a token has several."""
    count, words = len(token.ratios), []
    for share, bound in ((token.at_lower, "lower"), (token.at_upper, "upper")):
        if share:
            words.append(bound if share > 1 - 1e-9 else f"{round(share * count)} of {count} {bound}")
    return ", ".join(words) or "-"
