"""Readers (one function an option, numpy in, numpy out) and the one data module."""
