#!/usr/bin/env bash
# Run every check, each to its end, and fail where one failed.
# The host changes the Qt classes of its whole process, so each folder of tests gets a process of its own.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A test never needs a display; images are the same with and without one.
export QT_QPA_PLATFORM=offscreen VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow
python=.venv/bin/python
failed=()

check() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

check_style() {
    check "ruff check" "$python" -m ruff check
    check "ruff format" "$python" -m ruff format --check
    check "mypy" "$python" -m mypy
}

check_tests() {
    local folder
    for folder in Testing/Lib Testing/CMake Testing/Host Testing/Panel; do
        check "$folder" "$python" -m pytest -q "$folder"
    done
}

case "${1:-all}" in
    style) check_style ;;
    tests) check_tests ;;
    all) check_style && check_tests ;;
    *) echo "unknown check '$1': choose style, tests or all" >&2 && exit 2 ;;
esac

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nfailed:'
    printf ' [%s]' "${failed[@]}"
    printf '\n'
    exit 1
fi
printf '\nall checks passed\n'
