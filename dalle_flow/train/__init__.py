"""Training of the embedded family, on procedurally drawn scenes or on your own data."""
