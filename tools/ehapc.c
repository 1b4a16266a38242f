/* The command line: words to calls of the public API. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ehap.h"
#include "ir/outfile.h"
#include "passes/passes.h"
#include "tools/options.h"
#include "tools/progress.h"

typedef struct Command {
    ehap *e;
    const char *in, *out, *json, *passes, *test_data, *data;
} Command;

static int missing(const char *what)
{
    fprintf(stderr, "error: %s is missing; see `ehapc --help`\n", what);
    return EHAP_USAGE;
}

static int save_and_report(Command *c, int status)
{
    if (!status && c->out) status = ehap_save(c->e, c->out);
    if ((!status || status == EHAP_NOTHING) && c->json) {
        int wrote = ehap_write_report(c->e, c->json);
        if (!status) status = wrote;
    }
    return status;
}

static int loaded(Command *c, bool needs_out)
{
    if (!c->in) return missing("the input model");
    if (needs_out && !c->out) return missing("-o OUT");
    return ehap_load(c->e, c->in);
}

static int transform(Command *c, int (*job)(ehap *))
{
    int status = loaded(c, true);
    if (!status) status = save_and_report(c, job(c->e));
    if (!status) status = ehap_print_summary(c->e);
    return status;
}

static int run_passes(Command *c)
{
    int status = loaded(c, false);
    return status ? status : save_and_report(c, ehap_run_passes(c->e, c->passes));
}

static int cmd_compress(Command *c)
{
    return c->passes ? run_passes(c) : transform(c, ehap_compress);
}
static int cmd_prune(Command *c) { return transform(c, ehap_prune); }
static int cmd_quantize(Command *c) { return transform(c, ehap_quantize); }

static int cmd_requantize(Command *c) { return transform(c, ehap_requantize); }

static int cmd_inspect(Command *c)
{
    int status = loaded(c, false);
    if (!status) status = ehap_inspect(c->e);
    return save_and_report(c, status);
}

static int cmd_lint(Command *c)
{
    int status = loaded(c, false);
    return status ? status : ehap_lint(c->e);
}

static int cmd_sensitivity(Command *c)
{
    int status = loaded(c, true);
    if (!status) status = ehap_score(c->e, c->out);
    if (!status && c->json) status = ehap_write_report(c->e, c->json);
    return status;
}

static int cmd_run(Command *c)
{
    int status = loaded(c, false);
    if (status) return status;
    if (c->test_data) return ehap_check_test_data(c->e, c->test_data);
    if (!c->data) return missing("--data X.npz (or --test-data DIR)");
    if (!c->out) return missing("-o Y.npz");
    return ehap_infer(c->e, c->data, c->out);
}

/* "{a=N;b=F}", broken where lines get long. */
static void print_pass_options(const char *s)
{
    enum { INDENT = 19, WIDTH = 100 };
    int at = printf("%*s{", INDENT, "");
    while (*s) {
        const int n = (int)strcspn(s, ";") + 1; /* with what ends it */
        if (at + n > WIDTH) at = printf("\n%*s", INDENT + 1, "") - 1;
        at += printf("%.*s%c", n - 1, s, s[n - 1] ? ';' : '}');
        s += n - !s[n - 1];
    }
    printf("\n");
}

static int cmd_passes(Command *c)
{
    (void)c;
    for (const Pass *p = passes; p->name; p++) {
        printf("%-18s %s\n", p->name, p->help);
        if (*p->options) print_pass_options(p->options);
    }
    return EHAP_OK;
}

static const struct {
    const char *name, *usage, *help;
    int (*run)(Command *);
} commands[] = {
    {"", "IN -o OUT", "score, remove, refit, fine-tune and quantize", cmd_compress},
    {"inspect", "IN", "ops, shapes, parameters and FLOPs per node", cmd_inspect},
    {"sensitivity", "IN -o S.json", "score every prunable channel", cmd_sensitivity},
    {"prune", "IN -o OUT", "remove channels and refit, in float", cmd_prune},
    {"quantize", "IN -o OUT", "calibrate, fine-tune and quantize", cmd_quantize},
    {"requantize", "IN -o OUT", "lay a quantized model out for another --target", cmd_requantize},
    {"lint", "IN", "which nodes --target runs in integers, and why the rest is float", cmd_lint},
    {"run", "IN --data X.npz -o Y.npz", "inference; --test-data DIR compares", cmd_run},
    {"passes", "", "list the passes for --passes", cmd_passes},
};

enum { NCOMMANDS = sizeof commands / sizeof *commands };

static void help(void)
{
    printf("ehapc %s: a trained ONNX network in, a smaller, faster INT8 one out\n\nUsage:\n",
           ehap_version());
    for (int i = 0; i < NCOMMANDS; i++) {
        char usage[64];
        snprintf(usage, sizeof usage, "%s%s%s", commands[i].name, *commands[i].name ? " " : "",
                 commands[i].usage);
        printf("  ehapc %-36s %s\n", usage, commands[i].help);
    }
    printf("\nOptions:\n  %-22s %s\n  %-22s %s\n  %-22s %s\n  %-22s %s\n", "-o FILE", "the output",
           "--json FILE", "what happened, as JSON", "--passes \"A,B{K=V}\"",
           "run just these passes, in order", "--test-data DIR",
           "with run: input_k.pb and the expected output_k.pb");
    options_help(stdout);
    printf("\nExit status: 0 done, 1 bad input, 2 usage, 3 nothing could be removed, or\n"
           "(lint) something stays in float, 4 internal\n");
}

