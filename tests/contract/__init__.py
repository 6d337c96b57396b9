"""Tests of one part. See the module names."""
