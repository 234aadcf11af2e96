"""Floor 1, the judges: read records, import no framework."""
