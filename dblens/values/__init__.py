"""What 'the same value' means: canonical forms, codec and digests."""
