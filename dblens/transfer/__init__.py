"""Move rows between two sessions and prove them equal. Knows formats and forms, never an engine."""
