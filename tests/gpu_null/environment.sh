#!/usr/bin/env bash
# environment.sh FOLDER PYTHON: FOLDER/venv with onnxruntime-gpu, FOLDER/lib with the stub libraries for it, and
# FOLDER/stubs with TensorRT's signatures, which beside tensorrt_rtx would look like an installed tensorrt.
# onnxruntime-gpu needs Python 3.11 for CUDA 13, and never lies beside onnxruntime: the files have the same names.
set -euo pipefail
folder=$1 python=$2 here=$(cd "$(dirname "$0")" && pwd)
rm -f "$folder/ready"
mkdir -p "$folder"
test -x "$folder/venv/bin/python" || "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'onnxruntime-gpu>=1.28' 'numpy>=1.24' \
  'opencv-python-headless>=4.9' 'click>=8.1'
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
  --target "$folder/stubs" 'tensorrt-stubs>=10.13'
provider=$("$folder/venv/bin/python" -c 'import importlib.util as u, pathlib as p
print(p.Path(u.find_spec("onnxruntime").origin).parent / "capi" / "libonnxruntime_providers_cuda.so")')
rm -rf "$folder/lib"
"$folder/venv/bin/python" "$here/libraries.py" "$folder/lib" "$provider"
touch "$folder/ready"
