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

/* The mapping that holds the n bytes at p; NULL: none. Under the lock. */
static const Mapped *holder(uintptr_t p, size_t n)
{
    const Mapped *m = all;
    while (m && !(p >= m->p && p + n <= m->p + m->n)) m = m->next;
    return m;
}

void mapped_forget(const void *p, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)p + n) / page * page;
    pthread_mutex_lock(&lock);
    if (holder((uintptr_t)p, n) && from < to) madvise((void *)from, to - from, MADV_DONTNEED);
    pthread_mutex_unlock(&lock);
}

void mapped_passed(const void *p, size_t n)
{
    enum { AROUND = 2 << 20 }; /* the most that Linux maps with one missing page */
    pthread_mutex_lock(&lock);
    const Mapped *m = holder((uintptr_t)p, n);
    if (m) {
        const uintptr_t end = ((uintptr_t)p + n + AROUND - 1) / AROUND * AROUND;
        const uintptr_t from =
            (uintptr_t)p / AROUND * AROUND < m->p ? m->p : (uintptr_t)p / AROUND * AROUND;
        madvise((void *)from, (end < m->p + m->n ? end : m->p + m->n) - from, MADV_DONTNEED);
    }
    pthread_mutex_unlock(&lock);
}
