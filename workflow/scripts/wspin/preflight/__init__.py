"""What a study will cost and what would stop it, before the first GPU minute."""
