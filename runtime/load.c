/* The devices by name. The GPU's is a module of its own, loaded when it is first asked for: from
 * $EHAP_CUDA_MODULE, from beside the program, or from the library folder of the installation. It
 * finds the runtime's symbols in the program. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/kernel.h"

#ifndef EHAP_LIBDIR
#define EHAP_LIBDIR "/usr/local/lib"
#endif

/* What the module exports as ehap_cuda_device: the device, or NULL and in *why what is missing. */
typedef const Device *ModuleEntry(bool tf32, bool deterministic, const char **why);

static const char MODULE[] = "libehap_cuda.so", ENTRY[] = "ehap_cuda_device";

/* A module that is given may be an emulated device; else the driver is looked for first, as CUDA's
 * libraries take 200 MiB to load. */
static bool has_driver(void)
{
    const char *given = getenv("EHAP_CUDA_MODULE");
    if (given && *given) return true;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver) dlclose(driver);
    return driver;
}

/* Opens the first that is there; else leaves the last one's error in `why`, nothing if there is
 * none. */
static void *open_module(char *why, size_t n)
{
    char beside[4096];
    const char *given = getenv("EHAP_CUDA_MODULE");
    const ssize_t len = readlink("/proc/self/exe", beside, sizeof beside - sizeof MODULE - 1);
    const char *paths[2] = {beside, EHAP_LIBDIR "/libehap_cuda.so"};
    if (given && *given) paths[0] = paths[1] = given;
    beside[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(beside, '/');
    memcpy(slash ? slash + 1 : beside, MODULE, sizeof MODULE);
    *why = '\0';
    for (int k = 0; k < 2; k++) {
        if (access(paths[k], R_OK) != 0) continue;
        if (!has_driver()) {
            snprintf(why, n, "there is no CUDA driver");
            return NULL;
        }
        void *module = dlopen(paths[k], RTLD_NOW | RTLD_LOCAL);
        if (module) return module;
        snprintf(why, n, "%s", dlerror());
    }
    return NULL;
}

/* NULL and a reason: no module, no driver, no device. The module stays loaded. */
static const Device *cuda_device(bool tf32, bool deterministic, char *why, size_t n)
{
    static void *module;
    const Device *d = NULL;
#pragma omp critical(ehap_cuda_module)
    {
        const char *reason = NULL;
        ModuleEntry *entry = NULL;
        if (!module) module = open_module(why, n);
        if (module) {
            void *symbol = dlsym(module, ENTRY);
            memcpy(&entry, &symbol, sizeof entry);
            if (entry) d = entry(tf32, deterministic, &reason);
            if (!d) snprintf(why, n, "%s", reason ? reason : "its module has no entry");
        }
    }
    return d;
}

/* Whether the machine has an NVIDIA device, usable or not: its driver's node says so. */
static bool has_device_node(void) { return access("/dev/nvidia0", F_OK) == 0; }

/* The GPU if there is one; else the CPU, and, where there is a GPU that cannot be used, one remark
 * why. */
static const Device *device_auto(bool tf32, bool deterministic, Diag *d)
{
    static bool told;
    char why[512];
    const Device *cuda = cuda_device(tf32, deterministic, why, sizeof why);
    if (cuda) return cuda;
    if (*why && !told && d->sink && has_device_node()) {
        diag_remark(d, "computing on the CPU: %s", why);
        told = true;
    }
    return &device_cpu;
}

/* Takes `suffix` off the end of a name of *n characters. */
static bool take_suffix(const char *name, size_t *n, const char *suffix)
{
    const size_t m = strlen(suffix);
    if (*n < m || strncmp(name + *n - m, suffix, m) != 0) return false;
    *n -= m;
    return true;
}

const Device *device_find(const char *name, Diag *d)
{
    static const Device *const all[] = {&device_ref, &device_ref_last, &device_cpu};
    char why[512];
    size_t n = strlen(name);
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (strcmp(all[k]->name, name) == 0) return all[k];
    const bool deterministic = take_suffix(name, &n, "-deterministic");
    const bool tf32 = take_suffix(name, &n, "-tf32");
    if (n == 4 && strncmp(name, "auto", n) == 0) return device_auto(tf32, deterministic, d);
    if (n != 4 || strncmp(name, "cuda", n) != 0) {
        diag_error(d, "there is no device '%s'", name);
        return NULL;
    }
    const Device *cuda = cuda_device(tf32, deterministic, why, sizeof why);
    if (cuda) return cuda;
    if (*why)
        diag_error(d, "device 'cuda' cannot be used: %s", why);
    else
        diag_error(d, "device 'cuda' cannot be used: %s is not installed", MODULE);
    diag_note(d, "--device cpu needs no GPU");
    return NULL;
}
