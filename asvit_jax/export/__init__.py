"""Networks as files that others run: what is in them, their formats, writing and loading."""
