"""The text of docs/gpu.md around its tables."""

OPENING = """\
# On a GPU

`make check-gpu` is the first hour on a GPU as one command of at most {minutes:g} minutes: what no CPU can show. It
writes this page and its numbers, `docs/gpu.json`."""

NEVER = """\
**It has never run: no GPU was at hand.** Nothing of this project has run on a GPU, and every statement about one, here
or on another page, is counted, derived or published elsewhere. Written, tested as far as a CPU goes, and waiting for
one:

* FlexAttention, compiled, for rows of changing length; its backward pass
* autocast to bfloat16 on CUDA, in scoring, training, generation and evaluation
* the sizes of the head's chunks, the halving of a micro-batch when memory runs out, gradient checkpointing
* continuous batching with the sampler and the cache on the device
* preflight's memory, times and utilisation
* every comparison with TRL and lm-eval's HFLM on a GPU"""

QUICK = """\
**Made to test the check itself, on device {device}:** the smallest cases, whose numbers say nothing about a GPU."""

CHECKS = """\
## What it checks

Each step has a share of the time, and what the steps before it left over. A step that fails, lacks a package or runs
out of time is reported as such, with the numbers that it had by then, and the next one starts.

{steps}

What it does not show, and what has not run either: several GPUs (NCCL, FSDP), a cluster with real GPUs, vLLM's CUDA
build unless `.venv-vllm` holds it, models of 7B and more, the full study."""

STEPS = {
    "tests": (
        "`pytest -m gpu`: log-probabilities, gradients and answers are those of the CPU; a training resumes; the "
        "logits of a large vocabulary are never whole"
    ),
    "attention": (
        "FlexAttention beside the bucketed kernels, which the CPU's tests hold to plain forward passes: differences of "
        "log-probabilities and gradients in float32 and bfloat16, seconds, memory, compilation"
    ),
    "study": (
        "a tiny study from nothing to its tables with `snakemake --profile local`: all stages, bfloat16, one iteration "
        "of both losses"
    ),
    "training": (
        "training and scoring of `make bench DEVICE=cuda` at the shape of Qwen1.5-1.8B, beside TRL's DPOTrainer in "
        "bfloat16, with and without Liger's kernels; peak memory beside preflight's estimate"
    ),
    "evaluation": (
        "evaluation of `make bench DEVICE=cuda`, beside lm-eval's HFLM; peak memory beside preflight's estimate"
    ),
}

RUNNING = """\
## How to run it

```bash
make check-gpu                  # in the environment of `make setup`, if that has torch for CUDA
make check-gpu PYTHON=python    # in another one
```

It needs no network, a GPU of 80 GB for its largest model, and an environment with torch for CUDA; it installs nothing.
`make setup` makes one where pip chooses a CUDA build of torch. Where a machine has torch and transformers already (2.11
and 5.17 should do; not tried), add the other packages without their dependencies, so that nothing replaces these two:

```bash
python -m venv --system-site-packages env && . env/bin/activate
grep -vE '^(torch|triton|nvidia-|cuda-|transformers|tokenizers|huggingface)' constraints.txt > others.txt
pip install --no-deps -r others.txt   # offline: --no-index --find-links FOLDER, with files of `pip download --no-deps`
make check-gpu PYTHON=python
```

Without a CUDA device it ends with one line and changes nothing."""

ATTENTION = """\
## FlexAttention beside the buckets

Largest difference of log-probabilities in nats, and the distance of the gradients relative to their norm, each with its
bound: in bfloat16 four times what bfloat16 itself changes in the buckets. Seconds and memory are those of a forward
pass, in training also of a backward pass, after one that compiled."""

STUDY = """\
## A tiny study

Jobs share the GPU; seconds are summed over a stage's jobs and are mostly imports and compilation. Memory is that of a
stage's largest job."""

TRAINING = """\
## Training and scoring

Seconds of the reference pass and the steps; memory is the peak that torch allocated in each. Share of the roof: the
FLOPs that the pairs require, relative to the device's own rate on a large matrix product."""

NO_TRL = "Skipped: TRL is not installed in that environment."

EVALUATION = """\
## Evaluation

Requests of the six suites' lengths, ours beside lm-eval's HFLM at its best batch (bold), on a GPU both in bfloat16.
Memory is the peak that torch allocated while they were answered, the model included; preflight's estimate also holds
the weights in float32 from which those in bfloat16 are cast when the model is loaded."""
