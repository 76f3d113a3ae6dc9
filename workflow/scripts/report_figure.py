"""The figure of averages by iteration, with the paired differences to the baseline and published averages.

    python workflow/scripts/report_figure.py --averages results/tables/averages.csv \
        --differences results/tables/differences.csv --published results/tables/reproduction.csv \
        --confidence 0.95 --output results/figures/averages.pdf
"""

from wspin import cli
from wspin.report import commands


def main(argv=None):
    flags = parse(argv)
    tables = (flags.averages, flags.differences, flags.published)
    report = commands.figure(*tables, flags.confidence, flags.replicates, flags.output)
    cli.write_outputs(flags, report.outputs, report.inputs)


def parse(argv):
    parser = cli.program_parser("report_figure", __doc__)
    parser.add_argument("--averages", required=True, metavar="FILE", help="CSV of every model's average")
    parser.add_argument("--differences", metavar="FILE", help="CSV of differences to the baseline")
    parser.add_argument("--published", metavar="FILE", help="CSV of published numbers beside ours")
    parser.add_argument("--confidence", required=True, type=float, help="level of the intervals")
    cli.add_replicates(parser)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the figure, by suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
