/* The options: one table for the command line, the library and the help text. */
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ir/digest.h"
#include "tools/options.h"
#include "tools/session.h"

typedef enum Kind {
    STRING,
    LIST,
    CHOICE,
    INT,
    LONG,
    NUMBER,
    REAL,
    SIZE,
    DURATION,
    SWITCH,
    BUDGET,
    PREPROCESS
} Kind;

/* "|gate-ggn|gate-fisher|…" */
static const char criteria[] =
#define CRITERION(name, function, groups, samples, help) "|" name
#include "passes/score/criteria.def"
#undef CRITERION
    "";

static const char target_names[] = "ort|tensorrt|openvino|qnn|portable";

/* One line per flag; the argument of a CHOICE lists what it may be: name, argument, kind, where it
 * goes, least and largest value, help. */
#define OPT(field) offsetof(ehap, c.opt.field)
static const struct {
    const char *name, *arg;
    Kind kind;
    size_t at;
    double lo, hi;
    const char *help;
} options[] = {
    {"data", "A,B,...", STRING, offsetof(ehap, data), 0, 0,
     "samples to score, refit and train with: files or folders (.jpg, .png, CIFAR .bin, idx, .npy, "
     ".npz, .pb)"},
    {"eval", "A,B,...", STRING, offsetof(ehap, eval), 0, 0,
     "labelled samples to measure accuracy on"},
    {"preprocess", "KEY=V,...", PREPROCESS, 0, 0, 0,
     "scale=1/255,mean=a:b:c,std=a:b:c,layout=nchw: x = (stored * scale - mean) / std; of images "
     "resize=256,size=224,fit=crop,order=rgb"},
    {"flops", "F", BUDGET, BUDGET_FLOPS, 0, 1,
     "fraction of the multiply-adds to keep (0.5; 0.85 without --data)"},
    {"params", "F", BUDGET, BUDGET_PARAMS, 0, 1, "fraction of the parameters to keep"},
    {"channels", "F", BUDGET, BUDGET_CHANNELS, 0, 1, "fraction of the channels to keep"},
    {"criterion", criteria + 1, CHOICE, OPT(criterion), 0, 0, "how channels are scored (gate-ggn)"},
    {"shape", "X=1x3x224x224", LIST, OPT(shape), 0, 0,
     "take the open dimensions of input X as these; may be repeated"},
    {"fix", "X=V", LIST, offsetof(ehap, fix), 0, 0,
     "input X always is V, a number or numbers V:V:V, or has the sizes 1x576: what hangs on it "
     "alone is settled"},
    {"scores", "FILE", STRING, offsetof(ehap, scores), 0, 0,
     "use the scores of `ehapc sensitivity`"},
    {"precision", "auto|fp32|fp16|bf16", CHOICE, OPT(precision), 0, 0,
     "storage while scoring (auto: fp16 on a GPU, else fp32)"},
    {"probes", "N", INT, OPT(probes), 1, 1e6, "at most so many random probes"},
    {"batch", "N", INT, OPT(batch), 1, 1e6, "samples to score with, and per training step"},
    {"rounds", "N", INT, OPT(rounds), 1, 100, "score and remove in so many rounds"},
    {"align", "N", INT, OPT(align), 1, 1024, "keep channels in multiples of N (8)"},
    {"attention", "widths|heads|both", CHOICE, OPT(attention), 0, 0,
     "shrink all attention heads alike, remove whole ones, or both by turns (widths)"},
    {"keep", "A,B,...", LIST, OPT(keep_nodes), 0, 0,
     "nodes whose channels all stay; in lists \\, is a comma of a name"},
    {"exclude", "A,B,...", LIST, OPT(exclude), 0, 0, "nodes neither pruned nor quantized"},
    {"steps", "N", LONG, OPT(steps), 0, 1e9, "training steps (0: none)"},
    {"epochs", "E", NUMBER, OPT(epochs), 0, 1e6, "training length in passes over the data"},
    {"time", "T", DURATION, OPT(seconds), 0, 1e9, "training length in time: 90s, 10m, 2h"},
    {"distill", "A,B,...", LIST, OPT(distill), 0, 0,
     "train on the difference at these values, inner ones or outputs (all float outputs)"},
    {"lr", "R", REAL, OPT(lr), 0, 100, "peak learning rate (0.002, less below 312 steps)"},
    {"train-precision", "auto|fp32|fp16|bf16", CHOICE, OPT(train_precision), 0, 0,
     "storage of activations and their gradients while training (auto: bf16 where the CPU "
     "multiplies it, else fp32)"},
    {"target", target_names, CHOICE, OPT(target), 0, 0, "who will run the output"},
    {"weight-bits", "N", INT, OPT(weight_bits), 7, 8,
     "7 (safe where int8 products saturate) or 8 (VNNI, ARM); the target's default"},
    {"quant-drop", "D", NUMBER, OPT(quant_drop), 0, 1e9,
     "keep layers in float that, quantized alone, move the outputs by more than D of their power"},
    {"least-sqnr", "D", NUMBER, OPT(least_sqnr), -1000, 1000,
     "keep layers in float whose own grids leave less than D dB of signal to noise (15)"},
    {"least-output", "D", NUMBER, OPT(least_output), -1000, 1000,
     "keep more layers in float until each output has D dB of signal to noise (12)"},
    {"calibration", "mse|entropy|percentile|min-max|moving-average", CHOICE, OPT(calibration), 0, 0,
     "how activations' ranges are found (mse)"},
    {"ranges", "learned|moving-average|fixed", CHOICE, OPT(ranges), 0, 0,
     "what training does with them: learns them, or lets them follow the batches (learned)"},
    {"seed", "N", LONG, OPT(seed), 0, 9e15, "of everything random (0)"},
    {"threads", "N", INT, OPT(threads), 1, 4096,
     "at most so many (all); the output does not depend on it"},
    {"device", "auto|cpu|cuda|ref", CHOICE, offsetof(ehap, device), 0, 0,
     "where to compute; ref is naive and exact"},
    {"tf32", NULL, SWITCH, offsetof(ehap, tf32), 0, 0,
     "on a GPU, products of floats may round operands to 10 bits"},
    {"deterministic", NULL, SWITCH, offsetof(ehap, deterministic), 0, 0,
     "on a GPU, the same bytes in every run: no timed choice of algorithms"},
    {"memory", "SIZE", SIZE, OPT(memory), 1, 1e18,
     "take at most so much: 512M, 2G (smaller shards, then fewer threads)"},
    {"resume", "DIR", STRING, offsetof(ehap, resume), 0, 0,
     "keep the state in DIR after each pass and while training; go on from it if it is there"},
    {"verify", NULL, SWITCH, OPT(verify), 0, 0, "check every invariant after each pass"},
    {"time-passes", NULL, SWITCH, OPT(time_passes), 0, 0, "print the time of each pass"},
    {"print-plan", NULL, SWITCH, OPT(print_plan), 0, 0,
     "print the steps, stages and memory of every program that is run"},
    {"print-ir-before", "PASS", STRING, OPT(dump_before), 0, 0,
     "dump the graph before PASS, or all"},
    {"print-ir-after", "PASS", STRING, OPT(dump_after), 0, 0, "dump the graph after PASS, or all"},
    {"dump-dir", "DIR", STRING, OPT(dump_dir), 0, 0, "write dumps there instead of stderr"},
};

