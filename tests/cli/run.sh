#!/bin/bash
# Golden tests of the command line. Each case in *.test is
#     $ ehapc WORDS…          run in a scratch folder; $EXAMPLES is the examples folder, `bad NAME`
#                             writes bad_model.c's model NAME to bad.onnx
#     exit N                  expected status
#     out LINE / err LINE     the expected lines, in order; "…" alone stands for any lines
# Where ehapc fails there must be no o.onnx that was not there before, and no temporary file.
# Usage: run.sh EHAPC BAD_MODEL CASE.test…   (BLESS=1 rewrites the expectations)
set -u
ehapc=$(realpath "$1"); bad_model=$(realpath "$2"); shift 2
# A command without root's rights; and one that stands still in front of pass $1 until `kill -CONT`.
nobody() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}
stopped() {
  local pass=$1 tries=2400; shift
  env --default-signal=INT EHAPC_TEST_STOP="$pass" "$@" & pid=$!
  until grep -q '^State:.T' /proc/$pid/status 2>/dev/null || [ $((tries--)) = 0 ]; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
  done
}
bad() { "$bad_model" "$1" > bad.onnx; }
export EXAMPLES=$(realpath "$(dirname "$0")/../../examples")
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
failed=0; ran=0

# The lines of $2 in order in file $1, "…" skipping any.
matches() {
  awk -v want="$2" '
    BEGIN { n = split(want, w, "\n"); k = 1; if (want == "") n = 0; any = 0; bad = 0 }
    { while (k <= n && w[k] == "…") { any = 1; k++ }
      if (k <= n && $0 == w[k]) { k++; any = 0 } else if (!any) bad = 1 }
    END { while (k <= n && w[k] == "…") k++; exit bad || k <= n }' "$1"
}

check() { # command, exit, out, err
  ran=$((ran + 1)); rm -f "$scratch/o.onnx"
  (cd "$scratch" && ulimit -c 0 && eval "${1/ehapc/"$ehapc"}") >"$scratch/.out" 2>"$scratch/.err"
  local got=$?
  if [ -n "${BLESS:-}" ]; then
    { echo "\$ $1"; echo "exit $got"
      sed 's/^/out /' "$scratch/.out"; sed 's/^/err /' "$scratch/.err"; echo; } >>"$blessed"
  elif [ $got != "$2" ] || ! matches "$scratch/.out" "$3" || ! matches "$scratch/.err" "$4"; then
    failed=$((failed + 1))
    echo "FAIL $case: $1"; echo "  exit $got, expected $2"
    sed 's/^/  out /' "$scratch/.out"; sed 's/^/  err /' "$scratch/.err"
  elif [ $got != 0 ] &&
       { [ -e "$scratch/o.onnx" ] || compgen -G "$scratch/*.tmp" >/dev/null; }; then
    failed=$((failed + 1))
    echo "FAIL $case: $1: files are left"; ls "$scratch"
  fi
}

for case in "$@"; do
  blessed=$(mktemp); command=
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      '$ '*) [ -n "$command" ] && check "$command" "$exit_" "$out" "$err"
             command=${line#'$ '}; exit_=0; out=; err= ;;
      'exit '*) exit_=${line#exit } ;;
      'out '*) out+="${out:+$'\n'}${line#out }" ;;
      'err '*) err+="${err:+$'\n'}${line#err }" ;;
    esac
  done <"$case"
  [ -n "$command" ] && check "$command" "$exit_" "$out" "$err"
  if [ -n "${BLESS:-}" ]; then cp "$blessed" "$case"; fi
  rm -f "$blessed"
done
echo "$((ran - failed)) passed, $failed failed"
[ $failed = 0 ]
