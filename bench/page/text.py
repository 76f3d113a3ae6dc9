"""The page's text around its tables, and how these are written."""

from collections.abc import Iterable, Sequence

OPENING = """\
# Benchmarks

Made by `make bench`; the raw numbers are in [benchmarks.csv](benchmarks.csv). Every contender of a comparison runs in
one process on one thread, in turn, round after round. A ratio is made within a round; shown is the median, and in
brackets the smallest and the largest. Models have random weights and conversations random tokens: what is compared is
the time for the same result, and that the results are the same is asserted before a number is kept. Lengths, but those
of evaluation, are UltraChat's: log-normal, on average 137 tokens of the prompt, 273 of the human answer and 229 of a
generated one, which is cut at 256."""

GOALS = """\
## Goals

A goal is a ratio of times unless it says otherwise. A gate is a counter, the same on every machine, and `make bench`
fails with it; times warn. A section that was measured on another machine names it."""

TRAINING = """\
## Training

Trainer against Trainer: all are subclasses of transformers' own, with a line of measurements per step and without
saved states. Pairs, their order, EOS, beta, optimiser (RMSprop over all tensors at once, no weight decay), clipping
at 1, linear decay and float32 are the same; token ids are asserted to be equal, and so are loss and gradient norm of
every step (`disagreement`: the largest relative difference to ours). Seconds hold the pass that computes the
references, wherever a contender has one: ours, and TRL's with `precompute_ref_log_probs`.

* TRL 1.16 (huggingface/trl, release 1.16.0): `DPOTrainer`, loss sigmoid, which is SPIN's logistic loss; no gradient
  checkpointing, no bfloat16, no padding to a multiple; pairs per micro-batch x micro-batches. Bold: the fastest. Its
  default is 8 pairs at a time; goals are held against both.
* padded: chosen and rejected in one rectangle, log-probabilities of every position over the whole vocabulary, the
  reference at every step (eric-mitchell/direct-preference-optimization at f8b8c0f, exlaw/TIS-DPO at cbad7c1; derived
  again). `answers only`: the same with logits where an answer token is predicted."""

TRAINING_CAVEATS = """\
CPU, tiny and small models: ratios of a million or twelve million parameters do not predict those on a GPU. There TRL
makes logits of the answers' tokens alone, on a CPU of every position; and there a micro-batch of one pair, which pads
least and is the fastest here, leaves the device idle. TRL is handed token ids and does not tokenise; the writing of
its references to a file is in its seconds. Ours reads 2,048 tokens at a time, a setting of the study that, like TRL's
micro-batch, was chosen for this processor's caches. `FLOPs / needed` counts a reference pass for everybody.
`CPU time / ours` is the ratio of processor time, which other users of the machine cannot lengthen.

Where a goal is missed against TRL's fastest setting, `FLOPs / needed` says why: one pair at a time pads only between
its two answers, so that TRL computes less than twice what is needed, and no implementation without redundant
computation can be faster by more than that and by how well the processor is used. A vocabulary of 2,048 is kind to
TRL, whose head reads every position on a CPU: see Growth for larger ones. A GPU starves on micro-batches of one pair;
what that costs there has not been measured."""

WEIGHING = """\
## Token weights

Published: four pairs at a time, teacher and student read chosen and rejected in one padded rectangle each, full
log-softmax, and a Python loop takes the tokens out one by one (exlaw/TIS-DPO at cbad7c1, tue09/WSPIN at def8222;
derived again, without their eight-bit models and rounding). Both sides' weights are asserted to be equal."""

WEIGHING_CAVEATS = """\
Two accountings. The student's reading is the reference that training needs anyway: it is stored once, and the
training above counts it already. `student's pass counted` counts it here a second time; `not counted` leaves it to
the training. Four iterations are put together from the parts: the teacher reads human answers in the first alone.
Teacher and student have one tokenizer. Where they are of one size the student's pass is half of the work; in the study
the teacher costs five times the student, as the `larger teacher` does here: those are the ratios that speak for it."""

