/* Reductions in two passes without shared memory: slices, then their sum. The number of slices
 * follows from the shapes alone, so results are the same in every run. */
SCALAR_FN float reduce_term(const ReduceArgs *a, const int64_t *at)
{
    float x[REDUCE_OPERANDS];
    for (int k = 0; k < a->operands; k++) x[k] = gpu_load(a->x[k], a->dtype[k], at[k]);
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

SCALAR_FN float reduce_extreme(int term, float best, float x)
{
    if (x != x || best != best) return best != best ? best : x;
    return term == TERM_MAX ? (x > best ? x : best) : x < best ? x : best;
}

SCALAR_FN void reduce_offsets(int loops, const int64_t *dim, const int64_t stride[][MAP_DIMS],
                              int operands, int64_t i, int64_t *at)
{
    for (int k = loops - 1; k >= 0; k--) {
        const int64_t q = i / dim[k], r = i - q * dim[k];
        for (int o = 0; o < operands; o++) at[o] += r * stride[o][k];
        i = q;
    }
}

SCALAR_FN void reduce_thread(const ReduceArgs *a, int64_t i)
{
    const int64_t e = a->slice_first ? i / a->slices : i % a->kept;
    const int64_t s = a->slice_first ? i % a->slices : i / a->kept;
    const int extreme = a->term == TERM_MAX || a->term == TERM_MIN;
    int64_t base[REDUCE_OPERANDS] = {0};
    float sum = reduce_start(a->term), lost = 0.f;
    reduce_offsets(a->kept_loops, a->kept_dim, a->kept_stride, a->operands, e, base);
    for (int64_t r = s; r < a->reduced; r += a->slices) {
        int64_t at[REDUCE_OPERANDS];
        for (int o = 0; o < a->operands; o++) at[o] = base[o];
        reduce_offsets(a->reduced_loops, a->reduced_dim, a->reduced_stride, a->operands, r, at);
        const float x = reduce_term(a, at);
        if (extreme) {
            sum = reduce_extreme(a->term, sum, x);
        } else {
            const float y = x - lost, t = sum + y;
            lost = t - sum - y;
            sum = t;
            if (lost != lost) lost = 0.f; /* infinities have no error */
        }
    }
    a->partial[s * a->kept + e] = sum;
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
            const float y = x - lost, t = sum + y;
            lost = t - sum - y;
            sum = t;
            if (lost != lost) lost = 0.f;
        }
    }
    gpu_store(a->y, a->dtype, e, extreme ? sum : sum * a->scale);
}
