"""Stage eval: lm-eval's tasks on one model, scores kept with the answers behind them."""
