"""The first hour on a GPU as one command, `make check-gpu`: what no CPU can show, and the page docs/gpu.md."""
