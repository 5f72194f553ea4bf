"""Ask: statements split, classified, run and streamed as Arrow; answers written to files. No user, no permission here."""