GENERATING = """\
## Generation

`generate` of transformers takes prompts as they come, and a batch ends with its longest answer (uclaml/SPIN at
a12ba80, tue09/WSPIN at def8222: batches of 8). Answers are log-normal in length, 128 tokens on average, at most 256.
Both sides draw tokens by the same uniform numbers; `same answers` is the share with equal ids, in others rounding
moved a number over the border of two tokens. A slot-step is one row's part in one decoding step, useful if it gives a
token."""

GENERATING_CAVEATS = """\
Ours decodes as many rows together as the larger `generate` of the table; more of them slow this processor down. Scripts
of both papers exist for vLLM as well; this compares with the path through transformers alone."""

EVALUATION = """\
## Evaluation

`HFLM` is lm-eval's own model for transformers (EleutherAI/lm-evaluation-harness, release 0.4.13): a pass per request,
padded on the right to the longest of its batch, logits of every position; continuations of one token that follow one
context share a pass. Ours is the study's, which reads every common beginning once. Requests are random tokens with the
number of documents, the choices and the assumed lengths of the six suites (`bench/cases/suites.py`): lm-eval draws new
shots for every document, but takes the same five for a subject of MMLU and has the same six questions before every one
of TruthfulQA, and the two contexts of Winogrande differ in a word near their end."""

EVALUATION_COUNTED = """\
Counted for the shape of Qwen1.5-1.8B and the whole suites, without running; our rows hold at most 16,384 tokens, and
lm-eval's batches are the study's 16, or 1, which pads nothing. Needed: every different beginning of a text read once,
and logits where a token of an answer is predicted. Causal attention counts as the pairs that attend, attention with a
mask as full rectangles; with full squares for both the ratios would be from 1% lower (hellaswag, arc) to 2% higher
(mmlu), and ours / needed up to four hundredths higher."""

EVALUATION_TIMED = """\
Timed on a few documents of each, in float32: 12 million parameters (head and embeddings counted once), vocabulary
32,768, our rows at most 4,096 tokens. All contenders answer the same requests; bold: the fastest batch of `HFLM`.
`equal choices`: documents whose likeliest choice (of gsm8k: whose text) is ours too; `equal flags`: requests for which
both say alike whether the answer is the greedy one; `largest difference` of log-likelihoods, in nats. gsm8k: greedy
answers of 110 tokens on average, up to lm-eval's stop string. Goals are ratios of processor time, which other users of
the machine cannot lengthen."""

EVALUATION_CAVEATS = """\
CPU, a small model: its head is a large part of it, and `HFLM` computes it for every position, so that ratios are
larger than by count at Qwen1.5's shape. A few documents of a subject share its shots less than all of them do.

Where the goal of gsm8k is missed: its prompts, with shots drawn for every question, are nine times as long as their
answers and have no beginning in common, so that both read them alike. Ours gains in decoding alone, where an answer
leaves its place to another as it ends; 32 answers are two batches of 16, and their last steps have empty places in ours
too."""

SCALE = """\
## Scale

The stages without a model at the size of the study: 50,000 prompts in shards of 10,000, texts as in the section above,
the teacher with a tokenizer of its own (4,096 tokens, the student's 8,192), log-probabilities random. CPU-seconds and
peak resident memory are those of the whole process, beside the memory that `resources` of `config/config.yaml` gives
its job. A prompt more: the difference to 2,500 prompts. Training items: all pairs of an iteration with `data_window:
2`, twice as many as prompts, which every process of a training holds; the memory is that above the process's own, the
job's is for all of its processes and the model. Differences: 16 models against one of them, six suites of 28,659
documents, 10,000 draws of the bootstrap."""

RULES = """\
### Through the rules

50,000 prompts through Snakemake's rules, from nothing to the second iteration of an arm and its table of weights, with
tiny models (one layer, hidden size 32) and short texts: sums of two to four numbers, answers of at most 8 tokens.
Rows, shards of 10,000 and files are those of a study of that size. The CPU-seconds of all programs of a stage, and the
peak resident memory of its largest one."""

