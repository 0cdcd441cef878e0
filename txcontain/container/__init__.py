"""What a container is: spec, plan, init and explain. Pure data; no Twisted."""
