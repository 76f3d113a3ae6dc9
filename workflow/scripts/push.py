"""Upload a model to the hub: its files, its card, and of its record what reproduces it. HF_TOKEN must allow it.

snakemake --profile local push --config 'push={"model": "wspin/ite3", "to": "me/wspin-ite3"}'
python workflow/scripts/push.py --results results
"""

from wspin import cli
from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.manage import upload
from wspin.study.paths import StudyPaths


def main(argv=None):
    parser = cli.parser("push", __doc__)
    parser.add_argument("--results", required=True, help="folder of the results; its config.yaml says what goes where")
    layout = StudyPaths(read_results(parser.parse_args(argv).results))
    asked = layout.study.push
    if asked is None:
        example = """--config 'push={"model": "wspin/ite3", "to": "me/wspin-ite3"}'"""
        raise StudyError(f"push: expected what to upload and where to, found no section `push`; add {example}")
    print(f"push: {asked.model} is at {upload.push(layout, asked)}", flush=True)


if __name__ == "__main__":
    cli.run(main)
