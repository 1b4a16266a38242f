# A few lines over CMake: what README's commands call.
#   make        the release build
#   make demo   the main job on examples/fashion_resnet.onnx, with the before/after table
#   make check  every test, in a release build and under the sanitizers; fuzzers and benches compile
#   make bench  us and PyTorch, Torch-Pruning, ONNX Runtime in turn (an hour; wants quiet cores)
JOBS ?= $(shell nproc)
FASHION = /usr/share/datasets/fashion-mnist
export OMP_WAIT_POLICY = passive

all: deps
	cmake --preset release && cmake --build --preset release -j $(JOBS)

deps:
	cmake/install-deps.sh

demo: all
	build/release/tools/ehapc examples/fashion_resnet.onnx -o build/fashion_int8.onnx \
	  --data $(FASHION)/train-images-idx3-ubyte.gz --eval $(FASHION)/t10k-images-idx3-ubyte.gz \
	  --preprocess scale=1/255,mean=0.2860,std=0.3530 --flops 0.5 --steps 200 --json build/demo.json

check: all
	cmake --preset dev && cmake --build --preset dev -j $(JOBS)
	cmake --build --preset release -j $(JOBS) --target bench_kernels roofline
	if command -v clang; then cmake --preset fuzz && \
	  cmake --build --preset fuzz -j $(JOBS) --target fuzzers; fi
	ctest --test-dir build/dev -LE slow -j $(JOBS) --output-on-failure
	ctest --test-dir build/release -j $(JOBS) --output-on-failure

# BENCH passes on options: make bench BENCH="--only hvp --runs 5"
EHAP_SHARED ?= ../shared
bench: all
	@test -d $(EHAP_SHARED)/peers || { echo "skipped: no peers' scripts in $(EHAP_SHARED)"; exit 1; }
	cmake --build --preset release --target roofline
	test -x build/peers/bin/python || python3 -m venv build/peers
	build/peers/bin/pip install -q torch onnx onnxscript onnxruntime torch-pruning
	build/peers/bin/python tests/bench/bench.py build/release/tools/ehapc \
	  build/release/tests/bench/roofline $(EHAP_SHARED) -o docs/performance.md $(BENCH)

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build

.PHONY: all deps demo check bench format clean
