"""Report: tables and figures of what the study measured.

Scores that were made in different ways (engine, versions, batch size, seeds, template, prompts) are refused.

    python workflow/scripts/report.py scores --results results --models base sft spin/ite0 --suites arc gsm8k \
        --metrics arc_challenge=acc_norm,none gsm8k=exact_match,strict-match \
        --csv results/tables/scores.csv --markdown results/tables/scores.md --latex results/tables/scores.tex
"""

from wspin import cli
from wspin.report import comparison, samples
from wspin.report.scores import pairs, read
from wspin.report.tables import difference_tables, score_tables
from wspin.report.weights import weight_tables
from wspin.storage.files import whole_file


def main(argv=None):
    parser = cli.program_parser("report", __doc__)
    commands = parser.add_subparsers(required=True, metavar="scores|differences|weights|figure")
    for name, action in (("scores", scores), ("differences", differences), ("weights", weights), ("figure", figure)):
        commands.add_parser(name, help=action.__doc__).set_defaults(action=action)
    compare, draw = commands.choices["differences"], commands.choices["figure"]
    for command in (commands.choices["scores"], compare):
        for flag in ("--results", "--csv", "--markdown", "--latex"):
            command.add_argument(flag, required=True)
        for flag, name in (("--models", "MODEL"), ("--suites", "SUITE"), ("--metrics", "TASK=METRIC")):
            command.add_argument(flag, required=True, nargs="+", metavar=name)
    compare.add_argument("--against", nargs="*", default=[], metavar="MODEL=BASELINE")
    compare.add_argument("--bootstrap", required=True, type=int, help="draws behind an interval")
    compare.add_argument("--seed", required=True, type=int)
    weigh = commands.choices["weights"]
    for flag in ("--prompts", "--csv", "--markdown"):
        weigh.add_argument(flag, required=True)
    for flag in ("--iterations", "--weights", "--reference", "--generations"):
        weigh.add_argument(flag, nargs="*", default=[], help="iteration by iteration, with equally many shards")
    draw.add_argument("--output", required=True, nargs="+", help="figures: .pdf, .svg, .png")
    for command in (compare, draw):
        command.add_argument("--confidence", required=True, type=float, help="share of the draws in an interval")
        command.add_argument("--averages", required=True, help="every model's average: made by `differences`")
    arguments = parser.parse_args(argv)
    outputs, inputs = arguments.action(arguments)
    for path, content in outputs.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    print(f"report: {', '.join(outputs)}", flush=True)
    cli.write_records(arguments, outputs, inputs)


def scores(flags):
    """every score with its standard error"""
    scored = read(flags.results, flags.models, flags.suites)
    made = score_tables(scored, dict(pairs("TASK=METRIC", flags.metrics)))
    return dict(zip((flags.csv, flags.markdown, flags.latex), made, strict=True)), [str(one.path) for one in scored]


def differences(flags):
    """models compared document by document, with intervals"""
    scored = read(flags.results, flags.models, flags.suites)
    models = samples.read(scored, dict(pairs("TASK=METRIC", flags.metrics)))
    draws = comparison.Draws(flags.bootstrap, flags.confidence, flags.seed)
    made = difference_tables(models, pairs("MODEL=BASELINE", flags.against), draws)
    return dict(zip((flags.csv, flags.markdown, flags.latex, flags.averages), made, strict=True)), samples.paths(scored)


def weights(flags):
    """what token weights look like"""
    made = weight_tables(flags.iterations, [flags.weights, flags.reference, flags.generations], flags.prompts)
    inputs = [flags.prompts, *flags.weights, *flags.reference, *flags.generations]
    return dict(zip((flags.csv, flags.markdown), made, strict=True)), inputs


def figure(flags):
    """the averages by iteration"""
    from wspin.report import figures  # slow to import, and tables need none of it

    drawn = figures.averages(comparison.read_averages(flags.averages), flags.confidence)
    return {path: figures.render(drawn, path) for path in flags.output}, [flags.averages]


if __name__ == "__main__":
    cli.run(main)
