"""Stage data: rows, chat templates and tokenisation, shared by every later stage."""
