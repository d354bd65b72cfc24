"""action.yml and the script behind it, run as a workflow would, in a scratch folder."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tumorseg_runtime.bundle.archive import pack

ROOT = Path(__file__).parents[2]


def test_the_action_hands_every_input_on_as_a_variable() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for run in re.findall(r"run: (.*)", text):
        assert "${{" not in run  # what a caller gives is never part of a script
    inputs = set(re.findall(r"^  (\w+):\n    description", text, re.MULTILINE))
    assert inputs == set(re.findall(r"\$\{\{ inputs\.(\w+) \}\}", text))
    assert "/.ci/parity" in text
    page = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    (workflow,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (given,) = re.findall(r"with:\n((?: {10}\w+: .*\n)+) {6}- uses: actions/upload", workflow)
    assert set(re.findall(r"(\w+):", given)) <= inputs


def test_a_workflow_in_the_docs_names_actions_by_their_commit() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    named = re.findall(r"uses: \S+@(\S+)", text)
    assert len(named) >= 4
    assert all(one == "COMMIT" or re.fullmatch("[0-9a-f]{40}", one) for one in named)


@pytest.mark.process
def test_continuous_integration_goes_on_without_debians_tools(tmp_path: Path) -> None:
    """Without apt-get, and with one that fails."""
    script = ROOT / ".ci/debian-tools"
    assert f"\n.ci/{script.name}\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    for name in ("bash", "id", "timeout"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))

    def said() -> str:
        done = subprocess.run(
            ["bash", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert said().startswith("Debian tools: NOT THERE: dcmtk (no apt-get) libgdcm-tools (no apt-get) ")
    for name in ("apt-get", "sudo"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 7\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")
    reason = "apt-get ended with 7" if os.getuid() == 0 else "neither root nor sudo"
    assert f" dicom3tools ({reason}) orthanc ({reason});" in said()
    for name in ("dcm2pnm", "gdcmconv", "dciodvfy", "Orthanc"):
        (tmp_path / name).symlink_to("/bin/sh")
    assert said() == ""


@pytest.mark.slow
@pytest.mark.process
def test_the_script_unpacks_verifies_compares_and_fails_with_another_hash(
    small_bundle: Path, tmp_path: Path
) -> None:
    if "bundle" not in importlib.metadata.entry_points(group="tumorseg.commands").names:
        pytest.skip("tumorseg was installed before it had the command `bundle`: install it again")
    digest = pack(small_bundle, tmp_path / "bundle.zip")
    program = tmp_path / "tumorseg"
    main = "from tumorseg_runtime.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{main}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)

    def workflow(sha256: str, out: str) -> subprocess.CompletedProcess[str]:
        variables = {"BUNDLE": "bundle.zip", "SHA256": sha256, "OUT": out, "TUMORSEG": str(program)}
        return subprocess.run(
            ["bash", str(ROOT / ".ci/parity")],
            cwd=tmp_path,
            env={**os.environ, **variables, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = workflow(digest, "parity")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": parity holds: " in done.stdout.splitlines()[-1]
    suite = ElementTree.parse(tmp_path / "parity/parity.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").startswith("# Parity with PyTorch")
    wrong = workflow("0" * 64, "other")
    assert wrong.returncode == 2
    assert "expected 0000" in wrong.stderr
    assert not (tmp_path / "other/bundle").exists()
