/* Compiles with NVRTC, for each capability named, every source that the emulated device has met:
 * nvrtc_all FOLDER CAPABILITY… Without a GPU this shows that generated code is CUDA C. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/real.h"

Gpu gpu;

void gpu_failed(const char *call, const char *status, bool full)
{
    fprintf(stderr, "%s failed: %s%s\n", call, status, full ? " (memory)" : "");
    exit(1);
}

void gpu_fail(const char *call, const char *status) { gpu_failed(call, status, false); }

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (!f || !text) gpu_fail("open", path);
    text[fread(text, 1, (1 << 20) - 1, f)] = '\0';
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    DIR *folder = opendir(argv[1]);
    int n = 0;
    if (argc < 3 || !folder) return puts("skipped: nothing has been generated"), 77;
    for (struct dirent *e; (e = readdir(folder));) {
        char path[4096];
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".source") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        char *text = read_file(path);
        for (int k = 2; k < argc; k++, n++) {
            size_t size;
            free(gpu_compile(text, atoi(argv[k]), &size));
        }
        free(text);
    }
    closedir(folder);
    printf("%d kernels compiled\n", n);
    return n ? 0 : 77;
}