enum { NOPTIONS = sizeof options / sizeof *options };

void options_help(FILE *to)
{
    for (int i = 0; i < NOPTIONS; i++) {
        char flag[64];
        bool choice = options[i].kind == CHOICE;
        const char *arg = choice ? "NAME" : options[i].arg;
        snprintf(flag, sizeof flag, "--%s %s", options[i].name, arg ? arg : "");
        fprintf(to, "  %-22s %s\n", flag, options[i].help);
        if (choice) fprintf(to, "  %-22s %s\n", "", options[i].arg);
    }
}

/* The place of the option in the table; -1: there is none. */
static int option_find(const char *name)
{
    for (int i = 0; i < NOPTIONS; i++)
        if (strcmp(options[i].name, name) == 0) return i;
    return -1;
}

bool option_takes_value(const char *name)
{
    const int i = option_find(name);
    return i >= 0 && options[i].arg;
}

static bool takes_number(Kind kind)
{
    return kind == INT || kind == LONG || kind == NUMBER || kind == REAL || kind == SIZE ||
           kind == DURATION || kind == BUDGET;
}

const char *option_of_number(int k)
{
    for (int i = 0; i < NOPTIONS; i++)
        if (takes_number(options[i].kind) && k-- == 0) return options[i].name;
    return NULL;
}

static bool parse_number(const char *s, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(s, &end);
    return end != s && !*end && !errno && *out == *out;
}

/* "2G" -> 2^31; "10m" -> 600. The unit is one letter of `units`, each worth by[k]. */
static bool parse_with_unit(const char *s, const char *units, const double *by, double *out)
{
    char *end;
    *out = strtod(s, &end);
    if (end == s || *out < 0 || *out != *out) return false;
    if (!*end) return true;
    const char *u = strchr(units, tolower((unsigned char)*end));
    if (!u || end[1]) return false;
    *out *= by[u - units];
    return true;
}

static int bad_value(ehap *e, const char *name, const char *value, const char *wants)
{
    diag_error(&e->diag, "--%s takes %s, not '%s'", name, wants, value);
    return EHAP_USAGE;
}

static int set_choice(ehap *e, int i, const char *value)
{
    const char *p = options[i].arg;
    for (size_t n; *p; p += n + (p[n] == '|')) {
        n = strcspn(p, "|");
        if (strlen(value) != n || strncmp(p, value, n) != 0) continue;
        *(const char **)((char *)e + options[i].at) = arena_strdup(e->arena, value);
        return EHAP_OK;
    }
    diag_error(&e->diag, "--%s: there is no '%s'", options[i].name, value);
    diag_note(&e->diag, "there are: %s", options[i].arg);
    return EHAP_USAGE;
}

