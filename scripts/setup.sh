#!/usr/bin/env bash
# Makes or completes the environment in .venv. Called by the Makefile; running it again continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv log=.venv/setup.log stamp=$1

# A second `make` beside this one waits instead of installing into the same folder.
if command -v flock > /dev/null; then
    exec 9> .setup.lock
    flock -n 9 || { echo "another set-up is running here; waiting for it"; flock 9; }
    if [[ -f $stamp && $stamp -nt constraints.txt && $stamp -nt pyproject.toml ]]; then exit 0; fi
fi

find_python() {
    local python
    for python in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$python"
            return
        fi
    done
    echo "set-up needs Python 3.11 or newer with its venv module; name one: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

# pip, with only the larger downloads shown; all it says is in the log.
install() {
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt "$@" 2>&1 |
        tee -a "$log" |
        { grep --line-buffered -oE '^ *Downloading [^ ]+ \([0-9.]+ [MG]B\)|^Installing collected packages' || true; } |
        sed -u -E 's|^ *|    |; s|https?://[^ ]*/||; s|Installing collected packages|installing (a minute or two)|'; then
        echo "set-up failed; the last lines of $log:" >&2
        tail -n 15 "$log" >&2
        return 1
    fi
}

started=$SECONDS
if ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    python=$(find_python)
    echo "set-up 1/3: $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
: > "$log"
# torch alone and first: whichever build the index offers under this version (a CPU one stays a CPU one) is settled
# before anything that depends on torch is looked at, and is not replaced by another with gigabytes of CUDA.
echo "set-up 2/3: torch"
install torch
echo "set-up 3/3: reglaj and the rest of constraints.txt"
install -e ".[dev,peers]"
touch "$stamp"
echo "set-up done in $((SECONDS - started)) s"
