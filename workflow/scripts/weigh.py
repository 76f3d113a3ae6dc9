"""Compute the token weights of one shard from stored log-probabilities. No model is loaded.

    python workflow/scripts/weigh.py --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --reference results/sft/reference/00.parquet \
        --teacher results/logprobs/teacher/gold/00.parquet results/logprobs/teacher/sft/00.parquet \
        --seed 42 0 --output results/wspin/ite0/weights/00.parquet --source teacher --form exp_clamp --k 1.0 ...
"""

from wspin import cli
from wspin.config.weigh import Weigh
from wspin.storage import tables
from wspin.weigh import weights
from wspin.weigh.inputs import aligned_answers, read_teacher_logprobs


def main(argv=None):
    parser = cli.program_parser("weigh", __doc__, Weigh)
    parser.add_argument("--rows", required=True, help="prompts.parquet")
    parser.add_argument("--generations", required=True, help="this iteration's generated answers")
    parser.add_argument("--reference", required=True, help="the student's log-probabilities; it generated the answers")
    parser.add_argument("--teacher", nargs="*", default=[], help="its log-probabilities of real and generated answers")
    cli.add_required(parser, "--shard", "--shard-size", type=int)
    cli.add_required(parser, "--seed", type=int, nargs=2, metavar=("SEED", "ITERATION"))
    cli.add_required(parser, "--output")
    arguments = parser.parse_args(argv)
    weigh(arguments, cli.parse_section(arguments, Weigh))
    inputs = [arguments.rows, arguments.generations, arguments.reference, *arguments.teacher]
    cli.write_records(arguments, [arguments.output], inputs)


def weigh(arguments, settings):
    """Compute the weights of one shard and write them."""
    rows = tables.shard(tables.read(arguments.rows, "prompts"), arguments.shard, arguments.shard_size)
    answers, reference = tables.read_scored_answers(arguments.rows, rows, arguments.generations, arguments.reference)
    ids = rows["prompt_id"].to_pylist()
    texts = {"chosen": rows["response"].to_pylist(), "rejected": answers["response"].to_pylist()}
    teacher = read_teacher_logprobs(arguments.teacher, rows, texts) if settings.source == "teacher" else {}

    sides = {}
    for side in tables.SIDES:
        aligned = aligned_answers(side, texts[side], reference, teacher.get(side))
        sides[side] = weights.weight_side(side, aligned, settings, arguments.seed)
    if teacher:
        weights.check_varied(sides, settings, teacher["chosen"].path)
    columns = {"prompt_id": ids, "ids_hash": tables.ids_hashes(reference, "rejected")}
    columns |= {f"{side}_weights": weighted.weights for side, weighted in sides.items()}
    counts = {side: weighted.counts for side, weighted in sides.items()}
    made_with = {
        **tables.metadata(answers, "model", "tokenizer"),
        "settings": settings.stored(),
        "seed": arguments.seed,
        "counts": counts,
        "teacher": teacher["chosen"].scorer if teacher else None,
    }
    tables.write(arguments.output, "weights", columns, made_with)
    totals = ", ".join(f"{counts['rejected'][key] + counts['chosen'][key]:.0f} {key}" for key in tables.WEIGHT_COUNTS)
    print(f"weigh: {len(ids)} pairs; {totals}", flush=True)


if __name__ == "__main__":
    cli.run(main)
