# Sourced by the scripts of this folder, which start in the repository's root.
#   part NAME COMMAND …   runs a command and prints its seconds
#   find_python VERSION   prints the Python of this version, from the path or from pyenv
#   $work                 a temporary folder, removed at the end
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

part() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - start)) s"
}

find_python() {
    local python
    for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [[ $("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2> /dev/null) == "$1" ]]; then
            echo "$python"
            return
        fi
    done
    echo "Python $1 is not installed" >&2
    return 1
}
