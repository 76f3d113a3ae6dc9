"""The study whose programs are killed."""

import pytest
from faults import points, stages
from hub import Hub


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A finished study on a hub of its own; the process from which its programs are forked has started."""
    points.warm_up()
    with Hub() as hub:
        made = stages.Study(tmp_path_factory.mktemp("study"), hub)
        made.finish()
        yield made