MEMORY = """\
## Memory

Peak resident memory of one forward and backward pass over four pairs, above the loaded model: vocabulary 151,936,
hidden size 64, conversations of half the length. Every contender has processes of its own. The padded forward's
reference is not in it."""

GROWTH = """\
## Growth

![Seconds and FLOPs of a step](benchmarks.svg)

A training step with its share of the reference pass, tiny model; unless the axis says otherwise 4 pairs per step of
UltraChat's lengths (`length` scales them) and a vocabulary of 2,048. TRL: references precomputed, micro-batches of
one pair, which was its fastest setting. FLOPs are counted from shapes, matrix products alone."""

WORK = """\
## Work of the demo study

FLOPs that the trainings and scorings of `make demo` computed, over those that its results need: every model reads
every set of answers once, a prompt once for all its answers in a file; a backward pass counts as two forward passes.
Of generation the slot-steps, and how many of them gave a token."""

WORK_CAVEATS = """\
G: FLOPs in thousands of millions. What is not needed is padding inside attention's buckets. In the demo, whose
answers are a word long, {alike:.0%} of a file's tokens, on average, belong to an answer that the same model happens
to have read to the same prompt in another set; a study of real text has few such answers, and nothing here looks for
them. The arm `equal` repeats `spin` to the bit, which is what it is there to show; its work counts as needed."""

NO_STUDY = "Not measured: no finished study under `results/demo` that counts its work; run `make demo` first."

PREPARATION = """\
## Preparation of a shard

What a GPU waits for when a shard of 10,000 prompts is scored: prompts and real answers are tokenised, and the ends of
real, new and replayed answers' tokens are found in their texts. Texts are pieces of Python's documentation in
UltraChat's lengths. `the tokenizer alone` encodes prompts and real answers and does nothing else: to do much better,
ids would have to be stored for every tokenizer of the study."""

WORKFLOW = """\
## Size of a study

What Snakemake takes to plan a study: the study of `config/config.yaml` in shards of 2,085 and of 187 prompts. `dry run`
plans and prints it from nothing; `no-op` finds that nothing is left to do, inputs and flags of every job compared.
CPU-seconds of the process and its children. Starting Snakemake and reading the rules is a part of each."""

OWN_SHARE = """\
Of a no-op's time the study's own functions, with all that they call, take {shares} (cProfile). The rest is Snakemake's,
which makes an object of every input of every job and compares it: the way to less is fewer jobs, by larger shards."""

ON_GPU = """\
## On a GPU

`make bench DEVICE=cuda` measures training and scoring there, beside TRL if it is installed, on the shape of
Qwen1.5-1.8B, in bfloat16 and with whatever attention the library chooses, as a share of the device's own rate of matrix
products; and evaluation beside lm-eval's `HFLM`, both on the weights that ours casts to bfloat16.
`make check-gpu` does so too, with what else no CPU can show ([gpu.md](gpu.md))."""

NO_GPU = "Not measured: the numbers on this page were made on a machine without a GPU."

COST = """\
## Cost of the study on one H100: derived, not measured

From the published shapes of Qwen1.5-1.8B (student) and zephyr-7b-sft-full (teacher), counted as the library counts
its own work. Assumed: the mean lengths above for every tokenizer, 800 TFLOP/s in bfloat16 and 3.35 TB/s, FLOPs and
memory one after the other, 256 rows decoded together. At a global batch of 64 the optimiser's own traffic is small."""

PUBLISHED = """\
## Published elsewhere, not measured here

* SWIFT (NeurIPS 2025) reports, for 50k samples on one H100 and per iteration, 0.22 to 0.24 h of generation (vLLM),
  0.55 to 0.58 h of token weights and 1.40 to 1.45 h of training.
* Prefix sharing for DPO (frankxwang/dpo-prefix-sharing at 8963fa9) reports, for Llama-8B on eight H100 and
  UltraFeedback, 18.4 samples/s padded, 45.5 packed and 53.2 with the prompt read once.

A slow script is no measure of a field: no ratio on this page is one against these numbers."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table: the first `left` columns left-aligned, the others right-aligned."""
    lines = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
