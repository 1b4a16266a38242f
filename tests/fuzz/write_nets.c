/* Writes random networks for random_nets.py to judge: write_nets DIR COUNT SEED
 *   K.onnx          the network
 *   K.removed.onnx  without a random third of its free channels, K.zeroed.onnx with those zeroed
 *                   after every node; both are missing where nothing was chosen or nothing may go
 */
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "passes/prune/remove_channels.h"
#include "runtime/runtime.h"
#include "tests/fuzz/random_net.h"
#include "tests/removal.h"

enum { BYTES = 96 };

static Graph *make(Arena *a, uint64_t seed)
{
    uint8_t bytes[BYTES];
    Rng r = rng_new(seed, 0);
    size_t n = 16 + (size_t)rng_below(&r, BYTES - 16);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)rng_below(&r, 256);
    return random_net(a, bytes, n);
}

static int write_pair(Arena *a, Graph *g, uint64_t seed, const char *stem, Diag *d)
{
    int chosen;
    Diag quiet = {0};
    Lanes *l = lanes_new(g, a);
    lanes_run(l);
    const bool *removed = random_removal(l, a, seed, &chosen);
    Graph *zeroed = channels_masked(g, l, removed, a);
    if (!chosen || channels_remove(g, l, removed, &quiet) < 0) return 0;
    TRY(onnx_write(g, arena_printf(a, "%s.removed.onnx", stem), NULL, d));
    return onnx_write(zeroed, arena_printf(a, "%s.zeroed.onnx", stem), NULL, d);
}

static int write_net(const char *dir, int k, uint64_t seed)
{
    Arena *a = arena_new();
    Diag d = diag_stderr("random network");
    Graph *g = make(a, seed);
    const char *stem = arena_printf(a, "%s/%d", dir, k);
    int status = onnx_write(g, arena_printf(a, "%s.onnx", stem), NULL, &d);
    if (status == 0) status = write_pair(a, g, seed, stem, &d);
    arena_free(a);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    for (int k = 0; k < atoi(argv[2]); k++)
        if (write_net(argv[1], k, (uint64_t)atoll(argv[3]) + (uint64_t)k) < 0) return 1;
    return 0;
}
