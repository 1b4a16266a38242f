/* Every option that takes numbers refuses what is none, or is none that it can mean, and names
 * itself and the value; what is at its bounds is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ehap.h"
#include "tools/options.h"

static char said[512];

static void remember(void *ctx, int severity, const char *text)
{
    (void)ctx, (void)severity;
    snprintf(said, sizeof said, "%s", text);
}

static void refuses(const char *option, const char *value)
{
    ehap *e = ehap_new(remember, NULL);
    said[0] = '\0';
    const int status = ehap_set(e, option, value);
    ehap_free(e);
    if (status != EHAP_USAGE) fail_msg("--%s '%s' is taken", option, value);
    if (!strstr(said, option) || !strstr(said, value))
        fail_msg("--%s '%s': %s", option, value, said);
}

static void takes(const char *option, const char *value)
{
    ehap *e = ehap_new(remember, NULL);
    const int status = ehap_set(e, option, value);
    ehap_free(e);
    if (status != EHAP_OK) fail_msg("--%s '%s' is refused: %s", option, value, said);
}

static void nonsense(void **state)
{
    static const char *const values[] = {
        "",   "nan", "-nan", "inf", "-inf", "infinity", "-1e9", "1e30", "1e400", "-1e400", "x",
        "1x", "1 2", "1,5",  " ",   "--",   "0x",       "1e",   "+",    "1.5.2", "1e19"};
    (void)state;
    int n = 0;
    for (const char *name; (name = option_of_number(n)); n++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) refuses(name, values[k]);
    assert_true(n >= 17);
}

/* Those whose numbers are whole, or not below zero. */
static void out_of_range(void **state)
{
    static const struct {
        const char *name, *bad[4], *good[3];
    } cases[] = {
        {"flops", {"0", "-0.5", "1.0001"}, {"1", "1e-6"}},
        {"params", {"0", "2"}, {"0.5"}},
        {"channels", {"0", "2"}, {"0.5"}},
        {"probes", {"0", "1.5", "1000001"}, {"1", "1000000"}},
        {"batch", {"0", "-4", "2.5", "1000001"}, {"1", "128"}},
        {"rounds", {"0", "101"}, {"100"}},
        {"align", {"0", "1025"}, {"1"}},
        {"steps", {"-1", "0.5", "1000000001"}, {"0", "1e9"}},
        {"epochs", {"-0.1", "1000001"}, {"0", "0.25"}},
        {"time", {"0", "-1s", "1e10s", "5d"}, {"90", "1.5h", "10m"}},
        {"lr", {"-0.1", "101"}, {"0.1"}},
        {"weight-bits", {"6", "9", "7.5"}, {"7", "8"}},
        {"quant-drop", {"-1"}, {"0.01"}},
        {"least-sqnr", {"-1001", "1001"}, {"-1000", "20"}},
        {"least-output", {"-1001", "1001"}, {"-1000", "20"}},
        {"seed", {"-1", "0.5", "1e16"}, {"0", "7"}},
        {"threads", {"0", "4097"}, {"1"}},
        {"memory", {"0", "-1G", "2X", "1e12G"}, {"512M", "2g", "1000000"}},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        for (int i = 0; i < 4 && cases[k].bad[i]; i++) refuses(cases[k].name, cases[k].bad[i]);
        for (int i = 0; i < 3 && cases[k].good[i]; i++) takes(cases[k].name, cases[k].good[i]);
    }
}

static void preprocess(void **state)
{
    static const char *const bad[] = {"scale=0",    "scale=nan",
                                      "scale=inf",  "scale=1e300",
                                      "scale=1/0",  "scale=1e-300",
                                      "scale=",     "mean=x",
                                      "mean=1:nan", "std=0",
                                      "std=-1",     "std=1:0:1",
                                      "std=1e-300", "mean=1:2,std=1:2:3",
                                      "mean=1e300", "size=0",
                                      "size=-3",    "size=1e3",
                                      "size=99999", "size=224x",
                                      "resize=0",   "resize=2x3",
                                      "layout=chw", "what=1"};
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        ehap *e = ehap_new(remember, NULL);
        said[0] = '\0';
        const int status = ehap_set(e, "preprocess", bad[k]);
        ehap_free(e);
        if (status != EHAP_USAGE || !strstr(said, "--preprocess"))
            fail_msg("--preprocess '%s': %s", bad[k], said);
    }
    takes("preprocess",
          "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,resize=256,size=224");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense),
        cmocka_unit_test(out_of_range),
        cmocka_unit_test(preprocess),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
