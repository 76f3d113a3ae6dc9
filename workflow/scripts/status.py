"""Tell how far a study is: a row for each model, what runs with the time left, what was interrupted.

    python workflow/scripts/status.py --configfile config/overlays/demo.yaml

Run it where Snakemake runs, with the same overlays; none for config/config.yaml alone. It needs no Snakemake and writes
nothing, so that it may be run at any moment. `wspin/watch.py` says when a job counts as running.
"""

from wspin import cli
from wspin.config.load import read_study
from wspin.manage.status import table
from wspin.study.paths import StudyPaths


def main(argv=None):
    parser = cli.parser("status", __doc__)
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays of config/config.yaml; later ones win")
    arguments = parser.parse_args(argv)
    print(table(StudyPaths(read_study(["config/config.yaml", *arguments.configfile]))))


if __name__ == "__main__":
    cli.run(main)
