/* Generated code through NVRTC to the device's own instructions (or PTX, if NVRTC is older than the
 * device), kept on disk by the hash of all that it depends on: $EHAP_CACHE, or ehapc/ in the user's
 * cache folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cuda/real.h"
#include "runtime/cuda/sources.h"

/* The C headers that the prelude names, as far as device code needs them. */
static const char *const header_names[] = {"math.h", "stdint.h", "string.h"};
static const char *const headers[] = {
    "#pragma once\n#define INFINITY __int_as_float(0x7f800000)\n",
    "#pragma once\n"
    "typedef signed char int8_t;\ntypedef unsigned char uint8_t;\n"
    "typedef short int16_t;\ntypedef unsigned short uint16_t;\n"
    "typedef int int32_t;\ntypedef unsigned int uint32_t;\n"
    "typedef long long int64_t;\ntypedef unsigned long long uint64_t;\n",
    "#pragma once\n"};

static uint64_t hash(const char *s, uint64_t h)
{
    while (*s) h = (h ^ (uint8_t)*s++) * 1099511628211u;
    return h;
}

/* Where the code of this source lies; false: there is no cache. */
static bool cache_path(char *path, size_t n, const char *source)
{
    const char *cache = getenv("EHAP_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    char folder[3072];
    int major = 0, minor = 0;
    CHECK(nvrtc, nvrtcVersion(&major, &minor));
    if (cache && *cache)
        snprintf(folder, sizeof folder, "%s", cache);
    else if (xdg && *xdg)
        snprintf(folder, sizeof folder, "%s/ehapc", xdg);
    else if (home && *home)
        snprintf(folder, sizeof folder, "%s/.cache/ehapc", home);
    else
        return false;
    mkdir(folder, 0777); /* or it is there, or writing will fail */
    const uint64_t key = hash(source, hash(gpu_scalar, hash(gpu_prelude, 14695981039346656037u)));
    const int length = snprintf(path, n, "%s/%016llx-sm%d-nvrtc%d.%d.cubin", folder,
                                (unsigned long long)key, gpu.capability, major, minor);
    return length > 0 && (size_t)length < n;
}

/* Complete or not at all; failing is no error. */
static void write_cache(const char *path, const char *code, size_t n)
{
    char temporary[4096 + 32];
    snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(temporary, "wb");
    if (!f) return;
    const bool written = fwrite(code, 1, n, f) == n;
    if (fclose(f) != 0 || !written || rename(temporary, path) != 0) remove(temporary);
}

static char *read_cache(const char *path, size_t *n)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    char *code = NULL;
    if (f && fstat(fileno(f), &st) == 0 && st.st_size > 0 &&
        (code = calloc(1, (size_t)st.st_size + 1))) {
        *n = (size_t)st.st_size;
        if (fread(code, 1, *n, f) != *n) {
            free(code);
            code = NULL;
        }
    }
    if (f) fclose(f);
    return code;
}

/* What to compile for: the device itself or, if this NVRTC is too old for it, the last one before
 * it. Code for that runs on devices of the same major capability; others compile its PTX. */
typedef struct Goal {
    int arch;
    bool native;
} Goal;

static Goal goal_of(int capability)
{
    int n = 0, all[128];
    Goal g = {0, false};
    CHECK(nvrtc, nvrtcGetNumSupportedArchs(&n));
    if (n > (int)(sizeof all / sizeof *all)) gpu_fail("nvrtcGetNumSupportedArchs", "too many");
    CHECK(nvrtc, nvrtcGetSupportedArchs(all));
    for (int k = 0; k < n; k++)
        if (all[k] <= capability && all[k] > g.arch) g.arch = all[k];
    if (!g.arch) gpu_fail("nvrtcGetSupportedArchs", "none is as old as this device");
    g.native = g.arch / 10 == capability / 10;
    return g;
}

