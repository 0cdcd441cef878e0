"""What containers said, and what happened."""
