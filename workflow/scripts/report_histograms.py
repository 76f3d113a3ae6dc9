"""The figure of token weights: histograms of every weighted arm's iterations, of chosen and rejected answers.

    python workflow/scripts/report_histograms.py --shards 00 01 --iterations wspin/ite0 wspin/ite1 \
        --weights results/wspin/ite0/weights results/wspin/ite1/weights \
        --reference results/sft/reference results/wspin/ite1/reference --output results/figures/weights.pdf
"""

from wspin import cli
from wspin.report import histograms
from wspin.report.replicates import methods
from wspin.report.scores import split_pairs
from wspin.report.shard_files import distinct, shard_files
from wspin.report.style import rendered


def main(argv=None):
    flags = parse(argv)
    files = shard_files(flags.iterations, flags.shards, {"weights": flags.weights, "reference": flags.reference})
    arms = methods(flags.iterations, split_pairs("ARM=REPLICATE", flags.replicates))
    figure = histograms.weight_histograms(histograms.count_weights(files, arms))
    cli.write_outputs(flags, rendered(figure, flags.output), distinct(files))


def parse(argv):
    parser = cli.program_parser("report_histograms", __doc__)
    parser.add_argument("--shards", required=True, nargs="+", help="names of the shards")
    parser.add_argument("--iterations", nargs="*", default=[], help="iterations with token weights")
    for flag in ("--weights", "--reference"):
        parser.add_argument(flag, nargs="*", default=[], metavar="FOLDER", help="one for each iteration")
    cli.add_replicates(parser)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the figure, by suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
