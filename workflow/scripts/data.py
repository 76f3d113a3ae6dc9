"""Select the study's rows that fit every model: prompts with real answers, held-out rows, or preference pairs.

    python workflow/scripts/data.py prompts --source results/fetched/sft --split train_sft --rows 50000 --seed 42 \
        --fits results/base/model results/teacher/model --templates human-assistant zephyr --max-new-tokens 512 \
        --output results/data/prompts.parquet --output-digest results/data/prompts.json --template human-assistant ...
"""

from wspin import cli
from wspin.config.stages import Dialogue
from wspin.data import corruption, records, selection
from wspin.models import offline
from wspin.rng import row_generator
from wspin.storage import provenance, tables
from wspin.storage.files import digest, write_json


def main(argv=None):
    parser = cli.program_parser("data", __doc__)
    actions = {"prompts": write_prompts, "heldout": write_prompts, "preferences": write_preferences}
    commands = parser.add_subparsers(required=True, metavar="|".join(actions))
    for name, action in actions.items():
        command = commands.add_parser(name, help=action.__doc__)
        cli.add_flags(command, Dialogue)
        command.set_defaults(action=action)
        cli.add_required(command, "--source", "--split", "--output", "--output-digest")
        cli.add_required(command, "--max-new-tokens", type=int)
        cli.add_required(command, "--seed", type=int, help="seed of the study")
        cli.add_required(command, "--rows", type=int, help="number of rows")
        command.add_argument("--fits", nargs="+", required=True, help="folders of the models that every row must fit")
        command.add_argument("--templates", nargs="+", required=True, help="template of each of these models")
        cut = "truncate over-long prompts instead of dropping their rows; rows with over-long answers are still dropped"
        command.add_argument("--cut", action="store_true", help=cut)
    commands.choices["preferences"].add_argument("--corrupt", action="store_true", help="rejected: a corrupted answer")
    cli.add_required(commands.choices["heldout"], "--training", "--training-split")
    arguments = parser.parse_args(argv)
    dialogue = cli.parse_section(arguments, Dialogue)
    offline.import_transformers_offline()
    limits = selection.model_limits(arguments.fits, arguments.templates, dialogue, arguments.max_new_tokens)
    metadata = {"seed": arguments.seed, "dialogue": dialogue.model_dump(exclude={"eos_on_cut"})}
    metadata |= {"max_new_tokens": arguments.max_new_tokens, "fits": [model.metadata() for model in limits]}
    arguments.action(arguments, limits, metadata)


def write_prompts(arguments, limits, metadata):
    """prompts with real answers: to train on, or held out for evaluation"""
    turns = records.read_split(arguments.source, arguments.split, records.first_turn)
    is_heldout = "training" in arguments
    excluded = records.split_prompts(arguments.training, arguments.training_split) if is_heldout else ()
    selected = selection.select(turns, arguments.rows, arguments.seed, limits, arguments.cut, excluded)
    columns = dict(zip(("prompt", "response"), selected.columns, strict=True))
    write(arguments, "prompts", selected, columns, metadata)


def write_preferences(arguments, limits, metadata):
    """preference pairs: those of the source, or its answers against corruptions of them"""
    split, seed, corrupt = arguments.split, arguments.seed, arguments.corrupt
    parse_row = records.chosen_only if corrupt else records.preference_pair
    pairs = records.read_split(arguments.source, split, parse_row)
    selected = selection.select(pairs, arguments.rows, seed, limits, arguments.cut)
    prompts, chosen, rejected = selected.columns
    if corrupt:
        generators = (row_generator(seed, "corruption", selection.prompt_id(split, i)) for i in selected.indices)
        rejected = [corruption.corrupt(answer, rng) for answer, rng in zip(chosen, generators, strict=True)]
    columns = {"prompt": prompts, "chosen": chosen, "rejected": rejected}
    write(arguments, "preferences", selected, columns, {**metadata, "corrupted": corrupt})


def write(arguments, kind, selected, columns, metadata):
    """Write the table and the digest of its rows, and print how many rows were passed over."""
    path, split, training = arguments.output, arguments.split, getattr(arguments, "training", None)
    ids = [selection.prompt_id(split, i) for i in selected.indices]
    columns = {"prompt_id": ids, **columns, "split": [split] * len(ids)}
    tables.write(path, kind, columns, metadata | selected.metadata)
    write_json(arguments.output_digest, {"rows": len(ids), "sha256": digest(columns)})
    print(f"{path}: {len(ids)} rows of split {split}; {selected}", flush=True)
    cli.write_records(arguments, [path], provenance.manifests(arguments.source, training, *arguments.fits))


if __name__ == "__main__":
    cli.run(main)
