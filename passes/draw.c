/* Drawings that stand in for photographs.
 *
 * What natural images share, and networks are built on, is cheap to draw: flat regions with sharp
 * edges that hide one another, shading, texture whose power falls with frequency, mirror symmetry,
 * and colours that vary less than brightness. Each image is a background, some shapes over it
 * and a little noise, all from one Philox stream. */
#include <math.h>

#include "passes/synthesize.h"

enum { MAX_CHANNELS = 16 };

typedef struct Canvas {
    float *image, *mask;
    int64_t channels, height, width;
    Rng r;
} Canvas;

static float between(Rng *r, float lo, float hi) { return lo + (hi - lo) * rng_uniform(r); }
static float clamp01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/* Smooth noise: bilinear between random values on a grid of cells x cells, added to the mask. */
static void add_noise(Canvas *c, int cells, float weight)
{
    enum { MOST = 33 };
    float grid[MOST * MOST];
    if (cells > MOST - 1) cells = MOST - 1;
    for (int i = 0; i < (cells + 1) * (cells + 1); i++) grid[i] = rng_normal(&c->r);
    for (int64_t y = 0; y < c->height; y++)
        for (int64_t x = 0; x < c->width; x++) {
            float gy = (float)y * (float)cells / (float)c->height;
            float gx = (float)x * (float)cells / (float)c->width;
            int iy = (int)gy, ix = (int)gx;
            const float *g = grid + iy * (cells + 1) + ix;
            float fy = gy - (float)iy, fx = gx - (float)ix;
            float top = g[0] + fx * (g[1] - g[0]);
            float bottom = g[cells + 1] + fx * (g[cells + 2] - g[cells + 1]);
            c->mask[y * c->width + x] += weight * (top + fy * (bottom - top));
        }
}

/* Noise whose amplitude halves with each doubling of the frequency, from a random scale on. */
static void fractal(Canvas *c)
{
    for (int64_t i = 0; i < c->height * c->width; i++) c->mask[i] = 0;
    float falloff = between(&c->r, 0.35f, 0.8f), weight = 1;
    for (int cells = 1 << rng_below(&c->r, 4); cells <= 32; cells *= 2, weight *= falloff)
        add_noise(c, cells, weight);
}

static void random_colour(Rng *r, float *colour, int64_t n, float tint)
{
    float grey = rng_uniform(r);
    for (int64_t k = 0; k < n; k++) colour[k] = clamp01(grey + tint * rng_normal(r));
}

/* A region of the plane: negative inside, in units of half the image. */
typedef struct Shape {
    int kind, corners;
    float x, y, a, b, cosine, sine, thickness;
    float nx[8], ny[8], reach[8]; /* half-planes of a polygon */
} Shape;

enum { ELLIPSE, BOX, POLYGON, RING, STROKE, KINDS };

static Shape random_shape(Rng *r)
{
    Shape s = {.kind = (int)rng_below(r, KINDS)};
    float angle = rng_below(r, 2) ? 0 : between(r, -1.6f, 1.6f);
    s.x = between(r, -0.7f, 0.7f);
    s.y = between(r, -0.7f, 0.7f);
    s.a = between(r, 0.1f, 0.9f);
    s.b = between(r, 0.1f, 0.9f);
    s.cosine = cosf(angle);
    s.sine = sinf(angle);
    s.thickness = between(r, 0.03f, 0.2f);
    s.corners = 3 + (int)rng_below(r, 6);
    for (int k = 0; k < s.corners; k++) {
        float turn = ((float)k + between(r, -0.3f, 0.3f)) * 6.2831853f / (float)s.corners;
        s.nx[k] = cosf(turn);
        s.ny[k] = sinf(turn);
        s.reach[k] = between(r, 0.5f, 1.0f);
    }
    return s;
}

static float shape_distance(const Shape *s, float px, float py)
{
    float dx = px - s->x, dy = py - s->y, small = fminf(s->a, s->b);
    float u = (s->cosine * dx + s->sine * dy) / s->a, v = (s->cosine * dy - s->sine * dx) / s->b;
    float radius = sqrtf(u * u + v * v), far = -1e9f;
    switch (s->kind) {
    case ELLIPSE:
        return (radius - 1) * small;
    case BOX:
        return (fmaxf(fabsf(u), fabsf(v)) - 1) * small;
    case RING:
        return fabsf(radius - 1) * small - s->thickness;
    case STROKE:
        return fmaxf(fabsf(v) * s->b - s->thickness, (fabsf(u) - 1) * s->a);
    default:
        for (int k = 0; k < s->corners; k++)
            far = fmaxf(far, s->nx[k] * u + s->ny[k] * v - s->reach[k]);
        return far * small;
    }
}

/* How the inside of a region is coloured: between two colours, along a ramp and a texture. */
typedef struct Paint {
    float first[MAX_CHANNELS], second[MAX_CHANNELS];
    float ramp_x, ramp_y, texture, offset;
} Paint;

