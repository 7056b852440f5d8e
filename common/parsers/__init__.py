"""Readers of files that may be hostile.

Whatever comes from outside is parsed here: within limits, by few decoders, nothing in it is ever
executed, and what is damaged is refused by an error that says why.
"""
