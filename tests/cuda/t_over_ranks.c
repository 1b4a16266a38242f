/* Several processes with a device each, under mpirun: sums between the devices give what the CPUs'
 * exchange gives, the same on every rank, and nothing else leaves a device. */
#include "tests/cuda/logged.h"
#include "tests/cuda/trained.h"

#include "passes/score/scores.h"

/* Whether n bytes are the same on every rank. */
static void must_agree(const void *x, size_t n)
{
    const size_t padded = (n + 63) & ~(size_t)63;
    char *mine = calloc(1, padded), *all = malloc(padded * (size_t)ranks_count());
    assert_true(mine && all);
    memcpy(mine, x, n);
    ranks_exchange(mine, padded, all);
    for (int r = 0; r < ranks_count(); r++)
        assert_memory_equal(all + (size_t)r * padded, mine, padded);
    free(mine);
    free(all);
}

static void test_training(void **state)
{
    (void)state;
    static const Training how[] = {
        {true, false, 48, "optimizer=sgd;lr=0.05;qat=0"},
        {false, true, 48, "ranges=moving-average"},
        {true, false, 48, "optimizer=sgd;lr=0.05;qat=0;precision=fp16;loss-scale=1e12"},
    };
    static float want[4096], got[4096];
    for (int k = 0; k < 3; k++) {
        const int64_t n = trained(want, &how[k], "cpu", 5);
        assert_int_equal(trained(got, &how[k], "cuda-deterministic", 5), n);
        assert_true(count("over_ranks") > 0);
        must_say("op 0 in order");
        if (k == 1) must_say("over_ranks 1 op 2"); /* extremes of ranges */
        must_agree(got, (size_t)n * sizeof *got);
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(got[i] - want[i]) <= (k == 2 ? 0.02F : 2e-4F) * (1 + fabsf(want[i]))))
                fail_msg("training %d: element %lld is %g instead of %g", k, (long long)i,
                         (double)got[i], (double)want[i]);
    }
}

static void test_scores(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "cuda-deterministic", "cuda-deterministic"};
    Arena *a = arena_new();
    Diag d = diag_stderr("test");
    Scores *s[3];
    for (int k = 0; k < 3; k++) {
        Context c = small_context(a, &d, false);
        c.opt.device = devices[k];
        forget();
        assert_int_equal(pass_sensitivity(&c, "criterion=ehap;probes=16;batch=48"), 0);
        s[k] = c.scores;
    }
    must_say("over_ranks 176 op 0 in order");     /* 16 probes of 11 channels */
    assert_int_equal(count("download 704\n"), 0); /* and no row of them came down */
    for (int l = 0; l < s[0]->nlayers; l++) {
        const size_t bytes = (size_t)s[0]->layers[l].n * sizeof(double);
        assert_memory_equal(s[1]->layers[l].score, s[2]->layers[l].score, bytes);
        must_agree(s[1]->layers[l].score, bytes);
        for (int c = 0; c < s[0]->layers[l].n; c++) {
            const double x = s[0]->layers[l].score[c], y = s[1]->layers[l].score[c];
            assert_true(fabs(x - y) <= 1e-3 * (1e-3 + fabs(x)));
        }
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_training),
                                       cmocka_unit_test(test_scores)};
    ranks_start();
    if (mkstemp(path) < 0) return 1;
    setenv("EHAP_EMULATED_LOG", path, 1);
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    ranks_finish(failures);
    return failures;
}