/* Fails with the compiler's own words. */
static void compile(nvrtcProgram program, Goal goal)
{
    char arch[48];
    snprintf(arch, sizeof arch, "--gpu-architecture=%s_%d", goal.native ? "sm" : "compute",
             goal.arch);
    const char *const options[] = {arch, "--std=c++17", "--fmad=false", "--disable-warnings"};
    const nvrtcResult status =
        nvrtcCompileProgram(program, sizeof options / sizeof *options, options);
    if (status == NVRTC_SUCCESS) return;
    size_t n = 0;
    char log[400] = "";
    if (nvrtcGetProgramLogSize(program, &n) == NVRTC_SUCCESS) {
        char *text = malloc(n + 1);
        if (text && nvrtcGetProgramLog(program, text) == NVRTC_SUCCESS)
            snprintf(log, sizeof log, "%s", text);
        free(text);
    }
    gpu_fail("nvrtcCompileProgram", *log ? log : nvrtcGetErrorString(status));
}

/* What may trap between creating the program and destroying it. */
static char *code_of(nvrtcProgram program, int capability, size_t *n)
{
    const Goal goal = goal_of(capability);
    compile(program, goal);
    if (goal.native)
        CHECK(nvrtc, nvrtcGetCUBINSize(program, n));
    else
        CHECK(nvrtc, nvrtcGetPTXSize(program, n));
    char *code = malloc(*n + 1);
    if (!code) trap(TRAP_NO_MEMORY, "out of memory for generated code");
    const nvrtcResult status =
        goal.native ? nvrtcGetCUBIN(program, code) : nvrtcGetPTX(program, code);
    if (status != NVRTC_SUCCESS) free(code);
    CHECK_STATUS(nvrtc, status, goal.native ? "nvrtcGetCUBIN" : "nvrtcGetPTX");
    code[*n] = '\0';
    return code;
}

static nvrtcProgram program_of(const char *source)
{
    const size_t length = strlen(gpu_prelude) + strlen(gpu_scalar) + strlen(source) + 1;
    char *text = malloc(length);
    if (!text) trap(TRAP_NO_MEMORY, "out of memory for generated code");
    snprintf(text, length, "%s%s%s", gpu_prelude, gpu_scalar, source);
    nvrtcProgram program;
    const nvrtcResult status = nvrtcCreateProgram(
        &program, text, "generated.cu", sizeof headers / sizeof *headers, headers, header_names);
    free(text); /* the program has its own copy */
    CHECK_STATUS(nvrtc, status, "nvrtcCreateProgram");
    return program;
}

char *gpu_compile(const char *source, int capability, size_t *n)
{
    Trap t;
    nvrtcProgram program = program_of(source);
    if (trap_enter(&t)) {
        (void)nvrtcDestroyProgram(&program);
        trap(t.kind, "%s", t.message);
    }
    char *code = code_of(program, capability, n);
    trap_leave(&t);
    (void)nvrtcDestroyProgram(&program);
    return code;
}

/* NULL: what was kept is no code for this device; anything else that fails traps. */
static void *load(const char *code, bool kept)
{
    cudaLibrary_t library;
    cudaKernel_t kernel;
    struct cudaFuncAttributes attributes;
    const cudaError_t status = cudaLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0);
    if (kept && status != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    CHECK_STATUS(cuda, status, "cudaLibraryLoadData");
    CHECK(cuda, cudaLibraryGetKernel(&kernel, library, "generated"));
    CHECK(cuda, cudaFuncGetAttributes(&attributes, (const void *)kernel)); /* loads it now */
    return (void *)kernel;
}

/* The library has its own copy of the code. */
static void *load_and_free(char *code, bool kept)
{
    Trap t;
    if (trap_enter(&t)) {
        free(code);
        trap(t.kind, "%s", t.message);
    }
    void *kernel = load(code, kept);
    trap_leave(&t);
    free(code);
    return kernel;
}

void *gpu_build(const char *source)
{
    char path[4096], *code = NULL;
    void *kernel = NULL;
    size_t n = 0;
    const bool cached = cache_path(path, sizeof path, source);
    if (cached && (code = read_cache(path, &n))) kernel = load_and_free(code, true);
    if (kernel) return kernel;
    code = gpu_compile(source, gpu.capability, &n);
    if (cached) write_cache(path, code, n);
    return load_and_free(code, false);
}
