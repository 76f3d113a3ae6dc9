"""Published numbers beside ours: differences with intervals, and the published cells that fail a check.

    python workflow/scripts/report_reproduction.py --results results --models sft spin/ite0 --suites gsm8k \
        --metrics gsm8k=exact_match,strict-match --confidence 0.95 \
        --table config/published/swift_main.csv 'Table 1' sft=sft spin=spin \
        --output results/tables/reproduction.csv results/tables/reproduction.md
"""

from wspin import cli
from wspin.report.commands import by_suffix
from wspin.report.reproduction import parse_tables, reproduction_tables
from wspin.report.scores import read_scores, split_pairs


def main(argv=None):
    flags = parse(argv)
    tables = parse_tables(flags.table)
    files = read_scores(flags.results, flags.models, flags.suites)
    metrics = dict(split_pairs("TASK=METRIC", flags.metrics))
    replicates = split_pairs("ARM=REPLICATE", flags.replicates)
    texts = reproduction_tables(files, metrics, tables, flags.confidence, replicates, flags.note)
    outputs = by_suffix(flags.output, texts)
    cli.write_outputs(flags, outputs, [*(table.file for table in tables), *(str(file.path) for file in files)])


def parse(argv):
    parser = cli.program_parser("report_reproduction", __doc__)
    cli.add_shown_scores(parser)
    cli.add_replicates(parser)
    parser.add_argument("--note", default="", help="sentences below the tables")
    parser.add_argument("--confidence", required=True, type=float, help="level of the intervals")
    form = ("FILE", "TABLE MODEL=ROW")
    help = "CSV of published cells, a table of it, and which row stands beside which model or arm"
    parser.add_argument("--table", required=True, nargs="+", action="append", metavar=form, help=help)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the format follows the suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
