"""Services: a wish for what should run, and the loop that sees to it."""
