"""Look after a study, for example: python workflow/scripts/manage.py status --configfile config/overlays/demo.yaml"""

from pathlib import Path

from wspin import cli  # every command imports its own modules: `status` has to be fast


def main(argv=None):
    commands = (parser := cli.program_parser("manage", __doc__)).add_subparsers(required=True, metavar="COMMAND")
    for action in (status, revisions, adopt, stale, clean_state, cost, cards, push):
        command = commands.add_parser(action.__name__, help=action.__doc__, allow_abbrev=False)
        command.set_defaults(action=action)
        if action in (status, revisions, adopt):
            command.add_argument("--configfile", nargs="+", default=[], help="overlays of config/config.yaml, in order")
        else:
            command.add_argument("--results", required=True, type=Path, help="folder of the results")
    commands.choices["status"].add_argument("--watch", nargs="?", type=float, const=10.0, help="again every WATCH s")
    commands.choices["revisions"].add_argument("--renew", nargs="+", default=[], help="pinned names to look up again")
    arguments = parser.parse_args(argv)
    cli.print_lines(arguments.action(arguments))


def status(arguments):
    """show the progress of a study at any time: needs no Snakemake and writes nothing"""
    from wspin.manage.status import show

    return show(arguments.configfile, arguments.watch, cli.print_lines)


def revisions(arguments):
    """pin what the study takes from the hub: write the commits of unpinned names into config/revisions.lock.yaml"""
    from wspin.manage.revisions import pin

    return pin(arguments.configfile, arguments.renew)


def adopt(arguments):
    """take over results that were copied or moved; list those of other settings, which the next run makes again"""
    from wspin.manage.adoption import adopt

    return adopt(arguments.configfile)


def stale(arguments):
    """list the results that other code has made; re-run nothing"""
    from wspin.manage.stale import list_stale

    return list_stale(arguments.results)


def clean_state(arguments):
    """remove the resumable states that no process holds"""
    from wspin.manage.states import clean_states

    return clean_states(arguments.results / ".state")


def cost(arguments):
    """sum up the hours and the memory of all jobs, by stage, arm and iteration: {tables,figures}/cost.*"""
    from wspin.manage.costs import write_costs

    return write_costs(arguments.results).split("\n")


def cards(arguments):
    """write the card (README.md) of every finished model"""
    from wspin.manage.model_card import renew_cards

    return renew_cards(arguments.results)


def push(arguments):
    """upload the model that the section `push` names to the hub, with its card; HF_TOKEN must allow it"""
    from wspin.manage.upload import push_model

    return [push_model(arguments.results)]


if __name__ == "__main__":
    cli.run(main, online=True)
