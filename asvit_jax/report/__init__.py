"""What people look at: tokens kept, curves of a run, speed."""
