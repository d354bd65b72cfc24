#!/usr/bin/env bash
# environment.sh KIND FOLDER PYTHON: FOLDER/KIND, an environment for ray or triton over the one of PYTHON, whose packages it
# sees and never changes, with the code of this repository. FOLDER/KIND/ready stands there when it is whole.
# By a .pth file, since Triton's Python backend takes no PYTHONPATH.
set -euo pipefail
kind=$1 folder=$2 python=$3
case $kind in
ray) packages=('ray[data]>=2.40 pyarrow>=17') ;;
# Of nvidia-pytriton the server alone. Its stub reads arrays as numpy 1 lays them out: of numpy 2 it repeats the first byte.
triton) packages=('tritonclient[http,grpc]>=2.50 numpy<2' '--no-deps nvidia-pytriton>=0.7') ;;
*) echo "environment.sh: got $kind, expected ray or triton" >&2 && exit 2 ;;
esac
env=$folder/$kind
rm -f "$env/ready"
mkdir -p "$folder"
test -x "$env/bin/python" || "$python" -m venv --without-pip "$env"
site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
root=$(cd "$(dirname "$0")/../.." && pwd)
{
  printf '%s\n' "$root"/{train,export,runtime,benchmarks}
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
} >"$site/base.pth"
for one in "${packages[@]}"; do
  # shellcheck disable=SC2086  # a line of arguments
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check $one
done
touch "$env/ready"
