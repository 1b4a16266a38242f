/* Scores as JSON:
 *   {"criterion", "precision", "probes", "seconds", "peak_bytes",
 *    "layers": [{"node", "weight", "score": […], "stderr": […]}]} */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "ir/digest.h"
#include "tools/session.h"

static cJSON *layer_json(const LayerScores *l)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "node", l->node ? l->node : "");
    cJSON_AddStringToObject(o, "weight", l->weight);
    cJSON_AddItemToObject(o, "score", cJSON_CreateDoubleArray(l->score, l->n));
    cJSON_AddItemToObject(o, "stderr", cJSON_CreateDoubleArray(l->error, l->n));
    return o;
}

int scores_write(const Scores *s, const char *path, Diag *d)
{
    cJSON *root = cJSON_CreateObject(), *layers = cJSON_CreateArray();
    cJSON_AddStringToObject(root, "criterion", s->criterion);
    cJSON_AddStringToObject(root, "precision", s->precision ? s->precision : "fp32");
    cJSON_AddNumberToObject(root, "probes", s->probes);
    cJSON_AddNumberToObject(root, "seconds", s->seconds);
    cJSON_AddNumberToObject(root, "peak_bytes", (double)s->peak_bytes);
    for (int i = 0; i < s->nlayers; i++) cJSON_AddItemToArray(layers, layer_json(&s->layers[i]));
    cJSON_AddItemToObject(root, "layers", layers);
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    int status = text ? text_write(path, text, d) : diag_error(d, "out of memory");
    free(text);
    return status;
}

static bool numbers(double **out, int *n, Arena *a, const cJSON *list)
{
    int k = 0;
    const cJSON *x;
    if (!cJSON_IsArray(list)) return false;
    *n = cJSON_GetArraySize(list);
    *out = NEW_ARRAY(a, double, *n);
    cJSON_ArrayForEach(x, list)
    {
        if (!cJSON_IsNumber(x) || x->valuedouble != x->valuedouble) return false;
        (*out)[k++] = x->valuedouble;
    }
    return true;
}

static bool read_layer(LayerScores *l, Arena *a, const cJSON *o)
{
    int nerror;
    const cJSON *node = cJSON_GetObjectItem(o, "node"), *weight = cJSON_GetObjectItem(o, "weight");
    if (!cJSON_IsString(node) || !cJSON_IsString(weight)) return false;
    l->node = arena_strdup(a, node->valuestring);
    l->weight = arena_strdup(a, weight->valuestring);
    return numbers(&l->score, &l->n, a, cJSON_GetObjectItem(o, "score")) &&
           numbers(&l->error, &nerror, a, cJSON_GetObjectItem(o, "stderr")) && nerror == l->n;
}

static bool read_scores(Scores *s, Arena *a, const cJSON *root)
{
    const cJSON *criterion = cJSON_GetObjectItem(root, "criterion"), *o;
    const cJSON *layers = cJSON_GetObjectItem(root, "layers");
    const cJSON *precision = cJSON_GetObjectItem(root, "precision");
    const cJSON *probes = cJSON_GetObjectItem(root, "probes");
    int k = 0;
    if (!cJSON_IsString(criterion) || !cJSON_IsArray(layers)) return false;
    s->criterion = arena_strdup(a, criterion->valuestring);
    s->precision = arena_strdup(a, cJSON_IsString(precision) ? precision->valuestring : "fp32");
    s->probes = cJSON_IsNumber(probes) ? probes->valueint : 0;
    s->nlayers = cJSON_GetArraySize(layers);
    s->layers = NEW_ARRAY(a, LayerScores, s->nlayers);
    cJSON_ArrayForEach(o, layers) if (!read_layer(&s->layers[k++], a, o)) return false;
    return true;
}

int scores_read(Scores **out, Arena *a, const char *path, Diag *d)
{
    char *text = text_read(a, path, d);
    if (!text) return -1;
    cJSON *root = cJSON_Parse(text);
    *out = NEW(a, Scores);
    bool good = root && read_scores(*out, a, root);
    cJSON_Delete(root);
    if (good) return 0;
    diag_error(d, "'%s' does not hold scores", path);
    diag_note(d, "`ehapc sensitivity MODEL -o FILE` writes them");
    return -1;
}

/* Over names and scores: two outputs with equal digests were chosen from equal scores. */
const char *scores_digest(Arena *a, const Scores *s)
{
    uint64_t h = DIGEST_START;
    for (int l = 0; s && l < s->nlayers; l++) {
        h = digest(h, s->layers[l].weight, strlen(s->layers[l].weight));
        h = digest(h, s->layers[l].score, (size_t)s->layers[l].n * sizeof(double));
    }
    return s ? arena_printf(a, "%016llx", (unsigned long long)h) : "";
}
