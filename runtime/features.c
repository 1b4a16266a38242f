/* What the machine has. */
#include <dnnl.h>
#include <sched.h>

#include "runtime/runtime.h"

int runtime_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

#define TEXT(x) #x
#define VERSION(a, b, c) TEXT(a) "." TEXT(b) "." TEXT(c)
#define DNNL_TEXT ", oneDNN " VERSION(DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH)

bool runtime_cpu_has_vnni(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool runtime_cpu_has_bf16(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

const char *runtime_cpu_features(void)
{
#if defined(__x86_64__)
    if (runtime_cpu_has_vnni()) return "cpu: AVX-512 VNNI" DNNL_TEXT;
    if (__builtin_cpu_supports("avx512f")) return "cpu: AVX-512" DNNL_TEXT;
    if (__builtin_cpu_supports("avx2")) return "cpu: AVX2" DNNL_TEXT;
#endif
    return "cpu: baseline" DNNL_TEXT;
}
