"""What a manager can be asked to do, and how it recovers after a restart."""
