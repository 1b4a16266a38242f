/* A list of the mappings of the process; any thread may ask. */
#include "ir/mapped.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct Mapped {
    struct Mapped *next;
    uintptr_t p;
    size_t n;
} Mapped;

static Mapped *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void mapped_add(const void *p, size_t n)
{
    Mapped *m = malloc(sizeof *m);
    if (!m) return;
    pthread_mutex_lock(&lock);
    *m = (Mapped){all, (uintptr_t)p, n};
    all = m;
    pthread_mutex_unlock(&lock);
}

void mapped_remove(const void *p)
{
    pthread_mutex_lock(&lock);
    for (Mapped **at = &all; *at; at = &(*at)->next) {
        Mapped *m = *at;
        if (m->p != (uintptr_t)p) continue;
        *at = m->next;
        free(m);
        break;
    }
    pthread_mutex_unlock(&lock);
}

void mapped_forget(const void *p, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)p + n) / page * page;
    bool inside = false;
    pthread_mutex_lock(&lock);
    for (const Mapped *m = all; m; m = m->next)
        inside |= (uintptr_t)p >= m->p && (uintptr_t)p + n <= m->p + m->n;
    if (inside && from < to) madvise((void *)from, to - from, MADV_DONTNEED);
    pthread_mutex_unlock(&lock);
}
