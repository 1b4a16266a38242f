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
typedef const Device *ModuleEntry(bool tf32, const char **why);

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
static const Device *cuda_device(bool tf32, char *why, size_t n)
{
    static void *module;
    static const Device *found[2];
    const Device *d;
#pragma omp critical(ehap_cuda_module)
    {
        const char *reason = NULL;
        ModuleEntry *entry = NULL;
        if (!module) module = open_module(why, n);
        if (module && !found[tf32]) {
            void *symbol = dlsym(module, ENTRY);
            memcpy(&entry, &symbol, sizeof entry);
            if (entry) found[tf32] = entry(tf32, &reason);
            if (!found[tf32]) snprintf(why, n, "%s", reason ? reason : "its module has no entry");
        }
        d = found[tf32];
    }
    return d;
}

/* The GPU if there is one; else the CPU, and, where the module is installed, one remark why. */
static const Device *device_auto(Diag *d)
{
    static bool told;
    char why[512];
    const Device *cuda = cuda_device(false, why, sizeof why);
    if (cuda) return cuda;
    if (*why && !told && d->sink) {
        diag_remark(d, "computing on the CPU: %s", why);
        told = true;
    }
    return &device_cpu;
}

const Device *device_find(const char *name, Diag *d)
{
    static const Device *const all[] = {&device_ref, &device_ref_last, &device_cpu};
    char why[512];
    if (strcmp(name, "auto") == 0) return device_auto(d);
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (strcmp(all[k]->name, name) == 0) return all[k];
    if (strcmp(name, "cuda") != 0 && strcmp(name, "cuda-tf32") != 0) {
        diag_error(d, "there is no device '%s'", name);
        return NULL;
    }
    const Device *cuda = cuda_device(strcmp(name, "cuda-tf32") == 0, why, sizeof why);
    if (cuda) return cuda;
    if (*why)
        diag_error(d, "device 'cuda' cannot be used: %s", why);
    else
        diag_error(d, "device 'cuda' cannot be used: %s is not installed", MODULE);
    diag_note(d, "--device cpu needs no GPU");
    return NULL;
}
