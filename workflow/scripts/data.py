"""Choose the study's rows: prompts with real answers and held-out rows, or preference pairs.

Rows are dropped here and nowhere else: those that do not fit the models named in `data.fits`.

    python workflow/scripts/data.py prompts --source results/fetched/sft --split train_sft --rows 50000 --seed 42 \
        --fits results/base/model results/teacher/model --templates human-assistant zephyr --max-new-tokens 512 \
        --heldout-split test_sft --heldout-rows 500 --heldout results/data/heldout.parquet \
        --output results/data/prompts.parquet --template human-assistant ...
"""

from wspin import cli
from wspin.config.stages import Dialogue
from wspin.data import corruption, records, selection
from wspin.models import offline
from wspin.rng import row_generator
from wspin.storage import tables


def main(argv=None):
    parser = cli.program_parser("data", __doc__)
    commands = parser.add_subparsers(required=True, metavar="prompts|preferences")
    for name, action in (("prompts", prompts), ("preferences", preferences)):
        command = commands.add_parser(name, help=action.__doc__)
        cli.add_flags(command, Dialogue)
        command.set_defaults(action=action)
        for flag in ("--source", "--split", "--output"):
            command.add_argument(flag, required=True)
        for flag in ("--rows", "--seed", "--max-new-tokens"):
            command.add_argument(flag, type=int, required=True)
        command.add_argument("--fits", nargs="+", required=True, help="folders of the models that a row must fit")
        command.add_argument("--cut", action="store_true", help="cut prompts that are too long, drop none")
        command.add_argument("--templates", nargs="+", required=True, help="template of each of these models")
    for flag, kind in (("--heldout", str), ("--heldout-split", str), ("--heldout-rows", int)):
        commands.choices["prompts"].add_argument(flag, type=kind, required=True)
    commands.choices["preferences"].add_argument("--corrupt", action="store_true", help="rejected: a corrupted answer")
    arguments = parser.parse_args(argv)
    dialogue = cli.parse_section(arguments, Dialogue)
    offline.import_transformers_offline()
    fits = selection.fits(arguments.fits, arguments.templates, dialogue, arguments.max_new_tokens)
    conditions = {"seed": arguments.seed, "dialogue": dialogue.model_dump(exclude={"eos_on_cut"})}
    conditions |= {"max_new_tokens": arguments.max_new_tokens, "fits": [room.described() for room in fits]}
    arguments.action(arguments, fits, conditions)


def prompts(arguments, fits, conditions):
    """prompts with real answers, and held-out rows"""
    study = (arguments.output, arguments.split, arguments.rows)
    for path, split, count in (study, (arguments.heldout, arguments.heldout_split, arguments.heldout_rows)):
        turns = records.read(arguments.source, split, records.first_turn)
        kept, (asked, answered), told = selection.choose(turns, count, arguments.seed, fits, arguments.cut)
        write(arguments, path, "prompts", split, kept, {**conditions, **told}, prompt=asked, response=answered)


def preferences(arguments, fits, conditions):
    """preference pairs: the source's own, or answers with a corruption of them"""
    meaning = records.unanswered if arguments.corrupt else records.preference
    pairs = records.read(arguments.source, arguments.split, meaning)
    kept, (asked, chosen, rejected), told = selection.choose(pairs, arguments.rows, arguments.seed, fits, arguments.cut)
    if arguments.corrupt:
        draws = (row_generator(arguments.seed, "corruption", selection.prompt_id(arguments.split, i)) for i in kept)
        rejected = [corruption.corrupt(answer, draw) for answer, draw in zip(chosen, draws, strict=True)]
    made_with = {**conditions, **told, "corrupted": arguments.corrupt}
    columns = {"prompt": asked, "chosen": chosen, "rejected": rejected}
    write(arguments, arguments.output, "preferences", arguments.split, kept, made_with, **columns)


def write(arguments, path, kind, split, kept, made_with, **columns):
    """Write one table, and tell what was passed over."""
    ids = [selection.prompt_id(split, i) for i in kept]
    tables.write(path, kind, {"prompt_id": ids, **columns, "split": [split] * len(ids)}, made_with)
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(made_with["passed_over"].items())) or "none"
    shortened = f"; {made_with['cut']} prompts cut on the left" if "cut" in made_with else ""
    print(f"{path}: {len(ids)} rows of split {split}; passed over: {told}{shortened}", flush=True)
    cli.write_records(arguments, [path], [])


if __name__ == "__main__":
    cli.run(main)
