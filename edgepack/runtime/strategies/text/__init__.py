"""Kinds of text front ends: `STRATEGY` opens one."""
