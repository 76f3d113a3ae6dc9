"""The page of answers: what every model says to the first prompts of the study.

    python workflow/scripts/report_answers.py --rows results/data/prompts.parquet --count 3 \
        --models base sft spin/ite0 --answers results/base/examples.parquet results/sft/generations/00.parquet \
        results/spin/ite1/generations/00.parquet --output results/pages/answers.html
"""

from wspin import cli
from wspin.errors import StudyError
from wspin.report.answers import answers_page


def main(argv=None):
    flags = parse(argv)
    if len(set(flags.models)) != len(flags.answers) or len(flags.models) != len(flags.answers):
        found = f"{len(flags.models)} names ({', '.join(flags.models)}) for {len(flags.answers)} files"
        raise StudyError(f"--models: expected a name of its own for every file of answers, found {found}")
    page = answers_page(flags.rows, dict(zip(flags.models, flags.answers, strict=True)), flags.count)
    cli.write_outputs(flags, {flags.output: page.encode()}, [flags.rows, *flags.answers])


def parse(argv):
    parser = cli.program_parser("report_answers", __doc__)
    parser.add_argument("--rows", required=True, help="prompts.parquet")
    parser.add_argument("--count", required=True, type=int, help="number of prompts")
    parser.add_argument("--models", required=True, nargs="+", metavar="MODEL", help="models in the order of the tables")
    parser.add_argument("--answers", required=True, nargs="+", metavar="FILE", help="the answers of each model")
    cli.add_required(parser, "--output")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
