/* Messages to the user, in the shape of a good compiler's:
 *
 *   error: model.onnx: node 'conv1' (Conv): weight needs 64 input channels, input 'x' has 48
 *
 * Texts start in lower case, carry no final period, quote names and give both numbers. */
#ifndef EHAP_IR_DIAG_H
#define EHAP_IR_DIAG_H

#include <stdarg.h>

typedef enum Severity { SEV_ERROR, SEV_WARNING, SEV_REMARK, SEV_NOTE } Severity;

/* Where messages go. `sink` receives the finished line without a newline. */
typedef struct Diag {
    const char *file; /* the file that messages are about; borrowed, may be NULL */
    void (*sink)(void *ctx, Severity sev, const char *text);
    void *ctx;
    int errors; /* how many so far */
} Diag;

Diag diag_stderr(const char *file);

/* Reports and returns -1, so that `return diag_error(d, ...)` is the idiom. */
int diag_error(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_warning(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_remark(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What to do about the error just reported, or its other end. */
void diag_note(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_vreport(Diag *d, Severity sev, const char *where, const char *fmt, va_list ap);

/* Runs an expression that returns 0 or a negative error; passes the error on. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        int try_status_ = (expr);                                                                  \
        if (try_status_ < 0) return try_status_;                                                   \
    } while (0)

#endif
