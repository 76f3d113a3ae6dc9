"""Stage train: one trainer for every loss, on any number of processes, resumable at any step."""
