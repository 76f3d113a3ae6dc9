"""Compute the token weights of one shard from stored log-probabilities. No model is loaded.

    python workflow/scripts/weigh.py --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --reference results/sft/reference/00.parquet \
        --positive-logprobs results/logprobs/teacher/gold/00.parquet results/logprobs/teacher/sft/00.parquet \
        --seed 42 0 --output results/wspin/ite0/weights/00.parquet --source teacher --form exp_clamp --k 1.0 ...

Without `--generations` the rows are preference pairs, `preferences.parquet`. Weights that are normalised over the data
set take two passes: `--only-sums` writes the sums of a shard, `--sums` reads those of all shards.
"""

from wspin import cli
from wspin.config.weigh import Weigh
from wspin.progress import with_progress
from wspin.storage import files, tables
from wspin.weigh import finalisation, weights
from wspin.weigh.inputs import aligned_answers
from wspin.weigh.pairs import read_pairs
from wspin.weigh.scorers import described_scorers, read_terms

ROLES = ("positive", "negative")


def main(argv=None):
    parser = cli.program_parser("weigh", __doc__, Weigh)
    parser.add_argument("--rows", required=True, help="prompts.parquet or preferences.parquet")
    parser.add_argument("--generations", nargs="?", help="this iteration's generated answers")
    parser.add_argument("--reference", required=True, help="the student's log-probabilities of the answers")
    for role in ROLES:
        message = f"the {role} scorer's log-probabilities of the chosen and the rejected answers"
        parser.add_argument(f"--{role}-logprobs", nargs="*", default=[], help=message)
    parser.add_argument("--sums", nargs="*", default=[], help="with normalise_over: the sums of all shards")
    parser.add_argument("--only-sums", action="store_true", help="write sums of the weights instead of the weights")
    cli.add_required(parser, "--shard", "--shard-size", type=int)
    cli.add_required(parser, "--seed", type=int, nargs=2, metavar=("SEED", "ITERATION"))
    cli.add_required(parser, "--output")
    arguments = parser.parse_args(argv)
    weigh(arguments, cli.parse_section(arguments, Weigh))
    answers = [arguments.rows, *([arguments.generations] if arguments.generations else []), arguments.reference]
    logprobs = [*arguments.positive_logprobs, *arguments.negative_logprobs]
    cli.write_records(arguments, [arguments.output], [*answers, *logprobs, *arguments.sums])


def weigh(arguments, settings):
    """Compute the weights of one shard and write them, or their sums."""
    shard = (arguments.shard, arguments.shard_size)
    pairs = read_pairs(arguments.rows, *shard, arguments.reference, arguments.generations)
    logprobs = {role: getattr(arguments, f"{role}_logprobs") for role in ROLES}
    terms, reference = read_terms(settings, logprobs, pairs), pairs.reference
    scales = {} if arguments.only_sums else finalisation.dataset_scales(arguments.sums, settings)

    sides = {}
    for side in tables.SIDES:
        aligned = aligned_answers(side, pairs.texts[side], reference, terms[side], settings.segments)
        aligned = with_progress(aligned, len(pairs.texts[side]), f"weigh: {side}", "answers")
        sides[side] = weights.weight_side(side, aligned, settings, arguments.seed, scales.get(side, 1.0))
    if terms["chosen"]:
        weights.check_varied(sides, settings, ", ".join(path for paths in logprobs.values() for path in paths[:1]))
    counts = {side: weighted.counts for side, weighted in sides.items()}
    if arguments.only_sums:
        sums = {side: {"tokens": counts[side]["tokens"], "sum": weighted.total} for side, weighted in sides.items()}
        files.write_checked_json(arguments.output, {"shard": arguments.shard, "settings": settings.stored(), **sums})
        return
    columns = {"prompt_id": pairs.prompt_ids, "ids_hash": tables.ids_hashes(reference, "rejected")}
    columns |= {f"{side}_weights": weighted.weights for side, weighted in sides.items()}
    made_with = {
        **tables.metadata(reference, "model", "tokenizer"),
        **described_scorers(settings, terms["chosen"]),
        "settings": settings.stored(),
        "seed": arguments.seed,
        "counts": counts,
    }
    tables.write(arguments.output, "weights", columns, made_with)
    totals = ", ".join(f"{counts['rejected'][key] + counts['chosen'][key]:.0f} {key}" for key in tables.WEIGHT_COUNTS)
    print(f"weigh: {len(pairs.prompts)} pairs; {totals}", flush=True)


if __name__ == "__main__":
    cli.run(main)
