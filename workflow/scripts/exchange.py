"""Import files of SPIN's and TIS-DPO's code into a study, or export an iteration to them. No rule calls this program.

    python workflow/scripts/exchange.py import --format spin --train iter0.jsonl --test iter0_test.jsonl --output given
    python workflow/scripts/exchange.py export --format tis-dpo --rows results/data/prompts.parquet \
        --generations results/sft/generations/00.parquet --weights results/wspin/ite0/weights/00.parquet \
        --output ite0.jsonl
"""

from pathlib import Path

from wspin import cli
from wspin.errors import StudyError
from wspin.exchange import jsonl
from wspin.storage import tables
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
    exporter.add_argument("--rows", required=True, help="prompts.parquet")
    exporter.add_argument("--generations", required=True, nargs="+", help="answers of the iteration, shard by shard")
    exporter.add_argument("--weights", nargs="*", default=[], help="their token weights, shard by shard")
    return exchange_parser


def main(argv=None):
    arguments = parser().parse_args(argv)
    arguments.action(arguments)


def import_files(arguments):
    """write rows that a study reads, and pairs.jsonl, for `generate.given` and `weigh.given`"""
    if Path(arguments.output).exists():
        raise StudyError(f"{arguments.output}: expected no such folder, found one; name another, nothing is replaced")
    with whole_folder(arguments.output) as folder:
        (folder / "rows").mkdir()
        for split, paths in (("train", arguments.train), ("test", arguments.test)):
            pairs = [pair for path in paths for pair in jsonl.read(path, arguments.format)]
            distinct = jsonl.distinct(pairs)
            if paths and not distinct:
                raise StudyError(f"{paths[0]}: expected pairs, found none")
            if paths:
                jsonl.write_rows(folder / "rows" / f"{split}.parquet", distinct)
                print(f"{split}: {len(distinct)} pairs; {len(pairs) - len(distinct)} duplicates dropped", flush=True)
            if split == "train":
                jsonl.write(folder / "pairs.jsonl", distinct, "tis-dpo")


def export(arguments):
    """write the pairs of an iteration, with their weights if --weights names them"""
    if Path(arguments.output).exists():
        raise StudyError(f"{arguments.output}: expected no such file, found one; name another, nothing is replaced")
    if arguments.weights and arguments.format == "spin":
        raise StudyError("export: --weights: SPIN's rows hold no weights; leave them out, or use --format tis-dpo")
    rows = tables.read(arguments.rows, "prompts")
    ids = rows["prompt_id"].to_pylist()
    generations = tables.read_shards(arguments.generations, "generations")
    tables.check_same_rows(arguments.rows, ids, arguments.generations[0], generations["prompt_id"].to_pylist())
    student = tables.metadata(tables.read(arguments.generations[0], "generations"), "model", "tokenizer")
    weights = tables.read_shards(arguments.weights, "weights", **student) if arguments.weights else None
    if weights:
        tables.check_same_rows(arguments.rows, ids, arguments.weights[0], weights["prompt_id"].to_pylist())
    with whole_file(arguments.output) as path:
        jsonl.write(path, jsonl.study_pairs(rows, generations, weights), arguments.format)
    print(f"{arguments.output}: {rows.num_rows} pairs{' with weights' * bool(weights)}", flush=True)


if __name__ == "__main__":
    cli.run(main)
