"""Two checks of printed percentages: whether one is a share of so many documents, and whether an average re-adds.

The first is GRIM (Brown and Heathers 2017, doi 10.1177/1948550616673876). Numbers are texts, whose decimals count.
"""

from collections.abc import Mapping
from decimal import Decimal

from .scores import AVERAGE

# The tasks of the papers' averages, and their metrics as the papers name them
SIX = {
    "arc_challenge": "acc_norm",
    "hellaswag": "acc_norm",
    "mmlu": "acc",
    "truthfulqa_mc2": "mc2",
    "winogrande": "acc",
    "gsm8k": "acc",
}
# Documents of the tasks that papers report, in lm-eval's versions of them
SIZES = {
    "arc_challenge": 1172,
    "hellaswag": 10042,
    "mmlu": 14042,
    "mmlu_humanities": 4705,
    "mmlu_social_sciences": 3077,
    "mmlu_stem": 3153,
    "mmlu_other": 3107,
    "truthfulqa_mc2": 817,
    "winogrande": 1267,
    "gsm8k": 1319,
    "openbookqa": 500,
    "bbh": 6511,
    "bbh_cot_fewshot_causal_judgement": 187,
    "bbh_cot_fewshot_formal_fallacies": 250,
    "bbh_cot_fewshot_sports_understanding": 250,
}
# Tasks that score a document 0 or 1, few enough of them for two decimals to tell
DOCUMENTS = {task: SIZES[task] for task in ("arc_challenge", "winogrande", "gsm8k")}


def attainable(printed: str, n: int) -> bool:
    """Whether k of n documents are a percentage printed so, rounded or truncated, for some whole number k.

    Informative where n is below 100 times the steps of the last decimal: with two decimals, below 10 000.
    """
    value = Decimal(printed)
    steps = 10 ** -value.as_tuple().exponent  # of the last decimal in a point
    last = int(value * steps)  # printed is last / steps; k is accepted from half a step below it to a whole one above
    k = -((1 - 2 * last) * n // (200 * steps))
    return 100 * steps * k < (last + 1) * n


def is_share(value: float, n: int) -> bool:
    """Whether a fraction is k of n documents for some whole number k, up to the rounding of floats."""
    return abs(value * n - round(value * n)) < 1e-6


def failed_share(task: str, printed: str) -> str:
    """What a printed score fails: empty if it is attainable, or the task none of `DOCUMENTS`."""
    n = DOCUMENTS.get(task)
    return "" if n is None or attainable(printed, n) else f"not k/{n}"


def failed_average(cells: Mapping[str, str]) -> str:
    """What a printed average fails: empty if it is the mean of the six within 0.01, or one of these is not printed."""
    if not {*SIX, AVERAGE} <= cells.keys():
        return ""
    mean = sum(Decimal(cells[task]) for task in SIX) / len(SIX)
    return "" if abs(mean - Decimal(cells[AVERAGE])) <= Decimal("0.01") else f"cells give {mean:.2f}"
