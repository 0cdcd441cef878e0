"""The verbs: what a manager can be asked, and how it recovers."""
