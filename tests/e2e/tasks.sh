#!/bin/bash
# Detector, segmenter, regressor, classifier, reader of sequences without labels (tasks.c): what is
# learned from, what is ignored, and that both are said; --distill and --quant-drop.
# Usage: tasks.sh EHAPC TASKS
set -euo pipefail
ehapc=$(realpath "$1"); tasks=$(realpath "$2")
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
fail() { echo "FAIL $*"; cat err; exit 1; }
# 64 samples of [2,8,8], of whatever bytes the program has.
printf '\0\0\10\4\0\0\0\100\0\0\0\2\0\0\0\10\0\0\0\10' > x-ubyte
{ tail -c +20000 "$ehapc" | head -c 8192 || true; } >> x-ubyte
data="--data x-ubyte --preprocess scale=1/255"
for net in regressor segmenter detector classifier reader; do "$tasks" $net $net.onnx; done
compress() { # status, words
  local want=$1 status=0; shift
  "$ehapc" "$@" $data --batch 16 --threads 1 --json o.json >out 2>err || status=$?
  [ $status = "$want" ] || fail "ehapc $*: exit $status"
}
ignored() { tr -d '\n\t' < o.json | grep -o '"outputs_ignored":\[[^]]*\]'; }

ignores() { # network, the outputs that are ignored
  compress 0 $1.onnx -o $1.o.onnx --flops 0.6 --steps 4
  [ "$(ignored)" = "\"outputs_ignored\":[$2]" ] || fail "$1 ignores $(ignored), not $2"
  "$ehapc" lint $1.o.onnx >out 2>lint.err || { cat out; fail "$1 breaks rules"; }
}
ignores regressor ""
ignores classifier ""
ignores reader ""
grep -q "equal to the network with those channels zeroed" err || fail "no hidden unit went"
ignores segmenter '"mask"'
grep -q "output 'mask' is int64: training ignores it" err || fail "nothing is said of 'mask'"
ignores detector '"order", "selected"'
grep -q "output 'order' is int64: training ignores it" err || fail "nothing is said of 'order'"
grep -q "'selected' (NonMaxSuppression) is not known or of no fixed size" err ||
  fail "nothing is said of 'selected'"

# Named values, outputs or inner ones, in place of all outputs; the same ones give the same bytes.
for names in boxes boxes,scores features; do
  compress 0 detector.onnx -o $names.onnx --flops 0.6 --steps 4 --distill $names
  cmp -s $names.onnx detector.o.onnx && [ $names != boxes,scores ] &&
    fail "--distill $names changes nothing"
done
compress 0 classifier.onnx -o c1.onnx --flops 0.6 --steps 4 --distill features --distill logits
compress 0 classifier.onnx -o c2.onnx --flops 0.6 --steps 4 --distill features,logits
cmp c1.onnx c2.onnx || fail "--distill twice is not the list"
compress 2 detector.onnx -o none.onnx --distill boxes,feature
grep -q "the model has no value 'feature'" err || fail "a value that is not there"
compress 2 detector.onnx -o none.onnx --distill order
grep -q "'order' is int64, and only floats can be learned" err || fail "an index output"
# What is folded away is refused before any work, what takes its place is learned from.
"$tasks" normalized normalized.onnx
compress 2 normalized.onnx -o none.onnx --distill raw
grep -q "name 'normed' instead" err || fail "a value that is folded away"
compress 0 normalized.onnx -o normed.onnx --steps 4 --distill normed
[ ! -e none.onnx ] || fail "a file after an error"

# A quantized model is not quantized again: what would lay it out anew is named.
compress 3 quantize normed.onnx -o none.onnx
grep -q "ehapc requantize" err || fail "a quantized model"

# A regressor has an error, no agreement.
compress 0 regressor.onnx -o regressor.o.onnx --flops 0.6 --steps 4
grep -q '"relative_error"' o.json && ! grep -q '"agreement"' o.json ||
  fail "the error of a regressor"
grep -q "error of the outputs: .* output" out || fail "the error of a regressor"

# Without data, at a rate far too high: training ends no further from the original than it began.
"$tasks" patches patches.onnx
number() {
  tr -d '\n\t' < o.json | sed "s/.*\"$1\":{//" | tr ',}' '\n\n' | sed -n "s/^\"$2\"://p" | head -1
}
"$ehapc" patches.onnx -o patches.o.onnx --json o.json --flops 0.85 --lr 0.05 --steps 120 \
  --threads 1 >out 2>err || fail "patches: exit $?"
awk -v a="$(number relative_error reconstructed)" -v b="$(number relative_error trained)" \
  'BEGIN { exit !(a > 0 && b > 0 && b <= a) }' || { cat out; fail "patches: made worse"; }
[ "$(grep -c '"kept_step"' o.json)" = 2 ] || fail "patches: no kept steps"

# Layers whose cost is above the limit stay in float: as many as the report lists above it.
compress 0 quantize segmenter.onnx -o all.onnx --steps 0 --quant-drop 1e9
costs=$(tr ',}' '\n\n' < o.json | sed -n 's/.*"cost":[[:space:]]*//p' | sort -g)
n=$(wc -l <<<"$costs"); [ "$n" -ge 4 ] || fail "costs: $costs"
# A little more: 15 digits may be below it.
limit=$(sed -n 2p <<<"$costs" | awk '{ printf "%.17g", $1 * (1 + 1e-9) }')
compress 0 quantize segmenter.onnx -o some.onnx --steps 0 --quant-drop "$limit"
[ "$(grep -c '"in_float"' o.json)" = $((n - 2)) ] || fail "--quant-drop $limit of $costs"
remarks=$(grep -c 'stays in float: quantized alone it moves the outputs' err || true)
[ "$remarks" = $((n - 2)) ] || fail "remarks"
[ "$("$ehapc" lint some.onnx | grep -c 'Conv): integer')" = 2 ] || fail "integers in some.onnx"
echo "tasks: all as it should be"
