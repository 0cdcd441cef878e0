"""Many hosts: the verbs of the API over a swarm of Docker engines."""
