#!/bin/sh
# benchmarks/gpu.py on a machine that has a GPU and no internet, as one prepared command, from the repository's root:
#
#     sh benchmarks/gpu_on_device.sh [--bundle FOLDER]... [OPTIONS OF gpu.py]
#
# FOLDER holds the wheels of `make bundle`, or the parts of `make bundle PART_MB=60`; several are put together. They are
# installed beside the Python that is there, whose torch stays. The JSON and the log go to $OUT, or here.
# PYTHON chooses the Python (python3); LOPSIDED_COMMIT says which commit this is where there is no git.
set -eu

bundles="" site="${TMPDIR:-/tmp}/lopsided-site" out="${OUT:-.}" python="${PYTHON:-python3}"
while [ "${1:-}" = --bundle ]; do
    [ -d "${2:-}" ] || { echo "gpu_on_device.sh: --bundle: folder not found: ${2:-}" >&2; exit 2; }
    bundles="$bundles $2"
    shift 2
done

if [ -n "$bundles" ]; then
    unpacked=$(mktemp -d)
    for folder in $bundles; do
        find "$(cd "$folder" && pwd)" -name '*.tar.part-*' -exec ln -sf {} "$unpacked" \;
    done
    if ls "$unpacked"/*.tar.part-* >/dev/null 2>&1; then
        cat "$unpacked"/*.tar.part-* | tar -xf - -C "$unpacked"
        bundles="$bundles $unpacked"
    fi
    # --no-deps: these are all that is needed but torch, of whatever version the machine's own is.
    # shellcheck disable=SC2086 - names of folders and wheels hold no spaces
    wheels=$(find $bundles -name '*.whl' ! -name 'torch*' ! -name 'nvidia_*' ! -name 'triton-*')
    [ -n "$wheels" ] || { echo "gpu_on_device.sh: --bundle: no wheels and no parts in$bundles" >&2; exit 2; }
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" $wheels
    PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
# This working tree, not the wheel of it; lines are not held back, so that a run that is ended has said them.
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PATH="$site/bin:$PATH" PYTHONUNBUFFERED=1
export PYTHONPATH PATH PYTHONUNBUFFERED
# The start-up line that shows nnU-Net our trainers is not read in a --target folder.
eval "$("$python" -c 'from nnunet_lopsided.commands.env import main; main([])')"
exec "$python" benchmarks/gpu.py --out "$out/gpu.json" "$@"
