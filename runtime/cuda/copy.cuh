/* Strided copies, and the rows, counters and statistics of repeated runs. */
SCALAR_FN void copy_thread(const CopyArgs *a, int64_t i)
{
    int64_t to = 0, from = 0;
    for (int k = a->loops - 1; k > 0; k--) {
        const int64_t q = gpu_divide(i, a->dim[k], a->threads), r = i - q * a->dim[k];
        to += r * a->to[k];
        from += r * a->from[k];
        i = q;
    }
    to += i * a->to[0];
    from += i * a->from[0];
    if (a->size == 1)
        ((uint8_t *)a->dst)[to] = ((const uint8_t *)a->src)[from];
    else
        gpu_move((char *)a->dst + to * a->size, (const char *)a->src + from * a->size, a->size);
}

SCALAR_FN void append_thread(const AppendArgs *a, int64_t i)
{
    const int64_t row = *a->counter + a->lane;
    const float x = a->x[i];
    a->rows[row * a->row + a->at + i] = x;
    if (!(x - x == 0)) gpu_lower(a->bad, row);
}

SCALAR_FN void bump_thread(const BumpArgs *a, int64_t i)
{
    a->keys[i * a->size + a->size - 1] += a->threads;
    if (i == 0) *a->counter += a->threads;
}

SCALAR_FN void gather_thread(const GatherArgs *a, int64_t i) { a->total[i] += (double)a->rows[i]; }

SCALAR_FN void observe_thread(const ObserveArgs *a, int64_t i)
{
    double *at = a->moments + i;
    for (int64_t k = 0; k < a->n; k++) {
        double *sum = a->total + k * a->threads + i;
        const double x = a->factor[i] * *sum, d = x - at[0];
        at[0] += d / (double)(a->before + k + 1);
        at[a->threads] += d * (x - at[0]);
        at[(2 + (a->before + k) % 2) * a->threads] += x;
        *sum = 0;
    }
}

/* In doubles, of which floats are some: min and max are exact, and a sum of floats rounds once
 * more, the same on every rank. */
SCALAR_FN double ranked_load(const RankedArgs *a, int64_t at)
{
    return a->wide ? ((const double *)a->all)[at] : (double)((const float *)a->all)[at];
}

SCALAR_FN void ranked_thread(const RankedArgs *a, int64_t i)
{
    double y = ranked_load(a, i);
    for (int64_t r = 1; r < a->ranks; r++) {
        const double x = ranked_load(a, r * a->threads + i);
        const int better = a->op == 1 ? x < y : x > y;
        if (a->op == 0)
            y += x;
        else if (better || x != x)
            y = x;
    }
    if (a->wide)
        ((double *)a->y)[i] = y;
    else
        ((float *)a->y)[i] = (float)y;
}
