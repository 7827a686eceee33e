"""Evaluation of a network: accuracy, predictions for files, speed."""