static Paint random_paint(Rng *r, int64_t channels, bool flat)
{
    Paint p = {.offset = rng_uniform(r)};
    random_colour(r, p.first, channels, 0.15f);
    random_colour(r, p.second, channels, 0.15f);
    if (flat) return p;
    p.ramp_x = rng_below(r, 2) ? between(r, -0.7f, 0.7f) : 0;
    p.ramp_y = rng_below(r, 2) ? between(r, -0.7f, 0.7f) : 0;
    p.texture = rng_below(r, 2) ? between(r, 0, 0.4f) : 0;
    return p;
}

/* Blends the paint over pixel i with opacity alpha. */
static void paint_pixel(Canvas *c, const Paint *p, int64_t i, float px, float py, float alpha)
{
    float t = clamp01(p->offset + p->ramp_x * px + p->ramp_y * py + p->texture * c->mask[i]);
    for (int64_t k = 0; k < c->channels; k++) {
        float *to = &c->image[k * c->height * c->width + i];
        float colour = p->first[k] + t * (p->second[k] - p->first[k]);
        *to += alpha * (colour - *to);
    }
}

/* Paints a shape, or the whole canvas where shape is NULL. */
static void paint(Canvas *c, const Shape *shape, const Paint *p, bool mirrored)
{
    float pixel = 2 / (float)(c->height < c->width ? c->height : c->width);
    for (int64_t y = 0; y < c->height; y++)
        for (int64_t x = 0; x < c->width; x++) {
            float px = 2 * ((float)x + 0.5f) / (float)c->width - 1;
            float py = 2 * ((float)y + 0.5f) / (float)c->height - 1;
            if (mirrored) px = fabsf(px);
            float inside = shape ? 0.5f - shape_distance(shape, px, py) / pixel : 1;
            if (inside > 0) paint_pixel(c, p, y * c->width + x, px, py, fminf(inside, 1));
        }
}

/* Plain black, white or any colour, or a painting; cut-outs have black or white behind them. */
static void draw_background(Canvas *c, DrawStyle style)
{
    bool plain = rng_below(&c->r, 10) < 6 || style != DRAW_SCENES;
    Paint p = random_paint(&c->r, c->channels, plain);
    uint32_t extreme = rng_below(&c->r, 3);
    if (style != DRAW_SCENES) extreme = style == DRAW_ON_BLACK ? 1 : 2;
    for (int64_t k = 0; plain && extreme && k < c->channels; k++)
        p.first[k] = p.second[k] = extreme == 1 ? 0 : 1;
    paint(c, NULL, &p, false);
}

static void finish(Canvas *c, DrawStyle style)
{
    int64_t n = c->channels * c->height * c->width;
    float noise = style != DRAW_SCENES || rng_below(&c->r, 3) ? 0 : between(&c->r, 0, 0.08f);
    float gain = between(&c->r, 0.6f, 1.1f), shift = between(&c->r, -0.05f, 0.05f);
    if (style != DRAW_SCENES || rng_below(&c->r, 2)) gain = 1, shift = 0;
    for (int64_t i = 0; i < n; i++) {
        float x = c->image[i] * gain + shift;
        c->image[i] = clamp01(noise > 0 ? x + noise * rng_normal(&c->r) : x);
    }
}

/* Cut-outs hang together: their shapes are near the middle, the first one is large. */
static Shape next_shape(Canvas *c, DrawStyle style, int i, bool centred)
{
    Shape s = random_shape(&c->r);
    if (centred) s.x = 0;
    if (style == DRAW_SCENES) return s;
    s.x *= 0.6f;
    s.y *= 0.8f;
    if (i > 0) return s;
    if (s.kind == STROKE) s.kind = BOX;
    s.x *= 0.2f;
    s.y *= 0.3f;
    s.a = 0.3f + 0.6f * s.a;
    s.b = 0.3f + 0.6f * s.b;
    return s;
}

void draw_image(float *image, float *scratch, int64_t channels, int64_t height, int64_t width,
                DrawStyle style, uint64_t seed, uint64_t index)
{
    Canvas c = {image, scratch, channels, height, width, rng_new(seed, index)};
    if (channels > MAX_CHANNELS) trap(TRAP_INTERNAL, "an image of %d channels", (int)channels);
    fractal(&c);
    draw_background(&c, style);
    bool mirrored = rng_below(&c.r, 4) < (style == DRAW_SCENES ? 2u : 3u);
    int shapes = 1 + (int)rng_below(&c.r, 7);
    for (int i = 0; i < shapes; i++) {
        Shape s = next_shape(&c, style, i, mirrored && rng_below(&c.r, 2));
        Paint p = random_paint(&c.r, channels, rng_below(&c.r, 2));
        if (rng_below(&c.r, 3) == 0) fractal(&c);
        paint(&c, &s, &p, mirrored);
    }
    finish(&c, style);
}
