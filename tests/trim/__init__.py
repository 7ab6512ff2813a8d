"""Tests of trimming."""
