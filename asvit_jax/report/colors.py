"""Colours shared by all pictures."""

TEXT, FRAME, ACCENT = "#333333", "#bbbbbb", "#d1495b"