/* Where a flag of the command line itself goes; NULL: an option of the library. */
static const char **own_flag(Command *c, const char *name)
{
    if (strcmp(name, "-o") == 0 || strcmp(name, "--output") == 0) return &c->out;
    if (strcmp(name, "--json") == 0) return &c->json;
    if (strcmp(name, "--passes") == 0) return &c->passes;
    if (strcmp(name, "--test-data") == 0) return &c->test_data;
    return NULL;
}

/* One flag at argv[i], "--name value" or "--name=value"; returns how many words it took, or a
 * negative status. */
static int parse_flag(Command *c, char **argv, int i)
{
    char name[64];
    const char *eq = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : NULL;
    const char *value = eq ? eq + 1 : argv[i + 1];
    size_t length = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);
    if (length >= sizeof name) length = sizeof name - 1; /* no flag is that long */
    memcpy(name, argv[i], length);
    name[length] = '\0';
    const char **own = own_flag(c, name);
    const bool takes = own || option_takes_value(name + 2);
    if (takes && !value) {
        fprintf(stderr, "error: %s needs a value\n", name);
        return -EHAP_USAGE;
    }
    if (own) {
        *own = value;
    } else {
        if (name[1] != '-') {
            fprintf(stderr, "error: unknown option '%s'\n", name);
            return -EHAP_USAGE;
        }
        if (ehap_set(c->e, name + 2, takes || eq ? value : NULL)) return -EHAP_USAGE;
        if (strcmp(name, "--data") == 0) c->data = value;
    }
    return takes && !eq ? 2 : 1;
}

static int parse(Command *c, int argc, char **argv, int first)
{
    for (int i = first; i < argc;) {
        int words = 1;
        if (argv[i][0] == '-' && argv[i][1])
            words = parse_flag(c, argv, i);
        else if (c->in) {
            fprintf(stderr, "error: two input models: '%s' and '%s'\n", c->in, argv[i]);
            return EHAP_USAGE;
        } else
            c->in = argv[i];
        if (words < 0) return -words;
        i += words;
    }
    return EHAP_OK;
}

static void on_message(void *ctx, int severity, const char *text)
{
    (void)severity;
    if (!ranks_speaks()) return;
    progress_clear(ctx);
    fprintf(stderr, "%s\n", text);
}

static int dispatch(Command *c, int argc, char **argv)
{
    int which = 0;
    for (int k = 1; argc > 1 && k < NCOMMANDS; k++)
        if (strcmp(argv[1], commands[k].name) == 0) which = k;
    int status = parse(c, argc, argv, which ? 2 : 1);
    return status ? status : commands[which].run(c);
}

static void print_word(const char *w)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,";
    if (*w && strspn(w, plain) == strlen(w)) {
        fprintf(stderr, " %s", w);
        return;
    }
    fputs(" '", stderr);
    for (; *w; w++) fprintf(stderr, *w == '\'' ? "'\\''" : "%c", *w);
    fputc('\'', stderr);
}

/* The command that comes to the same bug again. */
static void print_reproducer(const Command *c, char **argv)
{
    fputs("note: to reproduce:", stderr);
    for (; *argv; argv++) print_word(*argv);
    fprintf(stderr, " --resume %s\n", ehap_crash_folder(c->e));
}

/* Leaves nothing behind and ends as the shell expects. Only async-signal-safe calls. */
static void on_signal(int number)
{
    static const char said[] = "\nerror: interrupted; unfinished files are removed\n";
    outfiles_remove();
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0) {
    }
    _exit(128 + number);
}

/* Files are mapped, and the system has no other way to say that one has ended early. */
static void on_bus_error(int number)
{
    static const char said[] = "\nerror: a file became shorter, or could not be read, while it was "
                               "in use; unfinished files are removed\n";
    (void)number;
    outfiles_remove();
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0) {
    }
    _exit(EHAP_BAD_INPUT);
}

static void catch_signals(void)
{
    signal(SIGBUS, on_bus_error);
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction act = {.sa_handler = on_signal}, was;
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
        if (sigaction(numbers[k], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(numbers[k], &act, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write() */
}

/* What was printed has arrived. */
static int flushed(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    fprintf(stderr, "error: cannot write to the standard output: %s\n", strerror(errno));
    return status ? status : EHAP_BAD_INPUT;
}

int main(int argc, char **argv)
{
    Progress progress;
    catch_signals();
    progress_init(&progress);
    ranks_start();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help(), flushed(EHAP_OK);
        if (strcmp(argv[i], "--version") == 0)
            return printf("ehapc %s\n", ehap_version()), flushed(EHAP_OK);
    }
    Command c = {.e = ehap_new(on_message, &progress)};
    if (!c.e) {
        fprintf(stderr, "error: out of memory\n");
        return EHAP_INTERNAL;
    }
    if (ranks_index() == 0)
        ehap_on_progress(c.e, progress_update, &progress);
    else if (!freopen("/dev/null", "w", stdout))
        return EHAP_INTERNAL; /* rank 0 speaks for all */
    int status = argc > 1 ? dispatch(&c, argc, argv) : (help(), EHAP_USAGE);
    progress_clear(&progress);
    if (ehap_crash_folder(c.e) && ranks_index() == 0) print_reproducer(&c, argv);
    ehap_free(c.e);
    status = flushed(status);
    ranks_finish(status);
    return status;
}
