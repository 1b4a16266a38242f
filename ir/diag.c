/* Formats messages and hands them to the sink; nothing here decides what to do next. */
#include "ir/diag.h"

#include <stdio.h>

static const char *const severity_name[] = {"error", "warning", "remark", "note"};

static void print_stderr(void *ctx, Severity sev, const char *text)
{
    (void)ctx;
    (void)sev;
    fprintf(stderr, "%s\n", text);
}

Diag diag_stderr(const char *file) { return (Diag){.file = file, .sink = print_stderr}; }

void diag_vreport(Diag *d, Severity sev, const char *where, const char *fmt, va_list ap)
{
    char text[2048];
    int n = snprintf(text, sizeof text, "%s: ", severity_name[sev]);
    if (d->file) n += snprintf(text + n, sizeof text - (size_t)n, "%.1024s: ", d->file);
    if (where) n += snprintf(text + n, sizeof text - (size_t)n, "%.512s: ", where);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    if (sev == SEV_ERROR) d->errors++;
    if (d->sink) d->sink(d->ctx, sev, text);
}

#define REPORT(sev)                                                                                \
    va_list ap;                                                                                    \
    va_start(ap, fmt);                                                                             \
    diag_vreport(d, sev, NULL, fmt, ap);                                                           \
    va_end(ap)

int diag_error(Diag *d, const char *fmt, ...)
{
    REPORT(SEV_ERROR);
    return -1;
}

void diag_warning(Diag *d, const char *fmt, ...) { REPORT(SEV_WARNING); }
void diag_remark(Diag *d, const char *fmt, ...) { REPORT(SEV_REMARK); }
void diag_note(Diag *d, const char *fmt, ...) { REPORT(SEV_NOTE); }
