"""What a network is worth: accuracy, predictions for files, speed."""
