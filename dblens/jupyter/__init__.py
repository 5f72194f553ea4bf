"""DBLens in a notebook: the `%%dblens` magic and its completion."""
