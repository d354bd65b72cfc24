#!/usr/bin/env bash
# environment.sh FOLDER PYTHON: FOLDER/venv with onnxruntime-gpu, cuda-bindings and NVRTC, and FOLDER/stubs with TensorRT's signatures, which
# beside tensorrt_rtx would look like an installed tensorrt.
# onnxruntime-gpu needs Python 3.11 for CUDA 13, and never lies beside onnxruntime: the files have the same names.
set -euo pipefail
folder=$1 python=$2
rm -f "$folder/ready"
mkdir -p "$folder"
test -x "$folder/venv/bin/python" || "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'onnxruntime-gpu>=1.28' 'numpy>=1.24' \
  'cuda-bindings>=13.0' 'nvidia-cuda-nvrtc>=13.0' \
  'opencv-python-headless>=4.9' 'click>=8.1' 'pydantic>=2.9'
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
  --target "$folder/stubs" 'tensorrt-stubs>=10.13'
command -v gcc >/dev/null # it and nm build the stub libraries
command -v nm >/dev/null
touch "$folder/ready"
