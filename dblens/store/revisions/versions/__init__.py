"""One file per revision; their order is in `down_revision`."""