static int set_number(ehap *e, int i, const char *value)
{
    double x;
    char wants[96];
    void *p = (char *)e + options[i].at;
    Kind kind = options[i].kind;
    bool whole = kind == INT || kind == LONG;
    snprintf(wants, sizeof wants, "a%s number from %g to %g", whole ? " whole" : "", options[i].lo,
             options[i].hi);
    if (!parse_number(value, &x) || x < options[i].lo || x > options[i].hi ||
        (whole && x != (double)(int64_t)x))
        return bad_value(e, options[i].name, value, wants);
    if (kind == INT) *(int *)p = (int)x;
    if (kind == LONG) *(int64_t *)p = (int64_t)x;
    if (kind == NUMBER) *(double *)p = x;
    if (kind == REAL) *(float *)p = (float)x;
    return EHAP_OK;
}

static int set_budget(ehap *e, int i, const char *value)
{
    double x;
    if (!parse_number(value, &x) || !(x > 0) || x > 1)
        return bad_value(e, options[i].name, value, "a fraction to keep, 0 < F <= 1");
    e->c.opt.budget = (Budget)options[i].at;
    e->c.opt.keep = x;
    return EHAP_OK;
}

/* Given again, a list grows. */
static int append_to_list(ehap *e, const char **list, const char *value)
{
    *list = *list ? arena_printf(e->arena, "%s,%s", *list, value) : arena_strdup(e->arena, value);
    return EHAP_OK;
}

static int set_size(ehap *e, int i, const char *value)
{
    static const double bytes[] = {1 << 10, 1 << 20, 1 << 30, 1099511627776.0};
    double x;
    if (!parse_with_unit(value, "kmgt", bytes, &x) || x < 1 || x > options[i].hi)
        return bad_value(e, options[i].name, value, "a size like 512M or 2G");
    *(size_t *)((char *)e + options[i].at) = (size_t)x;
    return EHAP_OK;
}

static int set_duration(ehap *e, int i, const char *value)
{
    static const double seconds[] = {1, 60, 3600};
    double x;
    if (!parse_with_unit(value, "smh", seconds, &x) || x <= 0 || x > options[i].hi)
        return bad_value(e, options[i].name, value, "a time like 90s, 10m or 2h");
    *(double *)((char *)e + options[i].at) = x;
    return EHAP_OK;
}

static int set(ehap *e, const char *name, const char *value)
{
    const int i = option_find(name);
    if (i < 0) {
        diag_error(&e->diag, "unknown option '--%s'", name);
        return EHAP_USAGE;
    }
    void *p = (char *)e + options[i].at;
    if ((options[i].arg != NULL) != (value != NULL)) {
        diag_error(&e->diag, value ? "--%s takes no value" : "--%s needs a value", name);
        return EHAP_USAGE;
    }
    switch (options[i].kind) {
    case SWITCH:
        *(bool *)p = true;
        return EHAP_OK;
    case STRING:
        *(const char **)p = arena_strdup(e->arena, value);
        return EHAP_OK;
    case LIST:
        return append_to_list(e, p, value);
    case CHOICE:
        return set_choice(e, i, value);
    case INT:
    case LONG:
    case NUMBER:
    case REAL:
        return set_number(e, i, value);
    case BUDGET:
        return set_budget(e, i, value);
    case SIZE:
        return set_size(e, i, value);
    case DURATION:
        return set_duration(e, i, value);
    case PREPROCESS:
        return preprocess_parse(&e->preprocess, value, &e->diag) < 0 ? EHAP_USAGE : EHAP_OK;
    default:
        return EHAP_USAGE;
    }
}

/* Options that leave the output as it is. */
static bool changes_nothing(const char *name)
{
    static const char *const names[] = {"threads",         "verify",        "time-passes",
                                        "resume",          "dump-dir",      "print-plan",
                                        "print-ir-before", "print-ir-after"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strcmp(name, names[k]) == 0) return true;
    return false;
}

/* The device's name with its flags (runtime/kernel.h, device_find); others than GPUs have none. */
static const char *full_device(ehap *e)
{
    if (strcmp(e->device, "cuda") != 0 && strcmp(e->device, "auto") != 0) return e->device;
    return arena_printf(e->arena, "%s%s%s", e->device, e->tf32 ? "-tf32" : "",
                        e->deterministic ? "-deterministic" : "");
}

int option_set(ehap *e, const char *name, const char *value)
{
    int status = set(e, name, value);
    if (status) return status;
    e->c.opt.device = full_device(e);
    if (changes_nothing(name)) return status;
    e->options = digest(e->options, name, strlen(name) + 1);
    if (value) e->options = digest(e->options, value, strlen(value) + 1);
    return EHAP_OK;
}
