/* ehapc as a library: a trained ONNX model in, a smaller, faster INT8 one out.
 *
 *     ehap *e = ehap_new(NULL, NULL);
 *     if (ehap_set(e, "flops", "0.5") || ehap_set(e, "data", "train.npz") ||
 *         ehap_load(e, "in.onnx") || ehap_compress(e) || ehap_save(e, "out.onnx"))
 *         …                               the message has been reported
 *     ehap_free(e);
 *
 * Every function that can fail returns one of the statuses below, which are also the exit
 * statuses of the program, after a message that says what is wrong and where. Strings that are
 * given are copied; paths are relative to the working folder. One ehap is used by one thread at a
 * time (its work uses several); different ones are independent, but that they share the process's
 * memory and GPU. Options have the names of the command line's flags. */
#ifndef EHAP_H
#define EHAP_H

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EHAP_OK = 0,
    EHAP_BAD_INPUT = 1, /* the model, the data or a path is at fault; a message says how */
    EHAP_USAGE = 2,     /* an option or its value is */
    EHAP_NOTHING = 3,   /* nothing could be removed; messages say what pins what. Of ehap_lint:
                           something stays in float */
    EHAP_INTERNAL = 4,  /* a bug in ehapc, or memory ran out; after it, all but
                           ehap_crash_folder and ehap_free refuse */
};

typedef struct ehap ehap;

enum { EHAP_ERROR, EHAP_WARNING, EHAP_REMARK, EHAP_NOTE };

/* One finished message, without a newline: "error: in.onnx: node 'conv1' (Conv): …". `text` lives
 * for the call. */
typedef void ehap_message_fn(void *ctx, int severity, const char *text);
/* Progress of the running pass, called by the thread that called the library: `fraction` is 0 to 1,
 * `text` what it is at, or "". Both strings live for the call. */
typedef void ehap_progress_fn(void *ctx, const char *pass, double fraction, const char *text);

const char *ehap_version(void); /* "0.1.0"; not to be freed */

/* NULL when memory runs out. on_message NULL: messages go to stderr. The caller's, for
 * ehap_free. */
ehap *ehap_new(ehap_message_fn *on_message, void *ctx);
void ehap_free(ehap *e); /* with all that it holds; NULL is allowed */
void ehap_on_progress(ehap *e, ehap_progress_fn *f, void *ctx); /* f NULL: nobody is told */

/* Sets an option by the name of its flag, "flops" for --flops, before ehap_load or after it, but
 * before the job; value NULL for a switch. EHAP_USAGE names the option and what it takes. */
int ehap_set(ehap *e, const char *option, const char *value);

/* Reads a model; once per ehap. The file is never written to, is mapped, and has to stay as it is
 * until ehap_free. EHAP_BAD_INPUT: it is no ONNX model, or one that contradicts itself. */
int ehap_load(ehap *e, const char *path);

/* The jobs change the model in memory; one job per ehap. EHAP_USAGE: no model is loaded;
 * EHAP_NOTHING: there is nothing to remove (for ehap_quantize: to quantize), and messages say why.
 *
 * The whole job: score, remove, refit, fine-tune with simulated INT8, quantize. */
int ehap_compress(ehap *e);
/* Score (or take the scores of --scores), remove, refit; fine-tune if steps were asked for. */
int ehap_prune(ehap *e);
/* Calibrate, fine-tune (not with steps 0), quantize. */
int ehap_quantize(ehap *e);
/* Lays a quantized model out for another target, from its grids and the ranges that it records. */
int ehap_requantize(ehap *e);
/* Passes by name: "canonicalize,sensitivity{criterion=l2},allocate,remove-channels". A name or an
 * option that is not known is EHAP_USAGE before any of them runs. */
int ehap_run_passes(ehap *e, const char *pipeline);

/* Scores every prunable channel and writes them as JSON to `path`. */
int ehap_score(ehap *e, const char *path);
/* Writes the model as it stands; the file appears whole or not at all. `path` may not be the
 * file that was loaded. */
int ehap_save(ehap *e, const char *path);
/* What happened since ehap_load, as JSON; bytes, seconds, and accuracies as fractions. */
int ehap_write_report(ehap *e, const char *path);
/* To stdout: the before/after table; per node, shapes, parameters and FLOPs. */
int ehap_print_summary(ehap *e);
int ehap_inspect(ehap *e);
/* To stdout: which nodes of the model, with QuantizeLinear/DequantizeLinear from any tool, the
 * target runs in integers, and which rule the others break. EHAP_NOTHING if a node that could
 * stays in float. */
int ehap_lint(ehap *e);

/* After EHAP_INTERNAL: the folder with the state before the pass that broke, which the option
 * "resume" takes to come to the same place again; NULL if there is none. Not to be freed. */
const char *ehap_crash_folder(const ehap *e);

/* Runs the model once, as it was loaded, on the arrays of an .npz, one per input and of its name,
 * type and shape (open dimensions may be any); writes arrays by output name. */
int ehap_infer(ehap *e, const char *in_npz, const char *out_npz);
/* Runs an ONNX test-data folder (input_k.pb, output_k.pb) and compares, to 1e-3 relative and
 * 1e-5 absolute; EHAP_BAD_INPUT where they differ. */
int ehap_check_test_data(ehap *e, const char *dir);

#ifdef __cplusplus
}
#endif

#endif
