"""Stage logprobs: per-token log-probabilities of answers by the opponent, a teacher or a baseline's start."""
