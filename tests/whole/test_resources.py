"""Every rule of a stage takes the threads, memory and time that the config gives its stage."""

import re

import pytest
import workflow

from wspin.config.resources import Resource, Resources

OTHERS = {"generate_given": "data"}  # reads a file of answers, as the stage data does: no GPU
STAGES = tuple(Resources.model_fields)
RULE = re.compile(r"^rule (\w+):\n((?:(?:    .*)?\n)+)", re.MULTILINE)


def test_rules_take_what_the_config_gives_their_stage():
    taken, expected = {}, {}
    for stage in STAGES:
        files = workflow.ROOT.glob(f"rules/{stage}*.smk")
        for rule, body in (found for file in files for found in RULE.findall(file.read_text())):
            threads = re.findall(r"^    threads: STUDY\.resources\.(\w+)\.threads$", body, re.MULTILINE)
            taken[rule] = (threads, re.findall(r'^        \*\*stage_resources\("(\w+)"\),$', body, re.MULTILINE))
            expected[rule] = ([OTHERS.get(rule, stage)],) * 2
    assert taken == expected
    assert len(taken) > len(STAGES)


@pytest.mark.parametrize(
    ("most", "minutes"), [(None, [60, 60, 60]), (60, [60, 60, 60]), (130, [60, 120, 130]), (400, [60, 120, 180])]
)
def test_attempts_ask_for_more_minutes_only_up_to_the_most_that_is_given(most, minutes):
    job = Resource(mem_mb=1, runtime=60, max_runtime=most)
    assert [job.minutes(attempt) for attempt in (1, 2, 3)] == minutes
