"""Goals of the benchmarks, and whether they are met."""

from collections.abc import Iterator
from dataclasses import dataclass

from .numbers import Numbers, Spread

TRAINING_SECONDS = ("reference_seconds", "seconds")  # the reference pass and the steps
TRAINING_CPU_SECONDS = ("reference_cpu_seconds", "cpu_seconds")
WEIGHTS_LATER = ("teacher_again_seconds", "weights_seconds")
WEIGHTS_FIRST = ("teacher_seconds", "weights_seconds")
ITERATIONS = 4
EVALUATION = {  # suite: lm-eval's counted work at the study's batch size over ours; its seconds at its best over ours
    "hellaswag": (4.4, 8.0),
    "arc": (4.8, 8.0),
    "truthfulqa": (4.9, 6.0),
    "winogrande": (1.9, None),
    "mmlu": (4.0, 3.0),
    "gsm8k": (None, 2.5),
}
EVALUATION_SECONDS = "cpu_seconds"  # which other users of the machine cannot lengthen
HFLM_DEFAULT = "HFLM, batch 16"  # `eval.batch_size`
TRL_DEFAULT = "8 x 1"  # pairs of a micro-batch x micro-batches of a step


@dataclass(frozen=True)
class Goal:
    metric: str
    value: Spread  # a ratio or share; empty if it was not measured
    bound: float
    at_least: bool = True
    stretch: float | None = None
    gated: bool = False  # `make bench` fails if it is missed: a counter, the same on every machine

    @property
    def verdict(self) -> str:
        if not self.value:
            return "not measured"
        median = self.value.median
        if not (median >= self.bound if self.at_least else median <= self.bound):
            return "**missed**"
        return "met, stretch too" if self.stretch and median >= self.stretch else "met"

    @property
    def text(self) -> str:
        stretch = f", stretch {self.stretch:g}" if self.stretch else ""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}{stretch}{' (gate)' if self.gated else ''}"


def goals(numbers: Numbers) -> list[Goal]:
    parts = (_work, _training, _weighing, _generating, _evaluation, _preparation, _scale, _rules, _memory, _workflow)
    return [goal for part in parts for goal in part(numbers)]


def _work(numbers: Numbers) -> Iterator[Goal]:
    needed, computed = (
        sum(numbers.total("work", case, quantity) for case in ("training", "scoring"))
        for quantity in ("needed", "computed")
    )
    ratio = Spread((computed / needed,) if needed else ())
    yield Goal("FLOPs of the demo's training and scoring / needed", ratio, 1.05, at_least=False, gated=True)
    steps, useful = (numbers.total("work", "generation", quantity) for quantity in ("slot_steps", "useful_slot_steps"))
    share = Spread((useful / steps,) if steps else ())
    yield Goal("useful slot-steps of the demo's generation", share, 0.95)


def fastest(numbers: Numbers, case: str, kind: str) -> str:
    """The fastest setting of TRL, with its references `precomputed` or `in the loop`."""
    names = [name for name in numbers.contenders("training", case) if name.startswith(f"TRL, {kind}")]
    return min(names, key=lambda name: numbers.of("training", case, name, *TRAINING_SECONDS).median, default="")


def _training(numbers: Numbers) -> Iterator[Goal]:
    for case in numbers.cases("training") or ["tiny", "small"]:
        ours = numbers.of("training", case, "ours", *TRAINING_SECONDS)

        def against(name: str, ours: Spread = ours, case: str = case) -> Spread:
            return numbers.of("training", case, name, *TRAINING_SECONDS) / ours

        for kind, bound, stretch in (("precomputed", 3.0, 4.0), ("in the loop", 3.9, 5.0)):
            what = f"training, {case}: TRL, references {kind}"
            if against(by_default := f"TRL, {kind}, {TRL_DEFAULT}"):
                yield Goal(
                    f"{what}, its default of 8 pairs at a time / ours", against(by_default), bound, stretch=stretch
                )
            yield Goal(
                f"{what}, its fastest setting / ours", against(fastest(numbers, case, kind)), bound, stretch=stretch
            )
        yield Goal(f"training, {case}: padded forward / ours", against("padded"), 3.0)
        stored = numbers.of("training", case, "padded", "seconds") / numbers.of("training", case, "ours", "seconds")
        yield Goal(f"training, {case}: padded forward / ours, reference already stored", stored, 4.0)
    yield from roofs(numbers, "training", "small")


def roofs(numbers: Numbers, benchmark: str, case: str) -> Iterator[Goal]:
    """Needed FLOPs per second as a share of a large matrix product's in the same round."""
    forward, rate = (
        numbers.single(benchmark, case, "forward_flops"),
        numbers.of(benchmark, case, "ours", "product_flops"),
    )
    for part, passes, seconds, bound in (("training", 3, "seconds", 0.6), ("scoring", 1, "reference_seconds", 0.65)):
        elapsed = numbers.of(benchmark, case, "ours", seconds)
        needed = Spread(tuple(passes * float(forward) for _ in elapsed.rounds) if elapsed else ())
        yield Goal(f"{part}, {case}: share of the processor's matrix-product rate", needed / elapsed / rate, bound)


