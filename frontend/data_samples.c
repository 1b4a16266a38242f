/* --data and --eval: files and folders, by kind, joined into one set of samples. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "frontend/data.h"
#include "frontend/file.h"
#include "ir/batch.h"
#include "ir/digest.h"
#include "ir/text.h"

enum { MOST_UNREAD = 1 << 26 }; /* bytes made up for an input that nobody reads */

typedef int Reader(Parts *ps, const char *path);

/* How a file's kind shows in its name. */
static const struct {
    const char *suffix; /* NULL: `inside` anywhere in the name */
    const char *inside;
    Reader *read;
} kinds[] = {
    {NULL, "-ubyte", idx_read},  {".npy", NULL, npy_read},   {".npz", NULL, npz_read_samples},
    {".pb", NULL, pb_read},      {".bin", NULL, cifar_read}, {".jpg", NULL, image_read},
    {".jpeg", NULL, image_read}, {".png", NULL, image_read},
};

static Reader *reader_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        size_t m = kinds[k].suffix ? strlen(kinds[k].suffix) : 0;
        if (kinds[k].suffix ? n > m && strcasecmp(name + n - m, kinds[k].suffix) == 0
                            : strstr(name, kinds[k].inside) != NULL)
            return kinds[k].read;
    }
    return NULL;
}

void parts_add(Parts *ps, Part p)
{
    if (ps->n == ps->cap) {
        Part *list = NEW_ARRAY(ps->arena, Part, ps->cap ? ps->cap * 2 : 8);
        if (ps->n) memcpy(list, ps->list, (size_t)ps->n * sizeof *list);
        ps->list = list;
        ps->cap = ps->cap ? ps->cap * 2 : 8;
    }
    ps->list[ps->n++] = p;
}

Type sample_type(const Parts *ps, int i)
{
    return batch_part(&ps->graph->inputs[i]->type, ps->axes[i]);
}

/* Whether a sample of type t may be one of those wanted, whose sizes may be open. */
static bool agrees(const Type *t, const Type *want)
{
    bool same = t->rank == want->rank;
    for (int i = 0; same && i < t->rank; i++) same = want->dim[i] < 0 || t->dim[i] == want->dim[i];
    return same;
}

/* Samples that lie along an inner axis of an array. */
typedef struct Strided {
    const void *data;
    int64_t outer, count;
    size_t bytes; /* of a sample */
} Strided;

static void make_strided(const void *data, int64_t i, void *out)
{
    const Strided *s = data;
    batch_get(out, s->data, s->outer, i, s->count, s->bytes);
}

static void add_strided(Parts *ps, int input, const Type *t, int axis, const void *data)
{
    Part p = {.input = input, .count = t->dim[axis], .sample = batch_part(t, axis)};
    Strided *s = NEW(ps->arena, Strided);
    *s = (Strided){data, batch_outer(t, axis), p.count, (size_t)type_bytes(&p.sample)};
    p.data = s;
    p.make = make_strided;
    parts_add(ps, p);
}

int parts_add_array(Parts *ps, int input, const Type *t, const void *data, const char *what)
{
    const Type want = sample_type(ps, input);
    const int axis = ps->axes[input];
    if (axis < 0 && agrees(t, &want)) {
        parts_add(ps, (Part){.input = input, .count = 1, .sample = *t, .data = data});
        return 0;
    }
    if (t->rank < 1) return diag_error(ps->diag, "%s has no sample axis", what);
    const Type first = batch_part(t, 0), along = batch_part(t, axis);
    if (axis > 0 && t->rank == want.rank + 1 && agrees(&along, &want) && !agrees(&first, &want))
        add_strided(ps, input, t, axis, data);
    else
        parts_add(ps, (Part){.input = input, .count = t->dim[0], .sample = first, .data = data});
    return 0;
}

