"""What a SLURM cluster allows its users, from the answers of its commands."""

import math
import re

import pytest
import slurm_answers

from wspin.study.slurm import Asked, Cluster, Limit, Rules, known_cluster, too_many

NAMES = ["cpu", "gpu", "long"]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The cluster as its commands describe it."""

    def known(**answers):
        slurm_answers.install(tmp_path / "bin", monkeypatch, **answers)
        return known_cluster()

    return known


def minutes(cluster, asked, **more):
    """What is found to be allowed, by asking for too much."""
    lines = list(cluster.too_long(Asked("train", asked, 10**9, **more)))
    return [line.partition(" expected at most ")[2].partition(":")[0] for line in lines]


def test_partitions_have_their_minutes(cluster):
    known = cluster()
    assert list(known.partitions) == NAMES
    assert minutes(known, "gpu") == ["30, the limit of partition 'gpu'"]
    assert minutes(known, "long") == ["10080, the limit of partition 'long'"]
    assert minutes(known, "cpu") == minutes(known, "") == []


def test_minutes_over_a_limit_are_a_line(cluster):
    assert list(cluster().too_long(Asked("train", "gpu", 30))) == []
    assert list(cluster().too_long(Asked("train", "gpu", 31))) == [
        "train: found 31 minutes, expected at most 30, the limit of partition 'gpu': its jobs may wait for ever; "
        "lower runtime and max_runtime in `resources`, or name another partition in the profile"
    ]


def test_of_several_partitions_one_has_to_fit(cluster):
    assert minutes(cluster(), "gpu,long") == ["10080, the limit of partition 'long'"]
    assert minutes(cluster(), "gpu,cpu") == []


def test_accounts_and_qos_limit_minutes_too(cluster):
    known = cluster()
    assert minutes(known, "cpu", qos="short") == ["10, the limit of QOS 'short'"]
    assert minutes(known, "cpu", account="root") == ["10, the limit of QOS 'short'"]  # its default one
    assert minutes(known, "cpu", account="root", qos="normal") == ["2880, the limit of account 'root'"]


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (("train", "cpu", 1), (4, "account 'lab'")),  # the default account
        (("train", "cpu", 1, "root", "normal"), (math.inf, "")),
        (("train", "gpu", 1, "root", "normal"), (9, "account 'root'")),  # there alone
        (("train", "cpu", 1, "lab", "short"), (3, "QOS 'short'")),
        (("train", "long", 1, "lab", "short"), (1, "QOS 'crowded'")),  # the partition's comes first
        (("train", "cpu", 1, "other"), (math.inf, "")),
    ],
)
def test_the_first_limit_on_jobs_counts(cluster, asked, limit):
    assert cluster().most_jobs(Asked(*asked)) == limit


def test_a_partition_that_is_not_there_is_a_line(cluster):
    assert list(cluster().unknown(Asked("train", "cpu,long", 1))) == []
    assert list(cluster().unknown(Asked("train", "gpu,h100", 1))) == [
        "train: partition: expected one of cpu, gpu, long, found 'h100', which SLURM refuses; correct the profile"
    ]


@pytest.mark.parametrize(
    ("word", "found"),
    [("associations,limits", []), ("associations,qos", ["train: QOS: expected one of normal, short, found 'crowded'"])],
)
def test_a_qos_has_to_be_the_users_where_that_is_enforced(cluster, word, found):
    known = cluster(config=f"AccountingStorageEnforce = {word}\nClusterName = x\n")
    lines = list(known.unknown(Asked("train", "cpu", 1, qos="short,crowded")))
    assert [line.removesuffix(", which SLURM refuses; correct the profile") for line in lines] == found


def test_of_many_names_some_are_shown():
    known = Cluster({f"p{i:02}": Rules("") for i in range(12)})
    (line,) = known.unknown(Asked("train", "x", 1))
    assert "expected one of p00, " in line and "p09, ..., found 'x'" in line


@pytest.mark.parametrize("word", ["associations", "none", "associations,qos"])
def test_limits_that_are_not_enforced_do_not_count(cluster, word):
    known = cluster(config=f"AccountingStorageEnforce = {word}\nClusterName = x\n")
    assert (list(known.partitions), known.accounts, known.qos) == (NAMES, [], {})


def test_without_accounting_partitions_alone_limit(cluster):
    known = cluster(user=None, qos=None)
    assert known.most_jobs(Asked("train", "gpu", 1)) == Limit()
    assert minutes(known, "gpu") == ["30, the limit of partition 'gpu'"]


def test_without_slurm_nothing_is_limited(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    known = known_cluster()
    assert known == Cluster()
    assert list(known.unknown(Asked("train", "gpu", 1))) == minutes(known, "gpu") == []


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        ("", "expected at most 4: account 'lab' gives you 4 places in the queue, and SLURM .*; give --jobs 4$"),
        (
            "1\n2_1\n2_2\n",
            r"expected at most 1: .* gives you 4 places in the queue \(3 are taken\), .*; give --jobs 1$",
        ),
        ("1\n2\n3\n4\n5\n", r"expected at most 0: .* \(5 are taken\), and .*; wait for those jobs, or cancel them$"),
    ],
)
def test_more_jobs_than_places_are_a_line(tmp_path, monkeypatch, queue, told):
    slurm_answers.install(tmp_path / "bin", monkeypatch, queue=queue)
    (line,) = too_many(100, Limit(4, "account 'lab'"))
    assert line.startswith("jobs: found 100 at a time, ")
    assert re.search(told, line), line
    assert list(too_many(4, Limit(4, "account 'lab'"))) == list(too_many(10**6, Limit())) == []


def test_what_is_no_number_or_time_is_no_limit(cluster):
    known = cluster(
        user="lab|lab|x|never||||\n", qos="normal|-1|\n", partitions="PartitionName=p MaxTime=INFINITE\nx\n"
    )
    assert known.partitions == {"p": Rules("p")}
    assert known.most_jobs(Asked("train", "p", 1, "lab", "normal")) == Limit()
