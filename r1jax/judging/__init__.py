"""Judges behind one interface: rules first, then a generative judge, which may be any checkpoint of ours."""
