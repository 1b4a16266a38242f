/* Progress on stderr. */
#ifndef EHAP_TOOLS_PROGRESS_H
#define EHAP_TOOLS_PROGRESS_H

#include <stdbool.h>

typedef struct Progress {
    bool terminal, drawn;
    char pass[64];
    double began, last; /* of the running pass, and of the last output; seconds */
} Progress;

void progress_init(Progress *p);
/* An ehap_progress_fn; ctx is the Progress. */
void progress_update(void *ctx, const char *pass, double fraction, const char *text);
void progress_clear(Progress *p); /* before anything else is printed */

#endif
