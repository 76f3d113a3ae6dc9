"""The figure of answer lengths: quantiles by arm and iteration beside the real answers, and the share that is cut.

    python workflow/scripts/report_lengths.py --shards 00 01 --iterations spin/ite0 spin/ite1 \
        --generations results/sft/generations results/spin/ite1/generations --real results/sft/reference \
        --output results/figures/lengths.pdf
"""

from wspin import cli
from wspin.report import lengths
from wspin.report.replicates import methods
from wspin.report.scores import split_pairs
from wspin.report.shard_files import distinct, shard_files
from wspin.report.style import rendered


def main(argv=None):
    flags = parse(argv)
    files = shard_files(flags.iterations, flags.shards, {"generations": flags.generations})
    answers = {iteration: [path for (path,) in paths] for iteration, paths in files.items()}
    references = [f"{flags.real}/{shard}.parquet" for shard in flags.shards]
    arms = methods(flags.iterations, split_pairs("ARM=REPLICATE", flags.replicates))
    quantiles = (lengths.length_quantiles(answers, arms), lengths.real_quantiles(references))
    figure = lengths.answer_lengths(*quantiles)
    cli.write_outputs(flags, rendered(figure, flags.output), [*distinct(files), *references])


def parse(argv):
    parser = cli.program_parser("report_lengths", __doc__)
    parser.add_argument("--shards", required=True, nargs="+", help="names of the shards")
    parser.add_argument("--iterations", required=True, nargs="+", help="names of the iterations")
    form = {"nargs": "+", "metavar": "FOLDER", "help": "of the answers of each iteration"}
    parser.add_argument("--generations", required=True, **form)
    parser.add_argument("--real", required=True, metavar="FOLDER", help="reference that holds the real answers")
    cli.add_replicates(parser)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the figure, by suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
