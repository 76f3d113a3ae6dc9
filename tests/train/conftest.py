import copy

import pytest
from trainings import scored


@pytest.fixture
def fresh(model):
    """Makes copies of the model."""
    return lambda: copy.deepcopy(model)


@pytest.fixture
def pairs(model, make_items):
    """Ten pairs with the reference of the model itself."""
    return scored(model, make_items(10))
