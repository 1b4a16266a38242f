/* --preprocess: how stored numbers become what the network was trained on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"

/* A finite number or fraction: "0.5", "1/255". */
static bool parse_number(const char **p, double *out)
{
    char *end;
    *out = strtod(*p, &end);
    if (end == *p) return false;
    if (*end == '/') {
        const char *q = end + 1;
        double by = strtod(q, &end);
        if (end == q || by == 0) return false;
        *out /= by;
    }
    *p = end;
    return isfinite(*out);
}

/* "0.485:0.456:0.406" into list; the count, or 0 if ill-formed. */
static int parse_list(const char *p, double *list, int max)
{
    int n = 0;
    while (n < max && parse_number(&p, &list[n])) {
        n++;
        if (*p != ':') break;
        p++;
    }
    return *p ? 0 : n;
}

/* "224" or "224x320", of at most 16,384 each. */
static bool parse_size(const char *p, int64_t *height, int64_t *width)
{
    const int64_t most = 1 << 14;
    char *end;
    *height = *width = strtol(p, &end, 10);
    if (end != p && *end == 'x') *width = strtol(p = end + 1, &end, 10);
    return end != p && !*end && *height > 0 && *width > 0 && *height <= most && *width <= most;
}

/* `value` is one of two words; whether it is the second. */
static int parse_choice(bool *second, const char *key, const char *value, const char *one,
                        const char *other, Diag *d)
{
    *second = strcmp(value, other) == 0;
    if (*second || strcmp(value, one) == 0) return 0;
    return diag_error(d, "--preprocess: %s is '%s' or '%s', not '%s'", key, one, other, value);
}

static int parse_image_field(Preprocess *pre, const char *key, const char *value, Diag *d)
{
    int64_t same;
    if (strcmp(key, "fit") == 0)
        return parse_choice(&pre->stretch, key, value, "crop", "stretch", d);
    if (strcmp(key, "order") == 0) return parse_choice(&pre->bgr, key, value, "rgb", "bgr", d);
    if (strcmp(key, "size") == 0) {
        if (parse_size(value, &pre->height, &pre->width)) return 0;
        return diag_error(d, "--preprocess: '%s' is no size like 224 or 240x320 (height x width)",
                          value);
    }
    if (strcmp(key, "resize") == 0) {
        if (parse_size(value, &pre->resize, &same) && pre->resize == same) return 0;
        return diag_error(d, "--preprocess: '%s' is no length for the shorter side", value);
    }
    return diag_error(d,
                      "--preprocess: unknown key '%s' (scale, mean, std, layout; of images: size, "
                      "resize, fit, order)",
                      key);
}

static int parse_field(Preprocess *pre, const char *key, const char *value, int *nmean, int *nstd,
                       Diag *d)
{
    const char *p = value;
    if (strcmp(key, "scale") == 0) {
        if (!parse_number(&p, &pre->scale) || *p || pre->scale == 0)
            return diag_error(d, "--preprocess: '%s' is not a scale", value);
    } else if (strcmp(key, "mean") == 0) {
        if (!(*nmean = parse_list(value, pre->mean, 16)))
            return diag_error(d, "--preprocess: '%s' is not a list of means", value);
    } else if (strcmp(key, "std") == 0) {
        if (!(*nstd = parse_list(value, pre->std, 16)))
            return diag_error(d, "--preprocess: '%s' is not a list of deviations", value);
        for (int i = 0; i < *nstd; i++)
            if (!(pre->std[i] > 0)) return diag_error(d, "--preprocess: std must be positive");
    } else if (strcmp(key, "layout") == 0) {
        return parse_choice(&pre->nhwc, key, value, "nchw", "nhwc", d);
    } else {
        return parse_image_field(pre, key, value, d);
    }
    return 0;
}

/* What samples are multiplied by and what is taken off them are floats. */
static int check_range(const Preprocess *pre, Diag *d)
{
    for (int i = 0; i < 16; i++) {
        const float factor = (float)(pre->scale / pre->std[i]),
                    shift = (float)(pre->mean[i] / pre->scale);
        if (!isfinite(factor) || !isnormal(factor) || !isfinite(shift))
            return diag_error(d, "--preprocess: scale %g, mean %g and std %g are out of range",
                              pre->scale, pre->mean[i], pre->std[i]);
    }
    return 0;
}

int preprocess_parse(Preprocess *out, const char *text, Diag *d)
{
    char buf[1024], *rest = buf;
    int nmean = 0, nstd = 0;
    *out = (Preprocess){.scale = 1, .given = true};
    for (int i = 0; i < 16; i++) out->std[i] = 1;
    if (strlen(text) >= sizeof buf) return diag_error(d, "--preprocess is too long");
    memcpy(buf, text, strlen(text) + 1);
    for (char *field; (field = strsep(&rest, ","));) {
        char *value = strchr(field, '=');
        if (!value) return diag_error(d, "--preprocess: '%s' has no '='", field);
        *value++ = '\0';
        TRY(parse_field(out, field, value, &nmean, &nstd, d));
    }
    if (nmean && nstd && nmean != nstd)
        return diag_error(d, "--preprocess: %d means but %d deviations", nmean, nstd);
    out->n = nmean > nstd ? nmean : nstd;
    return check_range(out, d);
}
