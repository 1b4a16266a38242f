/* Writes every network of lane_nets.h twice into a folder: K.removed.onnx without a random third of
 * its free channels, K.zeroed.onnx with those zeroed after every node. structures.py has ONNX
 * Runtime compare the two. */
#include <stdlib.h>

#include "backend/backend.h"
#include "passes/remove_channels.h"
#include "unit/lane_nets.h"

static bool *choose(Lanes *l, Arena *a, uint64_t seed, int *chosen)
{
    int n = lanes_count_classes(l);
    bool *removed = NEW_ARRAY(a, bool, n), pinned;
    Rng r = rng_new(seed, 1);
    for (int c = 0; c < n; c++) {
        lanes_pinned_by(l, c, &pinned);
        removed[c] = !pinned && rng_below(&r, 3) == 0;
        *chosen += removed[c];
    }
    return removed;
}

/* 1 if nothing was chosen or an axis would be left without channels, -1 after an error. */
static int write_pair(int k, uint64_t seed, const char *dir)
{
    Arena *a = arena_new();
    Diag d = {0}, loud = diag_stderr(lane_nets[k].name);
    Graph *g = graph_new(a, "net");
    lane_nets[k].build(g);
    Lanes *l = lanes_new(g, a);
    lanes_run(l);
    int chosen = 0;
    const bool *removed = choose(l, a, seed, &chosen);
    Graph *zeroed = channels_masked(g, l, removed, a);
    int status = !chosen || channels_remove(g, l, removed, &d) < 0;
    if (!status) status = onnx_write(g, arena_printf(a, "%s/%d.removed.onnx", dir, k), NULL, &loud);
    if (!status)
        status = onnx_write(zeroed, arena_printf(a, "%s/%d.zeroed.onnx", dir, k), NULL, &loud);
    if (!status) printf("%d %s\n", k, lane_nets[k].name);
    arena_free(a);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    for (int k = 0; k < LANE_NETS; k++) {
        int status = 1;
        for (uint64_t seed = 0; seed < 20 && status == 1; seed++)
            status = write_pair(k, seed, argv[1]);
        if (status) {
            fprintf(stderr, "%s: no pair\n", lane_nets[k].name);
            return 1;
        }
    }
    return 0;
}
