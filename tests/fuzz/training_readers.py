"""Readers of what training and evaluation leave: runs, weights, reports."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz.mutate import (
    changed_bytes,
    changed_json,
    changed_safetensors,
    changed_text,
    changed_zip,
)
from fuzz.reader import RESULTS, Reader, refused

SLOW = 0.1  # of the inputs


def run(folder: Path) -> Iterator[Reader]:
    from safetensors.numpy import save

    from tumorseg_export.checkpoint.reader import from_run
    from tumorseg_runtime.bundle.bundle import sha256_of
    from tumorseg_runtime.core.contract import Contract
    from tumorseg_train.config.plan import PLAN, TrainingPlan
    from tumorseg_train.config.recipe import load_recipe
    from tumorseg_train.data.split import SPLIT, Item, Manifest
    from tumorseg_train.networks.run import CHECKPOINT, INDEX, Run

    data = folder / "data"
    (data / "brain").mkdir(parents=True)
    (data / "brain/1.png").write_bytes(b"x")
    files = {"brain/1.png": sha256_of(data / "brain/1.png"), "brain/1.mask.png": "0" * 64}
    items = tuple(
        Item(
            "brain/1.png",
            ("brain/1.mask.png",),
            "brain",
            "tumour",
            part,
            64,
            64,
            9,
            files,
            f"g{part}",
            "image",
        )
        for part in ("train", "val", "test")
    )
    manifest = Manifest(data, 0, items, "grouped")
    manifest.write(folder / SPLIT)
    (folder / CHECKPOINT).write_bytes(save({"x": np.zeros(3, np.float32)}))
    recipe = load_recipe("quick")
    facts = {"root": str(data), "split_sha256": manifest.digest(), "phantoms": False, "images": {"train": 1}}
    training = {
        "recipe": {"name": "quick", **vars(recipe)},
        "initial_weights": None,
        "seconds": 1.5,
        "epochs": 1,
    }
    metrics = {"best_epoch": 1, "validation": {"mean_dice": 0.5}, "threshold": {"threshold": 0.5}, "test": {}}
    contract = Contract(height=64, width=64)
    Run(
        folder, "unet", "resnet18", contract, sha256_of(folder / CHECKPOINT), facts, training, metrics
    ).write()

    def run() -> None:
        opened = Run.open(folder)
        from_run(opened)
        opened.manifest()

    def split() -> None:
        read = Manifest.read(folder / SPLIT, data)
        read.copies(), read.straddling(), read.part("train"), read.digest()
        for item in read.items:
            for name in (item.image, *item.masks):
                inside = (data / name).resolve()
                if not inside.is_relative_to(data.resolve()):
                    raise AssertionError(f"{name!r} leads out of the data's folder")

    yield Reader("run.json", folder / INDEX, changed_json, run)
    yield Reader("split.json", folder / SPLIT, changed_json, split)
    TrainingPlan(str(data), "unet", "resnet18", contract, recipe, "quick").write(folder)

    def plan() -> None:
        read = TrainingPlan.read(folder)
        read.recipe.to_toml(), read.recipe.scaled(64, 0)

    yield Reader("plan.json", folder / PLAN, changed_json, plan)
    path = folder / "own.toml"
    path.write_text(recipe.to_toml())
    yield Reader("recipe", path, changed_text, lambda: load_recipe(str(path)))


def weights(folder: Path) -> Iterator[Reader]:
    import torch
    from safetensors.torch import save_file

    from tumorseg_export.checkpoint.smp_config import CONFIG, read_config
    from tumorseg_export.checkpoint.state_file import read_network
    from tumorseg_export.checkpoint.state_fit import fitting_network
    from tumorseg_train.networks.models import build_model

    with torch.random.fork_rng():
        state = {
            k: v.contiguous()
            for k, v in build_model("unet", "resnet18", channels=3, classes=1).state_dict().items()
        }
    names = [
        *[name for name in state if not name.startswith("encoder.layer")][:12],
        "segmentation_head.0.weight",
    ]
    state = {name: state[name] for name in names} | {"decoder.x.weight": torch.zeros(2, 3)}
    save_file(state, folder / "weights.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights.pth")

    def network(path: Path) -> None:
        found = read_network(path, lambda line: None).state
        refused(lambda path: fitting_network(path, found, "unet", "resnet18", {}, lambda line: None), path)

    path, pickle = folder / "weights.safetensors", folder / "weights.pth"
    yield Reader("safetensors", path, changed_safetensors, lambda: network(path), SLOW)
    change = functools.partial(changed_zip, inner=changed_bytes)
    yield Reader("checkpoint (pickle)", pickle, change, lambda: network(pickle), SLOW)
    config = {
        "_model_class": "Unet", "encoder_name": "resnet18", "encoder_depth": 5, "encoder_weights": None,
        "decoder_channels": [256, 128, 64, 32, 16], "in_channels": 3, "classes": 1, "activation": None,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config))

    def smp() -> None:
        found = read_config(folder / CONFIG, lambda line: None)
        build_model(
            found.architecture,
            found.encoder,
            channels=found.channels,
            classes=found.classes,
            options=found.options,
        )

    yield Reader("smp's config.json", folder / CONFIG, changed_json, smp, SLOW)


def results(folder: Path) -> Iterator[Reader]:
    from tumorseg_benchmarks.latency.regression import Timing, read_baseline, regression, write_baseline
    from tumorseg_benchmarks.reports.html_report import foreign_page, read_report
    from tumorseg_train.evaluation.comparison import compare, gather
    from tumorseg_train.evaluation.complexity import read_latencies

    def page(paths: list[Path]) -> None:
        foreign_page([read_report(path) for path in paths], paths)

    evaluation, bench = folder / "evaluation.json", folder / "bench.json"
    values = json.loads((RESULTS / "cpu-128/unet.json").read_text())
    values["images"], values["draws"] = values["images"][:15], 20
    evaluation.write_text(json.dumps(values))
    data = values["data"]["part"], values["scale"]

    def read_evaluation() -> None:
        compare(gather([evaluation], {}, part=data[0], scale=data[1], draws=20))

    yield Reader("evaluation.json", evaluation, changed_json, read_evaluation, SLOW)
    values = json.loads((RESULTS / "cpu-128/unetplusplus.bench.json").read_text())
    few = {values["rows"][place]["variant"]["name"] for place in (0, -1)}  # each row draws two charts
    values["rows"] = [row for row in values["rows"] if row["variant"]["name"] in few]
    values["choice"] = [one for one in values["choice"] if one["name"] in few]
    for name in ("cold_start", "worst"):
        values[name] = {one: values[name][one] for one in values[name] if one in few}
    bench.write_text(json.dumps(values))
    yield Reader("bench.json (compare)", bench, changed_json, lambda: read_latencies([bench]))
    yield Reader("bench.json (page)", bench, changed_json, lambda: page([bench]))
    parity, good = folder / "parity.json", folder / "good.json"
    shutil.copy(bench, good)
    shutil.copy(RESULTS / "cpu-128/unetplusplus.parity.json", parity)
    yield Reader("parity.json (page)", parity, changed_json, lambda: page([good, parity]))
    baseline = folder / "baseline.json"
    now = Timing((0.1, 0.2, 0.3))
    write_baseline(baseline, {"cpu": "x"}, {"infer": now})

    def timings() -> None:
        for timing in read_baseline(baseline, {"cpu": "x"}).values():
            regression(timing, now), regression(now, timing)

    yield Reader("baseline", baseline, changed_json, timings)
