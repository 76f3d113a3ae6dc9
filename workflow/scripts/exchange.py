"""Import files of SPIN's and TIS-DPO's code into a study, or export an iteration to them. No rule calls this program.

    python workflow/scripts/exchange.py import --format spin --train iter0.jsonl --test iter0_test.jsonl --output given
    python workflow/scripts/exchange.py export --format tis-dpo --rows results/data/prompts.parquet \
        --generations results/sft/generations/00.parquet --weights results/wspin/ite0/weights/00.parquet \
        --output ite0.jsonl
"""

from pathlib import Path

from wspin import cli
from wspin.data.rendering import renderer
from wspin.errors import StudyError
from wspin.exchange import jsonl
from wspin.exchange.exporting import read_iteration, study_pairs
from wspin.exchange.importing import read_pairs
from wspin.storage.files import whole_file, whole_folder


def parser():
    """The flags of both commands."""
    exchange_parser = cli.program_parser("exchange", __doc__)
    commands = exchange_parser.add_subparsers(required=True, metavar="import|export")
    for name, action in (("import", import_files), ("export", export)):
        command = commands.add_parser(name, help=action.__doc__, allow_abbrev=False)
        command.set_defaults(action=action)
        command.add_argument("--format", required=True, choices=jsonl.FORMATS, help="whose files")
        command.add_argument("--output", required=True, help="a new folder" if name == "import" else "a JSONL file")
    importer, exporter = commands.choices["import"], commands.choices["export"]
    importer.add_argument("--train", required=True, nargs="+", help="JSONL files with the pairs of iteration 0")
    importer.add_argument("--test", nargs="*", default=[], help="JSONL files with held-out rows")
    importer.add_argument("--rendered", action="store_true", help="the prompts stand in a template already")
    importer.add_argument("--eos", help="text of EOS at the ends of answers, which is removed")
    exporter.add_argument("--rows", required=True, help="prompts.parquet")
    exporter.add_argument("--generations", required=True, nargs="+", help="answers of the iteration, shard by shard")
    exporter.add_argument("--weights", nargs="*", default=[], help="their token weights, shard by shard")
    exporter.add_argument(
        "--rendered", metavar="MODEL", help="write prompts in the template of the model that answered"
    )
    return exchange_parser


def main(argv=None):
    arguments = parser().parse_args(argv)
    if Path(arguments.output).exists():
        raise StudyError(
            f"{arguments.output}: expected nothing of that name, found it; name another, nothing is replaced"
        )
    arguments.action(arguments)


def import_files(arguments):
    """write rows that a study reads, and pairs.jsonl, for `generate.given` and `weigh.given`"""
    with whole_folder(arguments.output) as folder:
        (folder / "rows").mkdir()
        for split, paths in (("train", arguments.train), ("test", arguments.test)):
            if paths:
                pairs, summary = read_pairs(paths, arguments.format, arguments.rendered, arguments.eos)
                jsonl.write_rows(folder / "rows" / f"{split}.parquet", pairs)
                print(f"{split}: {summary}", flush=True)
            if split == "train":
                jsonl.write(folder / "pairs.jsonl", pairs, "tis-dpo")


def export(arguments):
    """write the pairs of an iteration, with their weights if --weights names them"""
    if arguments.weights and arguments.format == "spin":
        raise StudyError("export: --weights: SPIN's rows hold no weights; leave them out, or use --format tis-dpo")
    iteration = read_iteration(arguments.rows, arguments.generations, arguments.weights)
    render = renderer(arguments.rendered, arguments.generations[0]) if arguments.rendered else str
    with whole_file(arguments.output) as path:
        jsonl.write(path, study_pairs(*iteration, render), arguments.format)
    with_weights = " with weights" * bool(arguments.weights)
    print(f"{arguments.output}: {iteration[0].num_rows} pairs{with_weights}", flush=True)


if __name__ == "__main__":
    cli.run(main)
