"""Import and export of SPIN's and TIS-DPO's JSONL."""
