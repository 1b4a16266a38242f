#!/bin/bash
# Interrupted runs. A run that is killed (kill -9) at random moments and continued with --resume
# ends in the same bytes as one that nobody disturbed; until then the output is the old file, whole.
# A pass that breaks leaves a state, and the command printed comes to the same place.
# (Signals that ask to stop: tests/cli/trouble.test.) Usage: resume.sh EHAPC [SEED]
set -u
ehapc=$(realpath "$1"); RANDOM=${2:-1}
examples=$(realpath "$(dirname "$0")/../../examples")
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir" || exit 1
fail() { echo "FAIL: $*"; cat err 2>/dev/null; ls -l; exit 1; }

cp "$examples/fashion_resnet.onnx" in.onnx
head -c $((785 * 200)) in.onnx > some.bin   # any bytes are images
job=(in.onnx --data some.bin --criterion l2 --flops 0.6 --steps 6 --threads 1 -o)

# Killed over and over, at most 20 times; later kills come later, so that passes get done. Under
# mpirun it is one of the ranks that is killed.
victim() {
  local ranks; ranks=($(pgrep -P "$1" -f "$ehapc"))
  [ ${#ranks[@]} = 0 ] && echo "$1" || echo "${ranks[RANDOM % ${#ranks[@]}]}"
}
killed() { # name, what runs ehapc (or nothing) --, the job
  local name=$1 before=() kills=0 status=137 ms pid; shift
  while [ "$1" != -- ]; do before+=("$1"); shift; done; shift
  "$ehapc" "$@" whole.onnx > /dev/null 2> err || fail "$name: the undisturbed run"
  echo old > old; cp old out.onnx; rm -rf state
  while [ $status != 0 ]; do
    "${before[@]}" "$ehapc" "$@" out.onnx --resume state > /dev/null 2> err & pid=$!
    ms=$((RANDOM % (200 + 100 * kills)))
    if [ $kills != 20 ]; then
      sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
      kill -9 "$(victim $pid)" 2> /dev/null
    fi
    wait $pid 2> /dev/null; status=$?
    [ $status = 0 ] && break
    [ $status = 137 ] || [ ${#before[@]} != 0 ] || fail "$name: the resumed run ended with $status"
    kills=$((kills + 1))
    [ $kills -le 20 ] || fail "$name: it does not end"
    cmp -s out.onnx old || cmp -s out.onnx whole.onnx ||
      fail "$name: a torn output after kill $kills"
  done
  cmp out.onnx whole.onnx || fail "$name: other bytes after $kills kills"
  compgen -G "out.onnx*.tmp" > /dev/null && fail "$name: files are left"
  echo "$name: killed $kills times, the same bytes"
}

killed "the job" -- "${job[@]}"
# Without what cannot be understood in its middle (the 4th Relu is an operator that nobody knows).
LC_ALL=C perl -0777 -pe 's/\x22\x04Relu/++$n == 4 ? "\x22\x04Rexu" : $&/ge' in.onnx > tail.onnx
for seed in 1 2 3; do
  RANDOM=$seed; killed "with a tail, seed $seed" -- tail.onnx "${job[@]:1}"
done
for target in tensorrt openvino qnn portable; do
  killed "for $target" -- "${job[@]:0:${#job[@]}-1}" --target $target -o
done
if command -v mpirun > /dev/null && ldd "$ehapc" | grep -q libmpi; then
  for seed in 1 2; do
    RANDOM=$seed
    killed "3 ranks, seed $seed" mpirun --allow-run-as-root --oversubscribe --bind-to none -n 3 -- \
      "${job[@]}"
  done
fi
killed "the job" -- "${job[@]}"

# Another model, other data or other options do not go on from that state.
refused() {
  "$ehapc" "${job[@]}" out.onnx --resume state "$@" 2> err && fail "another run went on"
  grep -q "state of another model, other data or other options" err || fail "no message"
}
refused --seed 3
cp -p some.bin kept.bin; printf x | dd of=some.bin conv=notrunc 2> /dev/null; refused
mv kept.bin some.bin

# The output says by which scores its channels were chosen.
grep -qaP 'ehapc\.criterion\x12\x02l2' whole.onnx || fail "no criterion in the output"
grep -qaP 'ehapc\.scores\x12\x10[0-9a-f]{16}' whole.onnx || fail "no digest of scores in the output"

# A broken invariant: a dump, and a command that works.
EHAPC_TEST_TRAP=reconstruct "$ehapc" "${job[@]}" crash.onnx > /dev/null 2> err
[ $? = 4 ] && [ ! -e crash.onnx ] || fail "a trap is exit 4 without an output"
grep -q "the state before pass 'reconstruct' is in ehapc-crash/" err || fail "no dump"
command=$(sed -n 's/^note: to reproduce: //p' err); [ -n "$command" ] || fail "no command"
EHAPC_TEST_TRAP=reconstruct eval "$command" > /dev/null 2> err; [ $? = 4 ] || fail "not reproduced"
grep -q "going on after 'remove-channels'" err || fail "the reproduction began anew"
eval "$command" > /dev/null 2> err || fail "the command does not run"
cmp crash.onnx whole.onnx || fail "other bytes from the dump"
echo "resumed, each time to the same bytes"