def _weighing(numbers: Numbers) -> Iterator[Goal]:
    for case in numbers.cases("weighing") or ["tiny", "tiny, larger teacher", "small"]:
        published = numbers.of("weighing", case, "published", "seconds")
        for how, student in (("student's pass counted", ("student_seconds",)), ("student's pass not counted", ())):
            first = numbers.of("weighing", case, "ours", *WEIGHTS_FIRST, *student)
            later = numbers.of("weighing", case, "ours", *WEIGHTS_LATER, *student)
            yield Goal(f"token weights, {case}: published / ours, first iteration, {how}", published / first, 4.0)
            total = first + later * (ITERATIONS - 1) if first else first
            yield Goal(f"token weights, {case}: published / ours, four iterations, {how}", published * 4 / total, 8.0)


def _generating(numbers: Numbers) -> Iterator[Goal]:
    for case in numbers.cases("generating") or ["tiny", "small"]:
        ours, published = (numbers.of("generating", case, name, "seconds") for name in ("ours", "generate, batch 8"))
        yield Goal(f"generation, {case}: `generate` at batch 8 / ours, seconds", published / ours, 3.0)
        useful = numbers.of("generating", case, "ours", "useful")
        yield Goal(f"generation, {case}: useful slot-steps", useful, 0.95, gated=True)


def _evaluation(numbers: Numbers) -> Iterator[Goal]:
    for suite, (work, seconds) in EVALUATION.items():
        needed, ours, peer = (
            numbers.of("evaluation", suite, name, "counted_flops") for name in ("", "ours", HFLM_DEFAULT)
        )
        name = f"evaluation, {suite}"
        if work:
            yield Goal(f"{name}: counted FLOPs / needed", ours / needed, 1.05, at_least=False, gated=True)
            yield Goal(f"{name}: counted FLOPs of `HFLM` at batch 16 / ours", peer / ours, work)
        if seconds:
            best = fastest_batch(numbers, "evaluation", suite)
            peer, ours = (
                numbers.of("evaluation", suite, contender, EVALUATION_SECONDS) for contender in (best, "ours")
            )
            yield Goal(f"{name}: `HFLM` at its best batch / ours, CPU-seconds", peer / ours, seconds)


def fastest_batch(numbers: Numbers, benchmark: str, suite: str) -> str:
    """lm-eval's model at its fastest batch size; beside a GPU the processor only waits, so there by the clock."""
    quantity = EVALUATION_SECONDS if benchmark == "evaluation" else "seconds"
    elapsed = {name: numbers.of(benchmark, suite, name, quantity) for name in numbers.contenders(benchmark, suite)}
    measured = [name for name, seconds in elapsed.items() if name != "ours" and seconds]
    return min(measured, key=lambda name: elapsed[name].median, default="")


def _preparation(numbers: Numbers) -> Iterator[Goal]:
    seconds = numbers.of("preparation", "shard", "ours", "cpu_seconds")
    yield Goal("a shard of 10,000: CPU-seconds before its model is loaded", seconds, 10.0, at_least=False)


SCALE = {  # case of the benchmark `scale`: what it is on the page
    "data": "data, 50,000 prompts",
    "weigh": "weigh, a shard of 10,000",
    "items": "training items, 100,000 pairs, of one of 8 processes",
    "weights": "table of weights, an iteration of 50,000 prompts",
    "differences": "table of differences, 16 models",
}
PROCESSES = 8  # of a training, which share the memory of its job


def _scale(numbers: Numbers) -> Iterator[Goal]:
    for case, name in SCALE.items():
        largest = (numbers.contenders("scale", case) or [""])[-1]
        peak, limit = (numbers.of("scale", case, largest, quantity) for quantity in ("bytes", "limit_bytes"))
        share = peak / limit * (PROCESSES if case == "items" else 1)
        yield Goal(f"{name}: peak memory / `resources`", share, 1.0, at_least=False, gated=True)


def _rules(numbers: Numbers) -> Iterator[Goal]:
    stages = [stage for stage in numbers.cases("rules") if stage != "machine"]
    peaks, limits = ([numbers.of("rules", stage, "", name) for stage in stages] for name in ("bytes", "limit_bytes"))
    shares = [peak / limit for peak, limit in zip(peaks, limits, strict=True)]
    largest = max(shares, key=lambda share: share.median, default=Spread(()))
    name = "50,000 prompts through the rules: peak memory / `resources`, of the stage with the most"
    yield Goal(name, largest, 1.0, at_least=False, gated=True)


def _memory(numbers: Numbers) -> Iterator[Goal]:
    for case in numbers.cases("memory") or ["wide"]:
        ours, padded = (numbers.of("memory", case, name, "bytes") for name in ("ours", "padded"))
        yield Goal("memory above the model, vocabulary 151,936: ours / padded", ours / padded, 0.15, at_least=False)


def _workflow(numbers: Numbers) -> Iterator[Goal]:
    for case, bound in (("1,000 jobs", 3.0), ("10,000 jobs", 15.0)):
        seconds = numbers.of("workflow", case, "no-op", "cpu_seconds")
        yield Goal(f"a finished study of {case}: CPU-seconds to find nothing to do", seconds, bound, at_least=False)
