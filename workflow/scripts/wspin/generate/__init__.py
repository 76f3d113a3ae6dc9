"""Stage generate: the opponent's own answers, sampled prompt by prompt from seeds of their own."""
