"""Sizes are those of a model that can be built."""

import json
import shutil
from types import SimpleNamespace

import pytest
from attacks import attack

from wspin.config.sources import Model
from wspin.errors import StudyError
from wspin.preflight.sizes import known_sizes


@attack(
    "malformed",
    "a model's config.json with a width of 31 digits, no heads or a negative size",
    "refused by `preflight` in one line with the file",
)
@pytest.mark.parametrize("entry", [{"hidden_size": 10**30}, {"num_attention_heads": 0}, {"intermediate_size": -1}])
def test_a_config_of_no_model_is_refused(tmp_path, scratch_model, entry):
    shutil.copytree(scratch_model, tmp_path / "m")
    file, study = tmp_path / "m/config.json", SimpleNamespace(models={"base": Model(path=str(tmp_path / "m"))})
    paths = SimpleNamespace(fetched_models=["base"], model=lambda _: "none", study=study)
    assert known_sizes(paths)["base"].parameters > 0
    file.write_text(json.dumps(json.loads(file.read_text()) | entry))
    with pytest.raises(StudyError, match=r"m/config.json: expected a model that can be built, found .*; copy the file"):
        known_sizes(paths)
