/* Channels of real networks: how many classes may be removed from each, which stream of a CIFAR
 * ResNet is part of which, and that removing a third of them equals zeroing it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "lane_nets.h"
#include "passes/prune/remove_channels.h"
#include "tests/removal.h"

/* ResNet-20 with zero-padded shortcuts: the stream of 16 channels is part of that of 32, and that
 * of 64, so there are 64 streams and 3*16 + 3*32 + 3*64 inner channels. */
static const struct {
    const char *file;
    int removable;
    bool resnet20;
} models[] = {
    {"resnet20_cifar10_folded_op17.onnx", 64 + 336, true},
    {"resnet20_cifar10_folded_op13_b1.onnx", 64 + 336, true},
    {"resnet20_cifar10_bn_op17.onnx", 64 + 336, true},
    {"resnet20_cifar10_dynamo_op18.onnx", 64 + 336, true},
    {"fmnist_mobilenetv2s_bn_op17.onnx", 1288, false},
    {"digits_vit_op17.onnx", 3 * (16 + 128), false},
    {"fmnist_vit_op17.onnx", 4 * (2 * 16 + 256), false},
};

static const char *shared_dir(void)
{
    const char *dir = getenv("EHAP_SHARED");
    return dir ? dir : TEST_DIR "/../../shared";
}

static Graph *read_model(Arena *a, const char *file)
{
    Graph *g = NULL;
    Diag d = diag_stderr(file);
    const char *path = arena_printf(a, "%s/models/%s", shared_dir(), file);
    assert_int_equal(onnx_read(&g, a, path, &d), 0);
    return g;
}

/* Convolutions come in the order of the network: the stem, then two for each of nine blocks. The
 * stream is what the stem and the second of each block write. */
static void check_streams(Graph *g, Lanes *l)
{
    const Value *w[32];
    int n = 0;
    for (int i = 0; i < g->nnodes && n < 32; i++)
        if (g->nodes[i]->op == OP_Conv) w[n++] = g->nodes[i]->in[1];
    assert_int_equal(n, 19);
    for (int k = 2; k < n; k += 2) {
        const Value *previous = w[k - 2];
        int64_t wide = w[k]->type.dim[0], narrow = previous->type.dim[0], at = (wide - narrow) / 2;
        for (int64_t i = 0; i < narrow; i++)
            assert_int_equal(lanes_class(l, previous, 0, i), lanes_class(l, w[k], 0, at + i));
        for (int64_t i = 0; i < w[k - 1]->type.dim[0]; i++) {
            assert_int_equal(lanes_class(l, w[k - 1], 0, i), lanes_class(l, w[k], 1, i));
            assert_int_not_equal(lanes_class(l, w[k - 1], 0, i), lanes_class(l, w[k], 0, i));
        }
    }
}

static void check_removal(Graph *g, Lanes *l, Arena *a)
{
    int chosen;
    double worst = -1;
    Diag d = diag_stderr(NULL);
    const bool *removed = random_removal(l, a, 5, &chosen);
    int64_t before = graph_flops(g);
    Graph *masked = channels_masked(g, l, removed, a);
    assert_int_equal(channels_remove(g, l, removed, &d), 0);
    assert_true(graph_flops(g) < before);
    assert_int_equal(graphs_differ(&worst, masked, g, NULL, 1, &d), 0);
    assert_true(worst <= 1e-5);
}

static void test_models(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        Arena *a = arena_new();
        Graph *g = read_model(a, models[k].file);
        Lanes *l = lanes_new(g, a);
        lanes_run(l);
        if (count_removable(l) != models[k].removable)
            fail_msg("%s: %d removable classes, wanted %d", models[k].file, count_removable(l),
                     models[k].removable);
        if (models[k].resnet20) check_streams(g, l);
        check_removal(g, l, a);
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models)};
    char probe[512];
    snprintf(probe, sizeof probe, "%s/models/%s", shared_dir(), models[0].file);
    if (access(probe, R_OK) != 0) {
        printf("skipped: %s is not there (set EHAP_SHARED)\n", probe);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
