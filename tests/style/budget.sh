#!/bin/sh
# Sources stay small: files of at most 650 lines, functions of at most 60. A function is what
# clang-format's style leaves between a `{` and a `}` in the first column. Usage: budget.sh ROOT
cd "${1:?root}" || exit 2
find ir frontend runtime passes backend tools tests include \
    -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' |
    sort | xargs awk '
    FNR == 1 { if (file) check_file(); file = FILENAME; start = 0 }
    { lines = FNR }
    /^\{/ { start = FNR - 1 }
    /^\}/ {
        if (start && FNR - start + 1 > 60) {
            printf "%s:%d: a function of %d lines (at most 60)\n", FILENAME, start, FNR - start + 1
            bad = 1
        }
        start = 0
    }
    END { check_file(); exit bad }
    function check_file() {
        if (lines <= 650) return
        printf "%s: %d lines (at most 650)\n", file, lines
        bad = 1
    }'