int pb_read(Parts *ps, const char *path)
{
    Value *v;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int input = strncmp(name, "input_", 6) == 0 ? atoi(name + 6) : 0;
    if (strncmp(name, "output_", 7) == 0) return 0; /* the expected side of ONNX test data */
    TRY(onnx_read_tensor(&v, graph_new(ps->arena, NULL), path, ps->diag));
    if (input >= ps->graph->ninputs)
        return diag_error(ps->diag, "'%s': the model has %d inputs", path, ps->graph->ninputs);
    return parts_add_array(ps, input, &v->type, v->data, arena_printf(ps->arena, "'%s'", path));
}

typedef struct Listing {
    struct dirent **names;
    int n;
} Listing;

static void free_listing(void *p)
{
    Listing *l = p;
    for (int i = 0; i < l->n; i++) free(l->names[i]);
    free(l->names);
}

/* The files of a folder in order; n < 0: it cannot be read, as errno says. */
static Listing *listing_new(Arena *a, const char *path)
{
    Listing *l = NEW(a, Listing);
    arena_defer(a, free_listing, l);
    l->n = scandir(path, &l->names, NULL, alphasort);
    return l;
}

static int64_t count_parts(const Parts *ps)
{
    int64_t n = 0;
    for (int k = 0; k < ps->n; k++) n += ps->list[k].count;
    return n;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The files of a folder, by name; of one that stands for a class the images. */
static int read_files(Parts *ps, const char *path)
{
    Listing *l = listing_new(ps->arena, path);
    if (l->n < 0) return diag_error(ps->diag, "cannot read folder '%s': %s", path, strerror(errno));
    for (int i = 0; i < l->n; i++) {
        const char *file = arena_printf(ps->arena, "%s/%s", path, l->names[i]->d_name);
        Reader *read = reader_of(file);
        if (read && (ps->label < 0 || read == image_read) && !is_folder(file)) TRY(read(ps, file));
    }
    return 0;
}

/* A folder of files, or of folders by class: those that hold images are numbered by name. */
static int read_folder(Parts *ps, const char *path)
{
    const int64_t before = count_parts(ps);
    TRY(read_files(ps, path));
    Listing *l = listing_new(ps->arena, path);
    int32_t label = 0;
    for (int i = 0; i < l->n; i++) {
        const char *folder = arena_printf(ps->arena, "%s/%s", path, l->names[i]->d_name);
        const int64_t so_far = count_parts(ps);
        if (l->names[i]->d_name[0] == '.' || !is_folder(folder)) continue;
        ps->label = label;
        TRY(read_files(ps, folder));
        label += count_parts(ps) > so_far;
    }
    ps->label = -1;
    if (count_parts(ps) == before)
        return diag_error(ps->diag, "folder '%s' holds no samples that can be read", path);
    return 0;
}

static int read_path(Parts *ps, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return diag_error(ps->diag, "cannot open '%s': %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return read_folder(ps, path);
    Reader *read = reader_of(path);
    if (read) return read(ps, path);
    diag_error(ps->diag, "'%s' is of no known kind of sample file", path);
    diag_note(ps->diag, "CIFAR records end in .bin, idx files hold '-ubyte' in their name, arrays "
                        "end in .npy, .npz or .pb, images in .jpg, .jpeg or .png");
    return -1;
}

/* [H,W,C] models given planes: x[h][w][c] = plane[c][h][w], on stored elements. */
static void make_nhwc(const void *data, int64_t i, void *out)
{
    const SampleInput *planes = data;
    const int64_t c = planes->type.dim[2], hw = planes->type.dim[0] * planes->type.dim[1];
    const uint8_t *src = sample_at(planes, i, NULL);
    uint8_t *dst = out;
    for (int64_t p = 0; p < hw; p++)
        for (int64_t k = 0; k < c; k++) dst[p * c + k] = src[k * hw + p];
}

static void planes_to_nhwc(SampleInput *in, Arena *a)
{
    const SamplePiece made = {.data = arena_memdup(a, in, sizeof *in), .make = make_nhwc};
    in->pieces = arena_memdup(a, &made, sizeof made);
    in->npieces = 1;
}

/* Whether a part holds planes of bytes where the model, as --preprocess says, takes [H,W,C]. */
static bool are_planes(const Part *p, const Type *want, const Parts *ps)
{
    bool same = p->sample.rank == want->rank;
    for (int i = 0; same && i < want->rank; i++) same = p->sample.dim[i] == want->dim[i];
    return ps->pre->nhwc && !p->make && want->rank == 3 && p->sample.dtype == DT_U8 && !same;
}

/* The element counts of the sample must match; [H,W] bytes may feed a [1,H,W] input. */
static int check_part(const Parts *ps, const Part *p, const Type *want)
{
    char a[128], b[128];
    if (type_count(&p->sample) == 0) /* a short file could claim any number of them */
        return diag_error(ps->diag, "samples for input '%s' have no elements: %s",
                          ps->graph->inputs[p->input]->name,
                          type_print(NULL, &p->sample, a, sizeof a));
    bool fits = type_is_static(want) ? type_count(&p->sample) == type_count(want)
                                     : p->sample.rank == want->rank;
    for (int i = 0; fits && !type_is_static(want) && i < want->rank; i++)
        fits = want->dim[i] < 0 || want->dim[i] == p->sample.dim[i];
    if (fits && dtype_size(p->sample.dtype)) return 0;
    return diag_error(ps->diag, "samples are %s, input '%s' takes %s",
                      type_print(NULL, &p->sample, a, sizeof a), ps->graph->inputs[p->input]->name,
                      type_print(ps->graph, want, b, sizeof b));
}

/* The parts of one input, where they lie, one after the other. */
static void list_pieces(SampleInput *in, const Parts *ps, Arena *a, int input)
{
    const size_t row = (size_t)type_bytes(&in->type);
    SamplePiece *pieces = NEW_ARRAY(a, SamplePiece, ps->n);
    int64_t first = 0;
    for (int k = 0; k < ps->n; k++) {
        const Part *p = &ps->list[k];
        if (p->input != input || p->count == 0) continue;
        pieces[in->npieces++] = (SamplePiece){p->data, first, p->pitch ? p->pitch : row, p->make};
        first += p->count;
        const size_t room = p->room ? p->room(p->data) : 0;
        if (room > in->room) in->room = room;
    }
    in->pieces = pieces;
}

/* The parts of an input are of one kind; *first of them, and how many samples they have. */
static int check_parts(Parts *ps, int input, const Type *want, const Part **first, int64_t *count)
{
    *first = NULL;
    *count = 0;
    for (int k = 0; k < ps->n; k++) {
        const Part *p = &ps->list[k];
        if (p->input != input) continue;
        TRY(check_part(ps, p, want));
        if (!*first) *first = p;
        if (p->sample.dtype != (*first)->sample.dtype)
            return diag_error(ps->diag, "sample files of different element types: %s and %s",
                              dtype_name((*first)->sample.dtype), dtype_name(p->sample.dtype));
        if (are_planes(p, want, ps) != are_planes(*first, want, ps))
            return diag_error(ps->diag, "some samples are planes, others have channels last");
        *count += p->count;
    }
    if (!*first || *count == 0)
        return diag_error(ps->diag, "no samples for input '%s'", ps->graph->inputs[input]->name);
    return 0;
}

/* The labels of all `count` samples of an input; NULL unless every part has them. */
static const int32_t *join_labels(const Parts *ps, Arena *a, int input, int64_t count)
{
    for (int k = 0; k < ps->n; k++)
        if (ps->list[k].input == input && !ps->list[k].labels) return NULL;
    int32_t *labels = NEW_ARRAY(a, int32_t, count), *at = labels;
    for (int k = 0; k < ps->n; k++) {
        const Part *p = &ps->list[k];
        if (p->input != input) continue;
        memcpy(at, p->labels, (size_t)p->count * sizeof *at);
        at += p->count;
    }
    return labels;
}

/* Joins the parts of one input; *labels stays where it has none. */
static int join(Parts *ps, Arena *a, SampleInput *in, int input, int64_t *count,
                const int32_t **labels)
{
    const Type want = sample_type(ps, input);
    const Part *first;
    TRY(check_parts(ps, input, &want, &first, count));
    Type t = type_is_static(&want) ? want : first->sample;
    t.dtype = first->sample.dtype;
    const int32_t *y = join_labels(ps, a, input, *count);
    *in = (SampleInput){.name = ps->graph->inputs[input]->name,
                        .type = t,
                        .batch_axis = ps->axes[input],
                        .channel_axis = -1};
    list_pieces(in, ps, a, input);
    if (are_planes(first, &t, ps)) planes_to_nhwc(in, a);
    if (y) *labels = y;
    return 0;
}

/* x = (stored * scale - mean) / std = (stored - mean / scale) * (scale / std). */
static int apply(SampleInput *in, Arena *a, const Preprocess *pre, const Parts *ps)
{
    int axis = pre->nhwc ? in->type.rank - 1 : 0, n = pre->n ? pre->n : 1;
    float *factor = NEW_ARRAY(a, float, n), *shift = NEW_ARRAY(a, float, n);
    if (n > 1 && (in->type.rank < 1 || in->type.dim[axis] != n))
        return diag_error(ps->diag, "--preprocess gives %d channels, input '%s' has %lld", n,
                          in->name, in->type.rank < 1 ? 0LL : (long long)in->type.dim[axis]);
    for (int c = 0; c < n; c++) {
        factor[c] = (float)(pre->scale / pre->std[c]);
        shift[c] = (float)(pre->mean[c] / pre->scale);
    }
    in->channel_axis = n > 1 ? axis : -1;
    in->factor = factor;
    in->shift = shift;
    return 0;
}

/* Only inputs of type float or double have samples converted for them (samples_gather). */
static int check_conversion(const SampleInput *in, const Value *input, Diag *d)
{
    const DType want = input->type.dtype;
    if (want == DT_F32 || want == DT_F64 || (in->type.dtype == want && !in->factor)) return 0;
    if (in->type.dtype == want)
        return diag_error(d, "--preprocess is for inputs of type float or double, '%s' takes %s",
                          in->name, dtype_name(want));
    return diag_error(
        d, "samples are %s, input '%s' takes %s, and only to float or double they are converted",
        dtype_name(in->type.dtype), in->name, dtype_name(want));
}

/* Whether an input's samples are all one: where it has no batch, those of a folder of test cases
 * may be. */
static bool all_same(const SampleInput *in, int64_t count)
{
    bool same = count == 1 || (in->batch_axis < 0 && !in->pieces[0].make);
    for (int64_t k = 1; same && k < count; k++)
        same = memcmp(sample_at(in, 0, NULL), sample_at(in, k, NULL),
                      (size_t)type_bytes(&in->type)) == 0;
    return same;
}

/* The number of samples: one alone goes with however many the other inputs have. */
static int count_samples(Samples *s, const int64_t *counts, Diag *d)
{
    int most = 0;
    for (int i = 1; i < s->ninputs; i++)
        if (counts[i] > counts[most]) most = i;
    s->count = counts[most];
    for (int i = 0; i < s->ninputs; i++) {
        s->inputs[i].same = all_same(&s->inputs[i], counts[i]);
        if (!s->inputs[i].same && counts[i] != s->count)
            return diag_error(d, "%lld samples for input '%s' but %lld for '%s'",
                              (long long)s->count, s->inputs[most].name, (long long)counts[i],
                              s->inputs[i].name);
    }
    return 0;
}

static int finish(Samples *s, Arena *a, Parts *ps, const Preprocess *pre)
{
    int64_t *counts = NEW_ARRAY(a, int64_t, s->ninputs);
    int labelled = 0;
    for (int i = 0; i < s->ninputs; i++) {
        const int32_t *labels = s->labels;
        TRY(join(ps, a, &s->inputs[i], i, &counts[i], &s->labels));
        if (s->labels != labels) labelled = i;
        bool is_float = dtype_is_float(ps->graph->inputs[i]->type.dtype);
        if (ps->axes[i] >= 0 && pre && pre->given && is_float)
            TRY(apply(&s->inputs[i], a, pre, ps));
        TRY(check_conversion(&s->inputs[i], ps->graph->inputs[i], ps->diag));
    }
    TRY(count_samples(s, counts, ps->diag));
    if (s->labels && counts[labelled] != s->count)
        return diag_error(ps->diag, "%lld labels for %lld samples", (long long)counts[labelled],
                          (long long)s->count);
    if (s->inputs[0].type.dtype == DT_U8 && !s->inputs[0].factor &&
        dtype_is_float(ps->graph->inputs[0]->type.dtype))
        diag_remark(ps->diag, "no --preprocess given: bytes are fed to '%s' as 0 to 255",
                    s->inputs[0].name);
    for (int64_t i = 0; s->labels && i < s->count; i++) {
        if (s->labels[i] < 0)
            return diag_error(ps->diag, "sample %lld has the label %d", (long long)i, s->labels[i]);
        if (s->labels[i] >= s->nclasses) s->nclasses = s->labels[i] + 1;
    }
    return 0;
}

/* What nobody reads need not be given: a zero goes with all samples. */
static void feed_unread(Parts *ps)
{
    for (int i = 0; i < ps->graph->ninputs; i++) {
        Type t = sample_type(ps, i);
        bool given = t.rank < 0 || value_is_read(ps->graph, ps->graph->inputs[i]);
        for (int k = 0; k < ps->n && !given; k++) given = ps->list[k].input == i;
        if (given) continue;
        for (int k = 0; k < t.rank; k++)
            if (t.dim[k] < 1) t.dim[k] = 1;
        const int64_t bytes = type_bytes(&t);
        if (bytes <= 0 || bytes > MOST_UNREAD) continue;
        parts_add(ps, (Part){.input = i,
                             .count = 1,
                             .sample = t,
                             .data = arena_alloc(ps->arena, (size_t)bytes)});
    }
}

static int read_all(Samples *s, Arena *a, Parts *ps, const char *list, const Preprocess *pre)
{
    for (const char *const *path = name_list(ps->arena, list); *path; path++)
        TRY(read_path(ps, *path));
    if (ps->n == 0) return diag_error(ps->diag, "'%s' names no samples", list);
    feed_unread(ps);
    return finish(s, a, ps, pre);
}

static uint64_t stamp_folder(uint64_t h, Arena *a, const char *path, bool classes)
{
    Listing *l = listing_new(a, path);
    for (int i = 0; i < l->n; i++) {
        const char *file = arena_printf(a, "%s/%s", path, l->names[i]->d_name);
        if (classes && l->names[i]->d_name[0] != '.' && is_folder(file))
            h = stamp_folder(h, a, file, false);
        if (!reader_of(file)) continue;
        h = digest(h, file, strlen(file));
        h = file_stamp(h, file);
    }
    return h;
}

uint64_t samples_stamp(uint64_t h, const char *list)
{
    Arena *a = arena_new();
    for (const char *const *path = name_list(a, list); *path; path++) {
        const char *labels = idx_labels_path(a, *path);
        if (is_folder(*path)) {
            h = stamp_folder(h, a, *path, true);
            continue;
        }
        h = file_stamp(h, *path);
        if (labels) h = file_stamp(h, labels);
    }
    arena_free(a);
    return h;
}

int samples_read(Samples **out, Arena *a, const char *list, const Preprocess *pre, const Graph *g,
                 Diag *d)
{
    Samples *s = NEW(a, Samples);
    if (g->ninputs == 0) return diag_error(d, "the model has no inputs to feed samples to");
    s->ninputs = g->ninputs;
    s->inputs = NEW_ARRAY(a, SampleInput, g->ninputs);
    static const Preprocess none = {.scale = 1};
    Parts ps = {.arena = a,
                .graph = g,
                .axes = batch_axes(g, a),
                .pre = pre ? pre : &none,
                .label = -1,
                .diag = d};
    int status = read_all(s, a, &ps, list, pre);
    s->source = arena_printf(a, "%s (%lld samples)", list, (long long)s->count);
    *out = s;
    return status;
}
