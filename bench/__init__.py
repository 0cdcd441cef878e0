"""How fast txcontain is, side by side with others, on this machine: ``python -m bench``.

``BENCH=quick`` takes about a minute instead of a few. ``BENCH_PEERS=no`` leaves out the
other container programs; they are otherwise unpacked from Debian's packages into
build/peers, and nothing is installed. Needs root; removes all that it makes.
"""
