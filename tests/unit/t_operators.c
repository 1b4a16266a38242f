/* docs/operators.md says what the rules are: a row per operator of ops.def, with reasons where
 * there is no derivative or no channel rule, and none that is not there. t_operators checks
 *   t_operators --print    the first table as it should be; reasons are kept */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/op.h"
#include "ir/rules.h"
#include "runtime/kernel.h"

static const char document[] = TEST_DIR "/../docs/operators.md";
static const char others[] = "## Read as others";

enum { ROW = 1024, ROWS = 1024 };

typedef struct Row {
    char name[64], text[ROW], why[ROW]; /* text: all columns but `why` */
    bool known;                         /* it stands in the first table */
} Row;

/* ---- what is ------------------------------------------------------------------------ */

static const char *derivative(bool there, bool zero)
{
    return !there ? "–" : zero ? "zero" : "yes";
}

static const char *channels(const OpInfo *o)
{
    return !o->lanes ? "none" : o->lanes == rule_lanes_pin ? "pins" : "flow";
}

/* The row without its reason, as in the document. */
static void row_of(char *text, size_t size, const OpInfo *o)
{
    snprintf(text, size, "| %s%s | %s | %s | %s |", *o->domain ? "ehap." : "", o->name,
             derivative(o->vjp, o->vjp == vjp_zero), derivative(o->jvp, o->jvp == jvp_zero),
             channels(o));
}

static bool needs_reason(const OpInfo *o)
{
    return !o->vjp || !o->jvp || !o->lanes || o->lanes == rule_lanes_pin;
}

static bool is_listed(int op) { return op != OP_Opaque; }

/* ---- what the document says ---------------------------------------------------------- */

/* Cuts "| name | … | why |" before its last column; false if the line is no such row. */
static bool read_row(Row *r, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    size_t n = strlen(line);
    if (strncmp(line, "| ", 2) != 0 || n < 4 || strcmp(line + n - 2, " |") != 0) return false;
    line[n - 2] = '\0';
    char *last = strrchr(line, '|');
    snprintf(r->why, sizeof r->why, "%s", last[1] ? last + 2 : "");
    last[1] = '\0';
    snprintf(r->text, sizeof r->text, "%s", line);
    snprintf(r->name, sizeof r->name, "%.*s", (int)strcspn(line + 2, " "), line + 2);
    return true;
}

static Row *read_document(int *n)
{
    static Row rows[ROWS];
    char line[ROW];
    bool first = true;
    FILE *f = fopen(document, "r");
    *n = 0;
    while (f && *n < ROWS && fgets(line, sizeof line, f)) {
        Row *r = &rows[*n];
        first = first && strncmp(line, others, strlen(others)) != 0;
        if (!read_row(r, line) || strcmp(r->name, "operator") == 0) continue;
        r->known = first;
        (*n)++;
    }
    if (f) fclose(f);
    return rows;
}

static const Row *find(const Row *rows, int n, const OpInfo *o)
{
    const char *prefix = *o->domain ? "ehap." : "";
    for (int k = 0; k < n; k++)
        if (strncmp(rows[k].name, prefix, strlen(prefix)) == 0 &&
            strcmp(rows[k].name + strlen(prefix), o->name) == 0)
            return &rows[k];
    return NULL;
}

/* ---- the two compared ---------------------------------------------------------------- */

static int check_op(const Row *rows, int n, const OpInfo *o)
{
    char text[ROW];
    const Row *r = find(rows, n, o);
    row_of(text, sizeof text, o);
    if (!r || !r->known) return printf("%s is not in the document: %s\n", o->name, text) > 0;
    if (strcmp(text, r->text) != 0)
        return printf("it says    %s\nand should %s\n", r->text, text) > 0;
    if (needs_reason(o) && !*r->why) return printf("%s: no reason is given\n", o->name) > 0;
    return 0;
}

static void the_document_says_what_the_rules_are(void **state)
{
    (void)state;
    int n, failures = 0;
    const Row *rows = read_document(&n);
    for (int op = 0; op < OP_COUNT; op++)
        if (is_listed(op)) failures += check_op(rows, n, &op_info[op]);
    assert_int_equal(failures, 0);
}

/* A name of the first table is an operator; one of the others is none, and has a reason. */
static void it_says_nothing_else(void **state)
{
    (void)state;
    int n, failures = 0;
    const Row *rows = read_document(&n);
    for (int k = 0; k < n; k++) {
        bool own = strncmp(rows[k].name, "ehap.", 5) == 0;
        Op op = op_of_name(own ? "ehap" : "", rows[k].name + (own ? 5 : 0));
        if (rows[k].known != (op != OP_COUNT))
            failures += printf("%s is in the wrong table\n", rows[k].name) > 0;
        if (!rows[k].known && !*rows[k].why)
            failures += printf("%s: no reason is given\n", rows[k].name) > 0;
        for (int i = 0; i < k; i++)
            if (strcmp(rows[i].name, rows[k].name) == 0)
                failures += printf("%s is there twice\n", rows[k].name) > 0;
    }
    assert_int_equal(failures, 0);
}

static void every_operator_runs(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++)
        if (is_listed(op) && (!device_ref.kernels[op].run || !device_cpu.kernels[op].run))
            fail_msg("%s has no kernel", op_info[op].name);
}

static int print_table(void)
{
    int n;
    const Row *rows = read_document(&n);
    for (int op = 0; op < OP_COUNT; op++) {
        char text[ROW];
        const Row *r = find(rows, n, &op_info[op]);
        if (!is_listed(op)) continue;
        row_of(text, sizeof text, &op_info[op]);
        printf("%s%s%s |\n", text, r && *r->why ? " " : "", r ? r->why : "");
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_document_says_what_the_rules_are),
        cmocka_unit_test(it_says_nothing_else),
        cmocka_unit_test(every_operator_runs),
    };
    if (argc > 1 && strcmp(argv[1], "--print") == 0) return print_table();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
