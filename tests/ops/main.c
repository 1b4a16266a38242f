/* run_ops FILE.case …       checks every line
 * run_ops 'Conv x=…'        checks one line
 * run_ops --device D FILE … checks only that device D gives what ref gives; 77 without one
 * run_ops --coverage FILE…  every op has a reference kernel and a line */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/kernel.h"
#include "tests/ops/checks.h"

static const struct {
    const char *name;
    Check *check;
} checks[] = {{"devices", check_devices}, {"half", check_half},     {"jvp", check_jvp},
              {"vjp", check_vjp},         {"second", check_second}, {"lanes", check_lanes},
              {"onnx", check_onnx}};

enum { CHECKS = sizeof checks / sizeof *checks, DEVICE_CHECKS = 2 };

static int one_check(const Case *c, int k, const char *line)
{
    Diag d = diag_stderr(NULL);
    Arena *a = arena_new();
    Trap t;
    int status = -1;
    if (trap_enter(&t) == 0) {
        const int result = checks[k].check(c, a, &d);
        trap_leave(&t);
        arena_free(a);
        if (result < 0)
            fprintf(stderr, "  %s failed; run again: run_ops '%s'\n", checks[k].name, line);
        return result;
    }
    fprintf(stderr, "%s\n  %s failed; run again: run_ops '%s'\n", t.message, checks[k].name, line);
    arena_free(a);
    return status;
}

static bool skipped(const Case *c, const char *check)
{
    for (int k = 0; k < c->nskip; k++)
        if (strcmp(c->skip[k], check) == 0) return true;
    return false;
}

static int check_line(const char *line, int *done)
{
    Diag d = diag_stderr(NULL);
    Arena *a = arena_new();
    Case c;
    const bool unread = case_parse(&c, a, line, &d) < 0;
    int failures = unread;
    for (int k = 0; k < CHECKS && !unread; k++) {
        if (skipped(&c, checks[k].name) || (checks_device && k >= DEVICE_CHECKS)) continue;
        const int result = one_check(&c, k, line);
        failures += result < 0;
        done[k] += result == 0;
    }
    arena_free(a);
    return failures;
}

/* Calls f for every line of a file that is not empty and no comment. */
static int for_lines(const char *path, int (*f)(const char *line, int *done), int *done)
{
    char line[1024];
    int failures = 0;
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "cannot open %s\n", path);
        return 1;
    }
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "#\n")] = '\0';
        if (line[strspn(line, " \t")]) failures += f(line, done);
    }
    fclose(file);
    return failures;
}

static int note_op(const char *line, int *seen)
{
    char name[64] = "";
    sscanf(line, "%63s", name);
    Op op = op_of_name("", name);
    if (op == OP_COUNT) op = op_of_name("ehap", name);
    if (op < OP_COUNT) seen[op]++;
    return op == OP_COUNT;
}

static int coverage(int n, char **files)
{
    static int seen[OP_COUNT];
    int failures = 0;
    for (int k = 0; k < n; k++) failures += for_lines(files[k], note_op, seen);
    for (int op = 0; op < OP_COUNT; op++) {
        if (op == OP_Opaque) continue;
        if (!device_ref.kernels[op].run)
            failures += printf("%s has no kernel in ref\n", op_info[op].name) > 0;
        if (!seen[op]) failures += printf("%s has no case\n", op_info[op].name) > 0;
    }
    return failures;
}

int main(int argc, char **argv)
{
    int failures = 0, done[CHECKS] = {0};
    if (argc > 1 && strcmp(argv[1], "--coverage") == 0) return coverage(argc - 2, argv + 2) != 0;
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "--device") == 0) {
        checks_device = argv[2];
        first = 3;
        if (!has_device(checks_device)) return puts("skipped: no CUDA device"), 77;
    }
    for (int k = first; k < argc; k++)
        failures += strstr(argv[k], ".case") ? for_lines(argv[k], check_line, done)
                                             : check_line(argv[k], done);
    for (int k = 0; k < CHECKS; k++) printf("%s %d, ", checks[k].name, done[k]);
    printf("failures %d\n", failures);
    return failures != 0;
}
