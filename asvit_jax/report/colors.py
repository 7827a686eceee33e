"""Colours that pictures share."""

TEXT, FRAME, ACCENT = "#333333", "#bbbbbb", "#d1495b"
