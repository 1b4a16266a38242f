/* Progress: on a terminal a bar that redraws itself with the time left; elsewhere a plain line
 * now and then, so that logs stay readable. */
#include "tools/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ir/process.h"

enum { BAR = 24 };
static const double REDRAW = 0.1, LINE_EVERY = 15; /* seconds */

void progress_init(Progress *p) { *p = (Progress){.terminal = isatty(STDERR_FILENO) != 0}; }

static void format_left(char *buf, size_t n, double left)
{
    int s = (int)(left + 0.5);
    if (s >= 3600)
        snprintf(buf, n, "%d:%02d:%02d left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, n, "%d:%02d left", s / 60, s % 60);
}

void progress_clear(Progress *p)
{
    if (p->terminal && p->drawn) fputs("\r\033[K", stderr);
    p->drawn = false;
}

void progress_update(void *ctx, const char *pass, double fraction, const char *text)
{
    Progress *p = ctx;
    double now = process_seconds();
    char left[32] = "";
    if (strcmp(p->pass, pass) != 0) {
        snprintf(p->pass, sizeof p->pass, "%s", pass);
        p->began = p->last = now;
    }
    if (now - p->last < (p->terminal ? REDRAW : LINE_EVERY)) return;
    p->last = now;
    if (fraction > 0.02) format_left(left, sizeof left, (now - p->began) * (1 / fraction - 1));
    if (!p->terminal) {
        fprintf(stderr, "%s: %.0f %% %s %s\n", pass, 100 * fraction, text, left);
        return;
    }
    char bar[BAR + 1];
    for (int i = 0; i < BAR; i++) bar[i] = i < (int)(fraction * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K%-16.16s [%s] %3.0f %% %s  %.60s", pass, bar, 100 * fraction, left,
            text);
    fflush(stderr);
    p->drawn = true;
}
