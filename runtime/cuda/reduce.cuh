/* Reductions in two passes without shared memory: slices, then their sum. The number of slices
 * follows from the shapes alone, so results are the same in every run. */
SCALAR_FN float reduce_term(const ReduceArgs *a, const float *x)
{
    switch (a->term) {
    case TERM_DOT:
        return x[0] * x[1];
    case TERM_SQUARE:
        return (x[0] - x[1]) * (x[0] - x[1]);
    case TERM_CENTRED:
        return x[0] * (x[1] - x[2]);
    case TERM_EXP:
        return scalar_expf(x[0] - x[1]);
    case TERM_FAKE_STEP: {
        const float u = x[1] / x[2], q = rintf(u) + x[3];
        const float end = q < a->p[0] ? a->p[0] : q > a->p[1] ? a->p[1] : q;
        return x[0] * (q >= a->p[0] && q <= a->p[1] ? rintf(u) - u : end - x[3]);
    }
    default:
        return x[0];
    }
}

SCALAR_FN float reduce_start(int term)
{
    return term == TERM_MAX ? -INFINITY : term == TERM_MIN ? INFINITY : 0.f;
}

/* Kahan's; infinities have no error. */
SCALAR_FN void reduce_add(float *sum, float *lost, float x)
{
    const float y = x - *lost, t = *sum + y;
    *lost = t - *sum - y;
    *sum = t;
    if (*lost != *lost) *lost = 0.f;
}

SCALAR_FN float reduce_extreme(int term, float best, float x)
{
    if (x != x || best != best) return best != best ? best : x;
    return term == TERM_MAX ? (x > best ? x : best) : x < best ? x : best;
}

SCALAR_FN void reduce_offsets(int loops, const int64_t *dim, const int64_t stride[][MAP_DIMS],
                              int operands, int64_t i, int64_t most, int64_t *at)
{
    for (int k = loops - 1; k >= 0; k--) {
        const int64_t q = k ? gpu_divide(i, dim[k], most) : 0, r = i - q * dim[k];
        for (int o = 0; o < operands; o++) at[o] += r * stride[o][k];
        i = q;
    }
}

/* Operand o's numbers for n neighbouring kept elements: x[o], x[REDUCE_OPERANDS + o], … */
SCALAR_FN void reduce_load(const ReduceArgs *a, const int64_t *at, int n, float *x)
{
    for (int o = 0; o < a->operands; o++) {
        float some[4];
        if (n > 1 && a->kept_stride[o][a->kept_loops - 1])
            gpu_load_wide(a->x[o], a->dtype[o], at[o], n, some);
        else
            some[0] = some[1] = some[2] = some[3] = gpu_load(a->x[o], a->dtype[o], at[o]);
        for (int e = 0; e < n; e++) x[e * REDUCE_OPERANDS + o] = some[e];
    }
}

/* n: 1 or 4. */
SCALAR_FN void reduce_some(const ReduceArgs *a, int64_t i, int n)
{
    const int64_t e = a->slice_first ? gpu_divide(i, a->slices, a->threads) : i % a->kept;
    const int64_t s = a->slice_first ? i - e * a->slices : gpu_divide(i, a->kept, a->threads);
    const int extreme = a->term == TERM_MAX || a->term == TERM_MIN;
    int64_t base[REDUCE_OPERANDS] = {0};
    float sum[4], lost[4];
    for (int k = 0; k < n; k++) sum[k] = reduce_start(a->term), lost[k] = 0.f;
    reduce_offsets(a->kept_loops, a->kept_dim, a->kept_stride, a->operands, e, a->kept, base);
    for (int64_t r = s; r < a->reduced; r += a->slices) {
        int64_t at[REDUCE_OPERANDS];
        float all[4 * REDUCE_OPERANDS] = {0};
        for (int o = 0; o < a->operands; o++) at[o] = base[o];
        reduce_offsets(a->reduced_loops, a->reduced_dim, a->reduced_stride, a->operands, r,
                       a->reduced, at);
        reduce_load(a, at, n, all);
        for (int k = 0; k < n; k++) {
            const float x = reduce_term(a, all + k * REDUCE_OPERANDS);
            if (extreme)
                sum[k] = reduce_extreme(a->term, sum[k], x);
            else
                reduce_add(&sum[k], &lost[k], x);
        }
    }
    for (int k = 0; k < n; k++) a->partial[(s * a->kept + e) * n + k] = sum[k];
}

SCALAR_FN void reduce_thread(const ReduceArgs *a, int64_t i)
{
    if (a->wide == 4)
        reduce_some(a, i, 4);
    else
        reduce_some(a, i, 1);
}

SCALAR_FN void finish_thread(const FinishArgs *a, int64_t e)
{
    const int extreme = a->term == TERM_MAX || a->term == TERM_MIN;
    float sum = reduce_start(a->term), lost = 0.f;
    for (int64_t s = 0; s < a->slices; s++) {
        const float x = a->partial[s * a->threads + e];
        if (extreme) {
            sum = reduce_extreme(a->term, sum, x);
        } else {
            reduce_add(&sum, &lost, x);
        }
    }
    gpu_store(a->y, a->dtype, e, extreme ? sum : sum * a->scale);
}
