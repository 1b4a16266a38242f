/* The state behind the public handle, shared by the files of tools/. */
#ifndef EHAP_TOOLS_SESSION_H
#define EHAP_TOOLS_SESSION_H

#include "ehap.h"
#include "frontend/frontend.h"
#include "passes/halves.h"
#include "passes/passes.h"
#include "passes/prune/behind.h"
#include "passes/tail.h"

/* What is said of a model file before and after. */
typedef struct ModelStats {
    const char *path;
    int64_t params, flops, bytes; /* flops per sample; bytes of the file, external data too */
} ModelStats;

struct ehap {
    Arena *arena; /* of everything below */
    Diag diag;
    Context c;
    Tail *tail;       /* what cannot be planned, set aside; NULL: nothing */
    Halves *halves;   /* what was in half precision and is worked on in float; NULL: nothing */
    bool no_front;    /* nothing in front of it can be run */
    bool front_fixed; /* no channel in front of it can go */
    Context *behind;  /* where the tail was compressed; NULL: it was not */
    ModelStats apart; /* of the tail as it was */
    const char *in_path, *data, *eval, *scores;
    const char *fix;    /* --fix: "sr=16000,…"; NULL: none */
    bool settled;       /* branches_settle() is done */
    const char *device; /* as asked for; c.opt.device has the flags below in its name */
    bool tf32, deterministic;
    const char *resume; /* folder; NULL: none */
    const char *crash;  /* folder with the state before the pass that broke; NULL: none */
    bool broken;        /* a call was left by a trap: the graph may be half-rewritten */
    const char *job;    /* what job_begin() was told */
    uint64_t options;   /* digest of those set that change the output */
    Preprocess preprocess;
    Answers answers;   /* of the original, to what accuracy is measured on */
    uint64_t external; /* stamp of the input's external data */
    ModelStats input, output;
    ehap_message_fn *on_message;
    void *message_ctx;
    double start; /* seconds, monotonic */
};

/* options.c: the one table of flags. */
/* EHAP_OK, or EHAP_USAGE after a message. */
int option_set(ehap *e, const char *name, const char *value);

/* job.c; statuses as in ehap.h. */
int need_model(ehap *e);   /* one has been read */
int need_weights(ehap *e); /* … to compute with */
/* Makes c.graph and c.original ready for `job`, once. `runs`: the job runs the network, so that
 * what cannot be planned has to be set aside. */
int job_begin(ehap *e, const char *job, bool runs);
/* For jobs that remove channels: samples are only wanted where some can go. */
int job_begin_removal(ehap *e, const char *job);
int job_canonical(ehap *e); /* c.original: the model in canonical form, which all is held against */
/* What makes a run this one: version, job, options, the model, the files it takes data from. Reads
 * all of the model, so only who needs it asks. */
int job_key(ehap *e, uint64_t *key);

/* branches.c */
/* Sets what --fix says and replaces every If whose condition is known by the branch it takes, once;
 * a remark says which inputs would decide others. */
int branches_settle(ehap *e);
/* The same in g, to be run on inputs of these types and data, as far as they decide. */
int branches_decide(Graph *g, const Type *types, const void *const *data, const InferenceOptions *o,
                    Diag *d);

/* report.c */
int report_write(ehap *e, const char *path);
void report_print(ehap *e, FILE *to);
/* Channels before and after, by node, with what pins the rest. Call when the job is done. */
void report_layers(ehap *e);

/* scores_json.c */
int scores_write(const Scores *s, const char *path, Diag *d);
const char *scores_digest(Arena *a, const Scores *s); /* 16 hex digits; "" for NULL */
int scores_read(Scores **out, Arena *a, const char *path, Diag *d);

/* text_file.c: whole small files; writing is by temporary file and rename. */
int text_write(const char *path, const char *text, Diag *d);
char *text_read(Arena *a, const char *path, Diag *d); /* NULL after an error */

/* pipeline.c: the main job and its two halves. Statuses as in ehap.h. */
int pipeline_prepare(ehap *e); /* samples, the original, accuracy of the input */
int pipeline_prune(ehap *e);
int pipeline_train(ehap *e);
int pipeline_quantize(ehap *e);
int pipeline_requantize(ehap *e);

/* run_model.c, inspect.c */
int run_arrays(ehap *e, const char *in_npz, const char *out_npz);
int run_test_data(ehap *e, const char *dir);
void inspect_print(ehap *e, FILE *to);

/* lint.c: EHAP_OK if all that can run in integers on --target does, else EHAP_NOTHING. */
int lint_print(ehap *e, FILE *to);

#endif
