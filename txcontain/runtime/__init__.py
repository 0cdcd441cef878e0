"""One container, made and watched."""
