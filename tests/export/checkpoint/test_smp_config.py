"""config.json as save_pretrained of each version of smp wrote it, from the first that had it.

smp_configs.json holds what `network.save_pretrained` of 0.3.4, 0.4.0 and 0.5.0 wrote for every architecture
and for options that were renamed since; 0.3.3 had the same arguments and no save_pretrained. The networks
themselves gave the same logits under the version that made them and as read here (benchmarks/old_smp.py).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp

from tumorseg_export.checkpoint.derived import not_defaults
from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_foreign
from tumorseg_export.checkpoint.smp_config import CONFIG, OLD_NAMES, read_config
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import ARCHITECTURES

Values = dict[str, Any]
CONFIGS: dict[str, list[Values]] = json.loads(Path(__file__).with_name("smp_configs.json").read_text())
CASES = [
    pytest.param(values, id=f"{release}-{values['_model_class']}-{number}")
    for release, configs in CONFIGS.items()
    for number, values in enumerate(configs)
    if not (release == "0.4.0" and values["_model_class"] == "UPerNet")
]


def written(folder: Path, values: Values) -> Path:
    (folder / CONFIG).write_text(json.dumps(values))
    return folder / CONFIG


@pytest.mark.parametrize("values", CASES)
def test_config_of_every_version_is_read(values: Values, tmp_path: Path) -> None:
    config = read_config(written(tmp_path, values), lambda line: None)
    assert config.encoder == values["encoder_name"]
    assert ARCHITECTURES[config.architecture].__name__ == values["_model_class"]
    expected: Values = {}
    if values.get("encoder_depth") == 4 and values["_model_class"] != "DPT":
        expected["encoder_depth"] = 4
    if False in (values.get("decoder_use_batchnorm"), values.get("psp_use_batchnorm")):
        expected["decoder_use_norm"] = False
    if values.get("decoder_merge_policy") == "cat":
        expected |= {"decoder_merge_policy": "cat", "upsampling": 2}
    if values["_model_class"] == "DeepLabV3" and values["upsampling"] == 8:
        expected["upsampling"] = 8  # 0.3 wrote what later versions compute
    assert not_defaults(config.architecture, config.options) == expected
    assert not set(OLD_NAMES) & set(config.options)


def test_every_architecture_of_each_version_is_there() -> None:
    classes = {
        release: {values["_model_class"] for values in configs} for release, configs in CONFIGS.items()
    }
    every = {kind.__name__ for kind in ARCHITECTURES.values()}
    assert classes["0.3.4"] == every - {"UPerNet", "Segformer", "DPT"}
    assert classes["0.4.0"] == every - {"DPT"}
    assert classes["0.5.0"] == every


def test_upernet_of_04_is_refused_by_its_config(tmp_path: Path) -> None:
    values = next(values for values in CONFIGS["0.4.0"] if values["_model_class"] == "UPerNet")
    with pytest.raises(InputError, match=r"config\.json: is a UPerNet of smp 0\.4, whose decoder has other"):
        read_config(written(tmp_path, values), lambda line: None)


@pytest.mark.slow
def test_old_name_beside_the_new_one_is_heeded_as_smp_does(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = smp.Unet("resnet18", encoder_weights=None, decoder_use_batchnorm=False)
    network.save_pretrained(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    assert (values["decoder_use_batchnorm"], values["decoder_use_norm"]) == (False, "batchnorm")
    checkpoint = open_foreign(tmp_path, CheckpointOptions(images="phantoms", size=(64, 64)))
    assert checkpoint.options == {"decoder_use_norm": False}
