"""The commands of the report's programs: each returns the content of its outputs and names the files that it read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wspin.errors import StudyError
from wspin.storage.text_tables import csv_text

from . import comparison, pooling
from .comparison import Draws
from .examples import examples_page
from .replicates import pooled_models
from .samples import input_paths, read_samples
from .scores import ScoreFile, cut_note, dtype_note, split_groups, split_pairs
from .tables import difference_tables, pooled_tables, score_tables, uncompared_note
from .weights import Shard, weight_tables

PAGE = ".html"  # the suffix of a table's Markdown as a page


class Report(NamedTuple):
    """The outputs by path, and the paths of the inputs."""

    outputs: dict[str, bytes]
    inputs: list[str]


def scores(
    files: Sequence[ScoreFile],
    metrics: Sequence[str],
    groups: Sequence[str],
    replicates: Sequence[str],
    seeds: Mapping[str, int],
    output: Sequence[str],
) -> Report:
    """Every score with its standard error.

    `metrics` are texts TASK=METRIC, `groups` GROUP=TASK,TASK, `replicates` ARM=REPLICATE; `seeds` are by arm or model.
    """
    metric_of = dict(split_pairs("TASK=METRIC", metrics))
    pairs = split_pairs("ARM=REPLICATE", replicates)
    tables = score_tables(files, metric_of, split_groups(groups, metric_of), pairs, seeds)
    return Report(by_suffix(output, tables), [str(file.path) for file in files])


def differences(
    files: Sequence[ScoreFile],
    metrics: Sequence[str],
    groups: Sequence[str],
    against: Sequence[str],
    uncompared: Sequence[str],
    draws: Draws,
    output: Sequence[str],
    averages: str,
) -> Report:
    """Models compared document by document, `against` as MODEL=BASELINE, and every model's average.

    `uncompared`: the arms without a baseline arm of their seed, as ARM=SEED.
    """
    metric_of = dict(split_pairs("TASK=METRIC", metrics))
    models, group_tasks = read_samples(files, metric_of), split_groups(groups, metric_of)
    note = uncompared_note(split_pairs("ARM=SEED", uncompared)) + cut_note(files) + dtype_note(files)
    tables = difference_tables(models, split_pairs("MODEL=BASELINE", against), draws, note, group_tasks)
    rows = csv_text(comparison.averages(models, draws, group_tasks))
    outputs = {**by_suffix(output, tables), averages: rows.encode()}
    return Report(outputs, input_paths(files))


def weights(prompts: str, shards: Mapping[str, Sequence[Shard]], output: Sequence[str]) -> Report:
    """The distribution of every iteration's token weights."""
    return Report(by_suffix(output, weight_tables(shards, prompts)), [prompts, *_files(shards)])


def examples(
    prompts: str,
    count: int,
    opponents: Sequence[str],
    answers: Sequence[str],
    shards: Mapping[str, Sequence[Shard]],
    output: Sequence[str],
) -> Report:
    """The first prompts with every opponent's answers and the token weights of every iteration's first shard."""
    if len(set(opponents)) != len(answers) or len(opponents) != len(answers):
        found = f"{len(opponents)} names ({', '.join(opponents)}) for {len(answers)} files"
        raise StudyError(f"--opponents: expected a name of its own for every file of answers, found {found}")
    answers_of = dict(zip(opponents, answers, strict=True))
    page = examples_page(prompts, answers_of, {iteration: first for iteration, (first, *_) in shards.items()}, count)
    return Report(by_suffix(output, {".md": page}), list(dict.fromkeys([prompts, *answers, *_files(shards)])))


class Replicates(NamedTuple):
    """Texts ARM=REPLICATE, pairs of equal seed as MODEL=BASELINE, and a note about both."""

    pairs: Sequence[str]
    against: Sequence[str]
    note: str


def pooled(
    files: Sequence[ScoreFile],
    metrics: Sequence[str],
    groups: Sequence[str],
    replicates: Replicates,
    confidence: float,
    output: Sequence[str],
) -> Report:
    """Scores and differences pooled over replicates, and the figure of the differences of the last iterations."""
    from . import forest, style  # slow to import, and the tables do without

    metric_of = dict(split_pairs("TASK=METRIC", metrics))
    group_tasks = split_groups(groups, metric_of)
    names = pooled_models([file.model for file in files], split_pairs("ARM=REPLICATE", replicates.pairs))
    pairs = split_pairs("MODEL=BASELINE", replicates.against)
    rows = pooling.pool(read_samples(files, metric_of), names, pairs, confidence, group_tasks)
    note = (f" {replicates.note}" if replicates.note else "") + cut_note(files) + dtype_note(files)
    texts, drawn = pooled_tables(rows, confidence, group_tasks, note), forest.differences(rows, confidence)
    tables = [path for path in output if Path(path).suffix in (*texts, PAGE)]
    figures = [path for path in output if path not in tables]
    return Report({**by_suffix(tables, texts), **style.rendered(drawn, figures)}, input_paths(files))


def by_suffix(paths: Sequence[str], contents: Mapping[str, str]) -> dict[str, bytes]:
    """Every path with the content in its format, or the Markdown as a page.

    Raises `StudyError` at a suffix that is none of these.
    """
    suffixes = [*contents, *([PAGE] if ".md" in contents else [])]
    for path in paths:
        if Path(path).suffix not in suffixes:
            raise StudyError(f"{path}: expected a name that ends in {', '.join(suffixes)}, found {Path(path).suffix!r}")
    return {path: _content(Path(path), contents).encode() for path in paths}


def _content(path: Path, contents: Mapping[str, str]) -> str:
    if path.suffix != PAGE:
        return contents[path.suffix]
    from . import html  # markdown-it is slow to import

    return html.page(path.stem.capitalize(), contents[".md"])


def _files(shards: Mapping[str, Sequence[Shard]]) -> list[str]:
    """The files of all shards, each once: arms share answers and their log-probabilities."""
    return list(dict.fromkeys(path for files in shards.values() for shard in files for path in vars(shard).values()))
