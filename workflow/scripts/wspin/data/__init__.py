"""Stage data: rows, chat templates and tokenisation; the room every later stage shares."""
