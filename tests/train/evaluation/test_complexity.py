import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.evaluation.complexity import count_costs, read_latencies
from tumorseg_train.networks.run import Run


@pytest.mark.slow
def test_gflop_as_measured_for_the_usual_networks(tiny_run: Run) -> None:
    contract = dataclasses.replace(tiny_run.contract, height=512, width=512)
    for architecture, gflop in (("unetplusplus", 147.1), ("unet", 62.5), ("deeplabv3", 218.4)):
        run = dataclasses.replace(tiny_run, architecture=architecture, encoder="resnet34", contract=contract)
        assert count_costs(run)[1] == pytest.approx(gflop, abs=0.05)


def test_parameters_and_gflop_as_the_exporter_counts_them(tiny_run: Run, tiny_bundle: Bundle) -> None:
    parameters, gflop = count_costs(tiny_run)
    assert parameters == sum(p.numel() for p in tiny_run.model().parameters())
    assert parameters == tiny_bundle.model["parameters"]
    assert gflop == pytest.approx(tiny_bundle.model["gflop"], rel=0.01)
    assert next(tiny_run.model().parameters()).device == torch.device("cpu")


def row(engine: str, median: float, **changes: Any) -> dict[str, Any]:
    spread = {"median": median, "p25": median - 1, "p75": median + 1}
    return {
        "label": f"label of {engine}",
        "variant": {"engine": engine, "device": "cpu"},
        "role": "variant",
        "batch": 1,
        "threads": 2,
        "status": "measured",
        "stages": {"infer": spread, "end_to_end": {**spread, "median": median + 5}},
        **changes,
    }


def bench(path: Path, *rows: dict[str, Any], **changes: Any) -> Path:
    values = {
        "kind": "bench",
        "machine": {"cpu": "A CPU", "gpu": "none"},
        "load_average": {"before": [0.1, 0, 0]},
        "run": {"checkpoint_sha256": "abc"},
        "bundle": {"path": "/nowhere", "sha256": "0"},
        "rows": list(rows),
        **changes,
    }
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_the_fastest_artefact_that_counts(tmp_path: Path) -> None:
    path = bench(
        tmp_path / "bench.json",
        row("pytorch", 1.0),
        row("onnxruntime", 30.0),
        row("mnn", 20.0),
        row("ncnn", 10.0, status="refused: parity", stages={}),
        row("openvino", 5.0, role="control"),
        row("openvino", 4.0, batch=4),
    )
    found, notes = read_latencies([path])
    assert notes == []
    best = found["abc"]
    assert (best.artefact, best.infer_ms, best.low_ms, best.high_ms, best.end_to_end_ms) == (
        "label of mnn", 20, 19, 21, 25,
    )  # fmt: skip
    assert best.machine == "A CPU, 2 threads"
    assert not best.busy
    faster = bench(tmp_path / "2.json", row("mnn", 15.0), load_average={"before": [3.0, 0, 0]})
    found, _ = read_latencies([path, faster])
    assert (found["abc"].infer_ms, found["abc"].busy) == (15, True)
    unknown = bench(tmp_path / "3.json", row("mnn", 9.0), load_average={"before": []})
    assert read_latencies([unknown])[0]["abc"].busy


def test_whose_latency_it_is(tiny_bundle: Bundle, tmp_path: Path) -> None:
    facts = {"path": str(tiny_bundle.root), "sha256": tiny_bundle.digest()}
    path = bench(tmp_path / "bench.json", row("mnn", 1.0), run=None, bundle=facts)
    assert set(read_latencies([path])[0]) == {tiny_bundle.provenance["checkpoint_sha256"]}
    gone = bench(tmp_path / "gone.json", row("mnn", 1.0), run=None)
    found, notes = read_latencies([gone])
    assert found == {}
    assert "does not say from which run" in notes[0]
    facts["path"] = "x" * 300  # the name of no file
    assert read_latencies([bench(tmp_path / "long.json", run=None, bundle=facts)])[0] == {}
    assert "no artefact was measured at batch 1" in read_latencies([bench(tmp_path / "none.json")])[1][0]


def test_what_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"kind": "parity"}', '{"kind": "bench"}'):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"is no bench\.json"):
            read_latencies([tmp_path / "x.json"])
    with pytest.raises(InputError, match=r"is missing, expected a bench\.json"):
        read_latencies([tmp_path / "absent.json"])
