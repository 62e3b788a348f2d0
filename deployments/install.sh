#!/usr/bin/env bash
# Make or complete the environment: install.sh FOLDER EXTRAS. Locked by constraints.txt.
set -euo pipefail
venv=$1 extras=$2 log=$1/install.log

find_python() {
  local name
  for name in python3.12 python3.11 python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "symbio needs Python 3.11 or 3.12; found $(python3 --version 2>&1 || echo none)." >&2
  echo "Install it (for example: apt install python3.11 python3.11-venv) and run make again." >&2
  return 1
}

quietly() {
  "$@" >>"$log" 2>&1 || {
    echo "That failed; the end of $log:" >&2
    tail -n 20 "$log" >&2
    return 1
  }
}

# Half-made or broken environments are made anew; whole ones are completed.
if [ ! -e "$venv/.ready" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  python=$(find_python)
  echo "symbio: making $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi

pip=("$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt)
torch=$(grep '^torch==' constraints.txt)
has_torch='import sys, torch; sys.exit(torch.__version__.split("+")[0] != sys.argv[1])'
if ! "$venv/bin/python" -c "$has_torch" "${torch#torch==}" 2>/dev/null; then
  index=()
  if [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then
    # The plain wheel for Linux carries gigabytes of CUDA. The CPU build sorts above it, so it is
    # taken where PyTorch's own index answers; where it does not, whatever pip finds will do.
    index=(--extra-index-url https://download.pytorch.org/whl/cpu --retries 1 --timeout 20)
  fi
  echo "symbio: installing $torch"
  quietly "${pip[@]}" --no-deps "$torch" ${index[@]+"${index[@]}"}
fi
echo "symbio: installing symbio with ${extras//,/, } (a minute or two the first time)"
quietly "${pip[@]}" "$(grep '^setuptools==' constraints.txt)"
quietly "${pip[@]}" --no-build-isolation --editable ".[$extras]"
