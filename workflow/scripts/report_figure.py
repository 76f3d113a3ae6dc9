"""The figure of averages by iteration, with the paired differences to the baseline and published averages.

    python workflow/scripts/report_figure.py --averages results/tables/averages.csv \
        --differences results/tables/differences.csv --published results/tables/reproduction.csv \
        --confidence 0.95 --output results/figures/averages.pdf
"""

from wspin import cli
from wspin.report import comparison
from wspin.report.averages import by_iteration
from wspin.report.reproduction import read_published_means
from wspin.report.scores import split_pairs
from wspin.report.style import rendered


def main(argv=None):
    flags = parse(argv)
    pairs = split_pairs("ARM=REPLICATE", flags.replicates)
    differences = comparison.read_average_differences(flags.differences) if flags.differences else None
    published = read_published_means(flags.published) if flags.published else None
    averages = comparison.read_averages(flags.averages)
    figure = by_iteration(averages, flags.confidence, pairs, differences, published)
    read = filter(None, (flags.averages, flags.differences, flags.published))
    cli.write_outputs(flags, rendered(figure, flags.output), list(read))


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
