/* Clock and resident set, by way of POSIX and Linux's /proc. */
#include "ir/process.h"

#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

size_t process_resident(void)
{
    unsigned long pages = 0;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%*u %lu", &pages) != 1) pages = 0;
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

size_t process_peak_resident(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (size_t)u.ru_maxrss * 1024 : 0;
}

/* The number in a file; SIZE_MAX: there is none ("max"). */
static size_t number_in(const char *path)
{
    unsigned long long n;
    FILE *f = fopen(path, "r");
    if (!f) return SIZE_MAX;
    if (fscanf(f, "%llu", &n) != 1) n = SIZE_MAX;
    fclose(f);
    return (size_t)n;
}

size_t process_memory(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t least = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX;
    const size_t group[] = {number_in("/sys/fs/cgroup/memory.max"),
                            number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")};
    for (int k = 0; k < 2; k++)
        if (group[k] < least) least = group[k];
    struct rlimit space;
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur < least) least = space.rlim_cur;
    return least;
}

/* MemAvailable counts what the system would give back, in KiB. */
static size_t available(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f) return SIZE_MAX;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
    fclose(f);
    return kib ? (size_t)kib * 1024 : SIZE_MAX;
}

size_t process_memory_free(void)
{
    const size_t all = process_memory(), rest = available();
    const size_t mine = rest < SIZE_MAX ? rest + process_resident() : all;
    return mine < all ? mine : all;
}
