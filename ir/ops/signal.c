/* What speech front ends multiply spectra with: window functions, mel filters. Constants once their
 * arguments are, so no gradient nor channel passes. */
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* float32 unless `output_datatype` says otherwise. */
static int numeric_output(const Node *n, DType *dtype, Diag *d)
{
    const int64_t want = node_int(n, "output_datatype", DT_F32);
    *dtype = (DType)want;
    if (want == DT_F32 || want == DT_F64 || want == DT_F16 || want == DT_BF16) return 0;
    return node_error(d, n, "'output_datatype' is %lld; floating-point types are known",
                      (long long)want);
}

/* size -> [size] */
int infer_window_function(Node *n, Diag *d)
{
    Type t = {.rank = 1};
    TRY(numeric_output(n, &t.dtype, d));
    TRY(count_input(n, 0, 0, "size", &t.dim[0], d));
    return infer_out(n, 0, t, d);
}

/* num_mel_bins, dft_length, sample_rate, lower and upper edge in hertz ->
 * [dft_length / 2 + 1, num_mel_bins] */
int infer_mel_weights(Node *n, Diag *d)
{
    Type t = {.rank = 2};
    int64_t dft, rate;
    TRY(numeric_output(n, &t.dtype, d));
    TRY(count_input(n, 0, 0, "number of mel bins", &t.dim[1], d));
    TRY(count_input(n, 1, 0, "DFT length", &dft, d));
    TRY(count_input(n, 2, 1, "sample rate", &rate, d));
    t.dim[0] = dft < 0 ? DIM_UNKNOWN : dft / 2 + 1;
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */
