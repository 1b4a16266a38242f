#!/bin/bash
# Interrupted runs. A run that is killed (kill -9) at random moments and continued with --resume ends
# in the same bytes as one that nobody disturbed; until then the output is the old file, whole. A pass
# that breaks leaves a state, and the command printed comes to the same place. A signal that asks
# to stop leaves no temporary file. Usage: resume.sh EHAPC [SEED]
set -u
ehapc=$(realpath "$1"); RANDOM=${2:-1}
examples=$(realpath "$(dirname "$0")/../../examples")
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir" || exit 1
fail() { echo "FAIL: $*"; cat err 2>/dev/null; ls -l; exit 1; }

cp "$examples/fashion_resnet.onnx" in.onnx
head -c $((785 * 200)) in.onnx > some.bin   # any bytes are images
job=(in.onnx --data some.bin --criterion l2 --flops 0.6 --steps 6 --threads 1 -o)

"$ehapc" "${job[@]}" whole.onnx > /dev/null 2> err || fail "the undisturbed run"

# Killed over and over, at most 20 times; later kills come later, so that passes get done.
echo old > out.onnx; kills=0; status=137
while [ $status = 137 ]; do
  "$ehapc" "${job[@]}" out.onnx --resume state > /dev/null 2> err & pid=$!
  ms=$((RANDOM % (200 + 100 * kills)))
  [ $kills = 20 ] || { sleep $((ms / 1000)).$(printf %03d $((ms % 1000))); kill -9 $pid 2> /dev/null; }
  wait $pid 2> /dev/null; status=$?
  if [ $status = 137 ]; then
    kills=$((kills + 1))
    [ "$(cat out.onnx)" = old ] || cmp -s out.onnx whole.onnx || fail "a torn output after kill $kills"
  fi
done
[ $status = 0 ] || fail "the resumed run ended with $status"
cmp out.onnx whole.onnx || fail "other bytes after $kills kills"
echo "killed $kills times, the same bytes"

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

# SIGTERM and SIGINT.
for signal in TERM INT; do
  rm -f ./*.tmp stopped.onnx
  (trap - INT; exec "$ehapc" "${job[@]}" stopped.onnx > /dev/null 2> err) & pid=$!
  sleep 0.5; kill -$signal $pid; wait $pid; status=$?
  [ $signal = TERM ] && want=143 || want=130
  # A shell starts background jobs with SIGINT ignored, and ehapc leaves it so.
  [ $signal = INT ] && [ $status = 0 ] && continue
  [ $status = $want ] || fail "SIG$signal: exit $status"
  grep -q "^error: interrupted" err || fail "SIG$signal: no message"
  ls ./*.tmp stopped.onnx 2> /dev/null && fail "SIG$signal: files are left"
done
echo "stopped cleanly"
