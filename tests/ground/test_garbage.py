"""The garbage collector while objects are made that stay."""

import gc

import pytest

from wspin.garbage import uncollected


def test_nothing_is_collected_until_the_outermost_ends():
    @uncollected()
    def makes(fails):
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
        if fails:
            raise ValueError

    assert gc.isenabled()
    makes(fails=False)
    assert gc.isenabled()
    with pytest.raises(ValueError):
        makes(fails=True)
    assert gc.isenabled()
