"""Tests of one part; see the module names."""
