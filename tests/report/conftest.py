"""Results of a few models with scores, and with samples behind them."""

import pytest
from score_files import (
    COMPARED,
    MODELS,
    put,
    put_both,
)


@pytest.fixture
def results(tmp_path):
    for number, model in enumerate(MODELS):
        put(tmp_path, model, lambda scores, number=number: scores.update(model=f"f{number}"))
    return tmp_path


@pytest.fixture
def compared(tmp_path):
    for model in COMPARED:
        put_both(tmp_path, model)
    return tmp_path
